"""How many epochs a time budget gives a full trial."""

import pytest

from search.config.load import load_config
from search.engine.pace import Pace


@pytest.mark.parametrize(("seconds", "epochs", "first"), [(3.0, 60, 5), (6.0, 30, 2), (100.0, 4, 1)])
def test_budget_gives_a_full_trial_three_tenths_and_the_first_rung_moves_with_its_epochs(seconds, epochs, first):
    config = load_config("rnn", ["search.grace_period=5"], profile="data")
    fitted = Pace(seconds, alone=1.0).fit(config, 600.0).search
    assert (fitted.epochs, fitted.grace_period, fitted.fit_epochs) == (epochs, first, False)
    assert fitted.max_epoch_seconds * fitted.epochs == pytest.approx(1.5 * 0.3 * 600)
