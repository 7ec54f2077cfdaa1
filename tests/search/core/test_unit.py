"""Searches that count in steps: the length of a trial, and how people see its reports."""

import pytest

from search.core.overrides import argument
from search.core.program_config import loop_config
from search.core.replay import extend
from search.core.state import SearchState
from search.reports.frames import curves_frame, trials_frame
from trainables import InputError, Objective
from trainables.base.unit import EPOCHS, Unit


def config(named=argument, **search):
    flags = {"search.trials": 2, **{f"search.{key}": value for key, value in search.items()}}
    return loop_config("mine", {"lr": {"uniform": [0, 1]}}, "val_loss min", flags, [], "search.run", named)


def test_steps_become_reports():
    search = config(steps=2000, report_every=100).search
    assert (search.epochs, search.report_every, search.fit_epochs) == (20, 100, False)
    assert search.unit.count(search.epochs) == "2000 steps"
    assert config(epochs=20).search.unit == EPOCHS


@pytest.mark.parametrize("given, message", [
    ({"steps": 2000}, r"^steps=2000: give the steps from one report to the next too"),
    ({"steps": 250, "report_every": 100}, r"^steps=250: must be a multiple of report_every \(100\), such as 200 or"),
    ({"steps": 50, "report_every": 100}, r"^steps=50: must be a multiple of report_every \(100\), such as 100$"),
    ({"steps": 200, "report_every": 100, "epochs": 2}, r"^steps=200: give the length of a trial in steps or in epochs"),
    ({"steps": 0, "report_every": 100}, r"^steps=0: expected a whole number >= 1"),
    ({"steps": 2.5, "report_every": 100}, r"^steps=2.5: expected a whole number >= 1"),
    ({"steps": 200, "report_every": 0}, r"^report_every=0: expected a whole number >= 1"),
])  # fmt: skip
def test_length_that_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        config(**given)


def test_more_steps():
    search = config(steps=2000, report_every=100)
    assert extend(search, {"steps": "+500", "epochs": None, "time_budget": None}).search.epochs == 25
    assert extend(search, {"steps": "3000"}).search.epochs == 30
    with pytest.raises(InputError, match=r"--steps 1000: the search has 2000 already"):
        extend(search, {"steps": "1000"})
    with pytest.raises(InputError, match=r"--epochs \+5: the search counts in steps; give --steps"):
        extend(search, {"epochs": "+5"})
    with pytest.raises(InputError, match=r"--steps \+5: the search counts in epochs; give --epochs"):
        extend(config(epochs=3), {"steps": "+5"})
    with pytest.raises(InputError, match=r"--steps \+50: must be a multiple of report_every"):
        extend(search, {"steps": "+50"})


def test_frames_in_steps():
    state = SearchState(Objective("loss", "min"))
    state.apply({"event": "trial", "number": 0, "params": {"lr": 0.1}, "seed": 0})
    for epoch, loss in ((1, 0.5), (2, 0.7)):
        state.apply({
            "event": "result", "number": 0, "epoch": epoch, "metrics": {"val_loss": loss}, "diverged": None,
            "outcome": None, "device": "cpu",
        })  # fmt: skip
    assert curves_frame(state, Unit(100))[["step", "val_loss"]].to_numpy().tolist() == [[100, 0.5], [200, 0.7]]
    row = trials_frame(state, unit=Unit(100)).loc[0]
    assert (row["steps"], row["best_step"]) == (200, 100)
