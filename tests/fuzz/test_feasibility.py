"""Searches with limits on outcomes: whole, killed, and without a feasible trial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from toy_task import ToyTask

from search import preparation
from search.core.config import load_config
from search.core.journal import read_events
from tests.fuzz.promises import Tracked, check
from tests.fuzz.world import Broken, Case, Fault, Go, World, play, undisturbed
from trainables import InputError

TASK = Case(
    "task", {"width": {"int": [2, 16]}}, {"recall": (0.5, 0.9)}, searcher="ranks", scheduler="asha-predict", trials=6,
    epochs=3, limits={"parameters": "<= 49", "recall": ">= 0.8"},
)  # fmt: skip
FUNCTION = Case(
    "function", {"size": {"uniform": [0, 10]}}, searcher="ranks", scheduler="asha", trials=6, epochs=3, tests=True,
    limits={"latency_ms": "<= 5"},
)  # fmt: skip
COMMAND = Case("command", trials=4, epochs=2, limits={"loss": "<= 9"})


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """One folder for all searches, as MLflow keeps what it knows of a database by its address."""
    return tmp_path_factory.mktemp("feasibility")


def played(case: Case, folder: Path, empty: Path, tracked: bool = False) -> World:
    world = World(folder / "world", case, empty, tracked=tracked)
    world.do(Go())
    return world


def test_task_beyond_its_parameters_trains_no_epoch_and_the_best_trial_is_feasible(folder, empty_store):
    world = played(TASK, folder, empty_store, tracked=True)
    trials, state = world.state().trials, world.state()
    large = [trial for trial in trials.values() if 6 * trial.params["width"] + 1 > 49]
    assert large and len(large) < len(trials)
    for trial in large:
        assert (trial.outcome, trial.epoch) == ("infeasible", 0)
        assert trial.figures == {"parameters": 6 * trial.params["width"] + 1}
    best, reached = state.best(), [trial for trial in trials.values() if trial.can_win]
    assert best.best_epoch == 2 and all(trial.best_epoch == 2 for trial in reached), "recall is 0.5, 0.9, 0.5"
    assert state.final.trial in {trial.number for trial in reached} and state.final.params["width"] <= 8
    words = f"limits: parameters <= 49, recall >= 0.8; {len(reached)} of 6 trials"
    assert words in world.last_output.replace("\n", " ")
    tracked = Tracked(world)
    for number, trial in trials.items():
        tags = tracked.tags[tracked.run(f"trial-{number}")]
        assert tags["feasible"] == str(trial.can_win).lower()
        assert trial not in large or "is over the limit 49" in tags["infeasible"]


def test_function_that_reports_a_figure_beyond_its_limit_stops_after_that_epoch(folder, empty_store):
    trials = played(FUNCTION, folder, empty_store).state().trials
    slow = [trial for trial in trials.values() if trial.params["size"] > 5]
    assert slow and len(slow) < len(trials)
    assert {(trial.outcome, trial.epoch) for trial in slow} == {("infeasible", 1)}
    assert all(trial.can_win for trial in trials.values() if trial not in slow)


def test_latency_of_a_task_is_measured_once_for_each_trial_and_kept_after_a_kill(folder, empty_store):
    case = replace(TASK, scheduler="none", trials=2, limits={"latency_ms": "<= 60000"})
    done = played(case, folder, empty_store).disk.done
    written = [at for at, what in enumerate(done, 1) if what.startswith("write") and "journal" in what]
    world = World(folder / "world", case, empty_store, tracked=False)
    world.do(Go(Fault("kill", written[len(written) // 2])))
    before = {n: [m["latency_ms"] for m in t.curve.values()] for n, t in world.state().trials.items()}
    assert any(before.values()), "an epoch was trained before the kill"
    world.do(Go())
    for number, trial in world.state().trials.items():
        latencies = {metrics["latency_ms"] for metrics in trial.curve.values()}
        assert len(latencies) == 1 and latencies.issuperset(before.get(number, [])) and min(latencies) > 0
    assert world.state().final is not None


def test_latency_of_a_task_that_cannot_be_timed_is_refused(monkeypatch):
    monkeypatch.setattr(preparation, "get_task", lambda name: ToyTask())
    config = load_config("rnn", ["search.limits.latency_ms=<= 5"])
    with pytest.raises(InputError, match=r"search\.limits: latency_ms: rnn has no `answer` to be timed"):
        preparation.supported_task(config)


def test_command_is_limited_by_what_it_reports(folder, empty_store):
    state = played(COMMAND, folder, empty_store).state()
    for trial in state.trials.values():
        assert trial.can_win == any(metrics["val_loss"] <= 9 for metrics in trial.curve.values())
    assert state.best() is not None


@pytest.mark.parametrize(
    ("case", "metric", "name", "bound"), [(TASK, "parameters", "width", 0.01), (FUNCTION, "latency_ms", "size", -1)]
)
def test_search_without_a_feasible_trial_finishes_and_says_how_near_it_came(
    case, metric, name, bound, folder, empty_store
):
    case = replace(case, limits={metric: f"<= {bound}"})
    world = World(folder / "world", case, empty_store, tracked=False)
    world.do(Go())
    state = world.state()
    assert (state.status, state.best(), state.final, state.none_is_feasible) == ("finished", None, None, True)
    nearest = min(state.trials.values(), key=lambda trial: trial.params[name])
    output = " ".join(world.last_output.split())
    assert f"{metric} <= {bound}; 0 of 6 trials are feasible; the nearest is trial {nearest.number}," in output
    assert "no trial is feasible: none of 6 trials is within all limits" in output
    assert "retrain" not in output.partition("next:")[2]
    before = len(list(read_events(world.folder.journal)))
    world.do(Go())
    assert {event["event"] for event in list(read_events(world.folder.journal))[before:]} == {"session", "ended"}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("case", [pytest.param(FUNCTION, id="function"), pytest.param(TASK, id="task")])
def test_killed_and_resumed_search_with_limits_is_the_uninterrupted_one(case, every, folder, empty_store):
    done = played(case, folder, empty_store).disk.done
    reference = undisturbed(case, [(case.trials, case.epochs)], folder / "undisturbed", empty_store)
    assert any(trial.outcome == "infeasible" for trial in reference.state().trials.values())
    for at in range(len(done) // 4, len(done), every * max(1, len(done) // 90)):
        try:
            check(play(case, [Go(Fault("kill", at))], folder / "killed", empty_store), reference)
        except Broken as error:
            raise AssertionError(f"killed at operation {at}, {done[at - 1]}: {error}") from error
