"""How many epochs a time budget gives a full trial."""

import pytest

from search.config.load import load_config
from search.engine.pace import Pace, most_epochs


@pytest.mark.parametrize(("samples", "epochs"), [(20, 600), (138, 348), (800, 60), (300_000, 60)])
def test_small_data_is_passed_oftener_and_large_data_as_the_settings_say(samples, epochs):
    assert most_epochs(load_config("rnn", profile="data"), samples) == epochs


@pytest.mark.parametrize(
    ("seconds", "most", "epochs", "first"),
    [(3.0, 60, 60, 5), (6.0, 60, 30, 2), (100.0, 60, 4, 1), (0.3, 348, 348, 29), (0.3, 600, 600, 50)],
)
def test_budget_gives_a_full_trial_three_tenths_and_the_first_rung_moves_with_its_epochs(seconds, most, epochs, first):
    config = load_config("rnn", ["search.grace_period=5"], profile="data")
    fitted = Pace(seconds, alone=1.0).fit(config, 600.0, most).search
    assert (fitted.epochs, fitted.grace_period, fitted.fit_epochs) == (epochs, first, False)
    assert fitted.max_epoch_seconds * fitted.epochs == pytest.approx(1.5 * 0.3 * 600)
