"""`search why`: what it says of a trial is what happened to it, and why."""

import json
import random
import re

import pytest

from search.core.config import load_config
from search.core.record import SearchRecord
from search.core.store import Store
from search.reports.why import why
from search.runtime.search import Search
from tests.search.reports.made import made
from tests.search.runtime.test_search import result
from trainables import InputError

STANDING = re.compile(r"(\d+)(?:st|nd|rd|th) of \d+ at epoch \d+; (?:the best )?(trial|too few|\d+)")


def search_with(folder, *sets: str) -> tuple[Store, Search]:
    """A search of twenty trials on two workers with results that are drawn."""
    store = Store(folder)
    config = load_config("windows", ["search.epochs=9", "search.grace_period=1", "search.trials=20", *sets],
                         profile="data")  # fmt: skip
    search = Search(config, store.search("s"))
    search.record({"event": "session"})
    draw, running = random.Random(1), []
    while True:
        while len(running) < 2 and (trial := search.propose()) is not None:
            running.append(trial.number)
        if not running:
            break
        number = running.pop(0)
        epoch = search.state.trials[number].epoch + 1
        reported = result(number, epoch, draw.random() + epoch / 10)
        if number == 7:
            reported |= {"diverged": "training loss is nan"}
        if number == 9:
            search.fail(number, "error", "Traceback\n  ValueError: mine")
        elif not search.report([reported], "cpu"):
            running.append(number)
    search.end("finished")
    search.folder.write(SearchRecord("windows", config.raw, config.place))
    return store, search


@pytest.mark.parametrize("scheduler", ["asha", "asha-promote", "asha-predict", "hyperband", "median", "none"])
def test_each_decision_is_told_with_figures_that_lead_to_it(tmp_path, scheduler):
    store, search = search_with(tmp_path, f"search.scheduler={scheduler}", "search.max_failures=0")
    told = 0
    for number, trial in search.state.trials.items():
        lines = why(store, "s", number)
        assert "would propose something else" not in lines[0], lines[0]
        assert lines[0].startswith("proposed: ")
        for line in lines:
            if found := STANDING.search(line):
                rank, places = int(found[1]), int({"trial": "1", "too few": "0"}.get(found[2], found[2]))
                stops = scheduler in ("asha", "hyperband") and rank > places and "always continues" not in line
                assert (": stopped; " in line) == stops, line
                told += 1
        if trial.outcome == "stopped_early":
            assert any(": stopped" in line or line.startswith("stopped") for line in lines)
        assert f"in the end: {trial.outcome}" in lines[-1]
    assert told > 10 or scheduler in ("median", "none")
    assert any("ended, as training loss is nan" in line for line in why(store, "s", 7))
    assert "failed for good (error): ValueError: mine" in why(store, "s", 9)
    best = search.state.best()
    assert f"place 1 of {len(search.state.ranked())}" in why(store, "s", best.number)[-1]


@pytest.mark.parametrize("scheduler", ["asha", "asha-predict", "hyperband", "median"])
def test_journal_without_reasons_leads_to_the_same_lines(tmp_path, scheduler):
    store, search = search_with(tmp_path, f"search.scheduler={scheduler}", "search.max_failures=0")
    with_reasons = [why(store, "s", number) for number in search.state.trials]
    assert all("reason" in event for event in search.journal.events if event["event"] in ("trial", "promoted"))
    older = [{k: v for k, v in event.items() if k not in ("reason", "version")} for event in search.journal.events]
    search.folder.journal.write_text("".join(json.dumps(event) + "\n" for event in older))
    assert [why(store, "s", number) for number in search.state.trials] == with_reasons


def test_imported_trial_has_no_reason_that_its_tool_did_not_keep(tmp_path):
    results = [({"x": 0.1}, [0.5, 0.4, 0.3, 0.2], "completed"), ({"x": 0.2}, [0.9], "stopped_early")]
    store, *_ = made(tmp_path, {"x": {"uniform": [0, 1]}}, results, flags={"search.epochs": 4}, imported="study.db")
    assert why(store, "s", 0) == [
        "imported from study.db, which does not say why it was proposed", "  x 0.1",
        "epoch 4: complete; val_loss 0.2000",
        "in the end: completed; best val_loss 0.2000 at epoch 4, place 1 of 2",
    ]  # fmt: skip
    assert why(store, "s", 1)[2] == "epoch 1: stopped; val_loss 0.9000"


def test_sources_of_proposals_are_told(tmp_path):
    store, _ = search_with(tmp_path, "search.scheduler=none")
    told = [why(store, "s", number)[0] for number in range(20)]
    assert told[0] == "proposed: the expert's configuration"
    assert {"proposed: drawn from the priors", "proposed: drawn near the best result so far"} <= {*told}


def test_trial_that_is_not_there_is_told(tmp_path):
    store, _ = search_with(tmp_path, "search.trials=2")
    with pytest.raises(InputError, match="s: no trial 5; there are 0 to 1"):
        why(store, "s", 5)
    assert json.loads((tmp_path / "searches" / "s" / "search.json").read_text())["task"] == "windows"
