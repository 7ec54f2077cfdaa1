"""Searchers, schedulers and callbacks of another package, which its entry points offer."""

import sys
import tomllib
from pathlib import Path

import pytest

from search.core import registry
from search.core.config import load_config
from search.core.decision import TrialResult
from search.core.registry import CALLBACKS, SCHEDULERS, SEARCHERS
from search.core.study import Study
from trainables import InputError, Objective

PLUGINS = Path(__file__).parents[3] / "examples" / "plugins"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The example package, as `pip install -e` leaves it: its folder on the path, and its entry points."""
    about = tomllib.loads((PLUGINS / "pyproject.toml").read_text())["project"]
    points = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items())
              for group, names in about["entry-points"].items()]  # fmt: skip
    info = tmp_path / "trial_search_plugins-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: 1\n")
    (info / "entry_points.txt").write_text("\n".join(points))
    monkeypatch.setattr(sys, "path", [str(PLUGINS), str(tmp_path), *sys.path])
    registry.entry_points_of.cache_clear()
    yield
    registry.entry_points_of.cache_clear()


def study_of(*sets: str) -> Study:
    config = load_config("rnn", ["search.balance=null", "search.trials=4", "search.epochs=8", *sets])
    return Study(config, Objective("mse", "min"))


def test_names_are_listed_after_our_own(installed):
    assert SEARCHERS.names()[-1] == "sobol" and SCHEDULERS.names()[-1] == "patience"
    assert CALLBACKS.names() == ["best-value"]


def test_unknown_searcher_is_an_error_that_lists_all(installed):
    with pytest.raises(InputError, match=r"allowed are ranks, .*, sobol; did you mean 'sobol'"):
        load_config("rnn", ["search.searcher=sobool"])


def test_optuna_sampler_of_another_package_proposes_and_replays(installed):
    study = study_of("search.searcher=sobol")
    events = []
    for number in range(4):
        events.append(study.propose())
        study.apply(events[-1])
        complete = [TrialResult(number, epoch, {"val_mse": 0.5, "epoch_seconds": 1.0}) for epoch in range(1, 9)]
        for event in study.report(complete)[0]:
            study.apply(event)
            events.append(event)
    proposed = [event["params"] for event in events if event["event"] == "trial"]
    assert len({params["lr"] for params in proposed}) == 4
    again = study_of("search.searcher=sobol")
    for event in events:
        if event["event"] == "trial" and event["number"] >= 2:
            assert again.propose()["params"] == event["params"]
        again.apply(event)


def test_scheduler_of_another_package_stops_a_trial_with_its_reason(installed):
    study = study_of("search.scheduler=patience", "search.searcher=random")
    study.apply(study.propose())
    kinds = []
    for epoch, loss in enumerate([3.0, 1.0, 2.0, 2.0, 2.0], 1):
        events, decisions = study.report([TrialResult(0, epoch, {"val_mse": loss, "epoch_seconds": 1.0})])
        for event in events:
            study.apply(event)
        kinds.append(decisions[0].kind)
    assert kinds == ["continue"] * 4 + ["stop"]
    assert events[0]["reason"] == "its best loss is 3 epochs old"


def test_callback_of_another_package_is_called_with_events(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study, callback = study_of("search.searcher=random"), CALLBACKS.get("best-value")
    study.apply(study.propose())
    (event,), _ = study.report([TrialResult(0, 1, {"val_mse": 0.5, "epoch_seconds": 1.0})])
    study.apply(event)
    callback(event, study.state)
    assert Path("best_values.txt").read_text() == "trial 0, epoch 1: 0.5000\n"
