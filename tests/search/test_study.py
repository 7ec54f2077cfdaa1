"""Ask and tell: a study that several processes use, which may be killed."""

import errno
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress

import numpy as np
import pytest
from rich.console import Console

import search
from search.cli import commands
from search.core.decision import TrialResult
from search.core.journal import Journal, read_events
from search.core.replay import open_search
from search.core.store import Store
from search.core.study import Study
from search.study import SharedStudy
from search.tracking.client import find_runs, mlflow_client
from tests.conftest import ROOT
from tests.search.asking import SPACE, loss, opened, train
from trainables import InputError


def events_of(store):
    return list(read_events(store / "searches" / "s" / "journal.jsonl"))


def check_whole(store, trials):
    """Every trial is there once, every epoch of it once; one process alone would have decided the same."""
    events = events_of(store)
    assert [event["number"] for event in events if event["event"] == "trial"] == list(range(trials))
    results = Counter((event["number"], event["epoch"]) for event in events if event["event"] == "result")
    assert set(results.values()) == {1}
    for number in range(trials):
        epochs = [epoch for other, epoch in results if other == number]
        assert epochs == list(range(1, len(epochs) + 1)) and epochs
    assert [event["event"] for event in events].count("ended") == 1 and events[-1]["event"] == "ended"
    _, record, config = open_search(Store(store), "s")
    alone = Study(config, record.objective)
    for event in events:
        bare = {key: value for key, value in event.items() if key not in ("time", "version")}
        if event["event"] in ("trial", "promoted"):
            assert alone.propose() == bare
        elif event["event"] == "result":
            assert event["metrics"]["loss"] == loss(alone.state.trials[event["number"]].params, event["epoch"])
            again, _ = alone.report([TrialResult.of(event)], device="")
            assert again == [bare]
        alone.apply(event)
    assert all(trial.over for trial in alone.state.trials.values())
    return events


def run_processes(store, processes, kills, **settings):
    arguments = json.dumps({"processes": processes, "kills": kills, "settings": settings})
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "tests.search.asking", store, arguments], check=True, env=env, timeout=250)


@pytest.mark.parametrize(("searcher", "scheduler"), [("ranks", "asha-promote"), ("tpe", "asha")])
def test_four_processes_at_once_decide_as_one_process_alone(tmp_path, searcher, scheduler):
    run_processes(tmp_path, 4, 0, trials=24, searcher=searcher, scheduler=scheduler)
    events = check_whole(tmp_path, 24)
    assert scheduler == "asha" or any(event["event"] == "promoted" for event in events)


@pytest.mark.parametrize("scheduler", ["asha", "asha-promote"])
def test_two_processes_that_are_killed_again_and_again_lose_and_double_nothing(tmp_path, scheduler):
    settings = {"stall_timeout": "0.3s", "max_lost_workers": 1000}
    run_processes(tmp_path, 2, 8, trials=12, scheduler=scheduler, settings=settings)
    check_whole(tmp_path, 12)


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("moment", ["before", "torn", "after"])
@pytest.mark.parametrize("operation", ["ask", "tell", "give_back", "last"])
def test_process_that_is_killed_while_it_writes_is_continued_by_another(tmp_path, monkeypatch, operation, moment):
    study = opened(tmp_path, trials=2, epochs=2, scheduler="none")
    trial = study.ask()
    if operation == "last":
        study.tell(study.ask(), 1, {"loss": loss(study.running()[1].params, 1)})
        study.tell(1, 2, {"loss": loss(study.running()[1].params, 2)})
        study.tell(trial, 1, {"loss": loss(trial.params, 1)})
    append = Journal.append

    def killed(journal, *events):
        before = journal.path.stat().st_size
        if moment != "before":
            append(journal, *events)
        if moment == "torn":
            after = journal.path.stat().st_size
            os.truncate(journal.path, before + (after - before) // 2)
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(Journal, "append", killed)
        with suppress(Killed):
            match operation:
                case "ask":
                    study.ask()
                case "give_back":
                    study.give_back(trial)
                case "tell" | "last":
                    epoch = 1 if operation == "tell" else 2
                    study.tell(trial, epoch, {"loss": loss(trial.params, epoch)})
            pytest.fail("it was not killed")
    other = opened(tmp_path, trials=2, epochs=2, scheduler="none")
    for left in other.running():
        other.give_back(left)
    train(other)
    check_whole(tmp_path, 2)


def test_trial_of_a_dead_process_is_given_out_again_after_the_timeout_and_at_last_failed(tmp_path, monkeypatch):
    settings = {"stall_timeout": "30m", "max_lost_workers": 1}
    study = opened(tmp_path, trials=1, settings=settings)
    first = study.ask()
    study.tell(first, 1, {"loss": 1.0})
    assert study.ask() is None and not study.finished
    now = events_of(tmp_path)[-1]["time"] / 1000
    monkeypatch.setattr("search.study.time.time", lambda: now + 1801)
    again = opened(tmp_path, trials=1, settings=settings).ask()
    assert (again.number, again.epoch, again.folder) == (0, 1, first.folder)
    monkeypatch.setattr("search.study.time.time", lambda: now + 4000)
    assert study.ask() is None and study.finished
    assert study.result.why(0)[-3:-1] == [
        "failed and was retried (lost): no news for 30m", "failed for good (lost): no news for 30m",
    ]  # fmt: skip


def test_trial_that_was_given_back_comes_first_and_continues(tmp_path):
    study, other = opened(tmp_path), opened(tmp_path)
    trial = study.ask()
    study.tell(trial, 1, {"loss": 1.0})
    study.give_back(trial)
    study.give_back(trial)
    assert not study.running()
    again = other.ask()
    assert (again.number, again.epoch, again.params) == (0, 1, trial.params)
    assert [t.number for t in study.running()] == [0] and study.ask().number == 1
    assert "continues: it was given back, and is trained again from its last epoch" in study.result.why(0)


def test_paused_trial_that_is_promoted_is_asked_again_with_its_folder_and_epoch(tmp_path):
    study = opened(tmp_path, trials=3, epochs=9, scheduler="asha-promote", searcher="random")
    trials, decisions = [], []
    for value in (0.3, 0.2, 0.1):
        trials.append(study.ask())
        (trials[-1].folder / "state").write_text(str(value))
        decisions.append(study.tell(trials[-1], 1, {"loss": value}))
    assert [decision.kind for decision in decisions] == ["pause"] * 3
    train(study)
    promoted = [event["number"] for event in events_of(tmp_path) if event["event"] == "promoted"]
    assert promoted and (trials[promoted[0]].folder / "state").exists()
    assert study.finished and not study.result.trials()["outcome"].isin(["paused"]).any()


def test_epoch_that_is_told_twice_keeps_its_first_metrics_and_its_decision(tmp_path):
    study = opened(tmp_path, epochs=1, trials=2)
    trial = study.ask()
    first = study.tell(trial, 1, {"loss": np.float32(0.5), "extra": 1})
    assert first.kind == "stop" and first.ends_as == "completed"
    assert opened(tmp_path, epochs=1, trials=2).tell(trial.number, 1, {"loss": 7}) == first
    assert study.best.value == 0.5 and study.result.curves()["extra"].tolist() == [1.0]


def test_trial_ends_by_completion_failure_or_a_loss_that_is_not_finite(tmp_path):
    study = opened(tmp_path, trials=3)
    done, failed, diverged = study.ask(), study.ask(), study.ask()
    study.tell(done, 1, {"loss": 0.5})
    study.complete(done)
    try:
        raise RuntimeError("no such file")
    except RuntimeError as error:
        study.fail(failed, error)
    assert study.tell(diverged, 1, {"loss": float("nan")}) == search.Decision("stop", "loss is nan", "diverged")
    assert study.result.trials()["outcome"].tolist() == ["completed", "failed", "diverged"]
    assert "RuntimeError: no such file" in "".join(study.result.why(1))
    assert study.finished and study.ask() is None


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda s: s.tell(0, 2, {"loss": 1}), r"trial 0: epoch 2: expected epoch 1, which comes next"),
        (lambda s: s.tell(0, 0, {"loss": 1}), r"epoch=0: expected a whole number >= 1"),
        (lambda s: s.tell(7, 1, {"loss": 1}), r"trial 7: no such trial; 2 were asked for"),
        (lambda s: s.tell("0", 1, {"loss": 1}), r"trial='0': expected a whole number >= 0"),
        (lambda s: s.tell(0, 1, {"acc": 1}), r"metrics: no 'loss', which is the objective; there are acc"),
        (lambda s: s.tell(0, 1, {"loss": "low"}), r"metrics: loss: 'low': expected a number"),
        (lambda s: s.tell(0, 1, 0.5), r"metrics=0.5: expected a mapping, such as {'loss': 0.5}"),
        (lambda s: s.complete(0), r"trial 0: has no epoch: tell its metrics first, or call fail"),
        (lambda s: s.fail(1, "x"), r"trial 1: is failed already"),
        (lambda s: s.give_back(1), r"trial 1: is failed already"),
        (lambda s: s.tell(1, 1, {"loss": 1}), r"trial 1: is failed since epoch 0: it has no epoch 1"),
    ],
)
def test_wrong_call_is_refused_with_place_and_value_and_changes_nothing(tmp_path, act, message):
    study = opened(tmp_path)
    study.ask()
    study.fail(study.ask(), "x")
    before = events_of(tmp_path)
    with pytest.raises(InputError, match=message):
        act(study)
    assert events_of(tmp_path) == before
    assert study.tell(0, 1, {"loss": 1}).kind == "continue"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"space": {"x": {"uniform": [0, 2]}, "kind": SPACE["kind"]}}, r"space: x: .*\[0, 2\].*: the study s has "),
        ({"objective": "loss max"}, r"objective: 'max': the study s has 'min'; choose another name"),
        ({"objective": "acc min"}, r"objective: 'val_acc': the study s has 'val_loss'"),
        ({"epochs": 3}, r"epochs: 3: the study s has 4"),
        ({"trials": 2}, r"trials=2: the study s has 12; it can only get more"),
        ({"trials": None}, r"trials: missing; give the number of trials \(ask returns None after them\)"),
        ({"epochs": None}, r"epochs: missing; give the number of epochs \(1 if a trial is told once\)"),
        ({"objective": None}, r"objective: missing; give the metric to optimize"),
        ({"settings": {"fuse": 4}}, r"fuse=4: you train the trials of a study, so it takes only searcher"),
        ({"searchr": "tpe"}, r"searchr='tpe': unknown argument; did you mean 'searcher'"),
        ({"start": [{"x": 9}]}, r"start\[0\]: x: 9: must be a value of uniform \[0, 1\]"),
    ],
)
def test_study_is_opened_again_as_it_is_or_refused(tmp_path, given, message):
    opened(tmp_path).ask()
    arguments = {"space": SPACE, "objective": "loss min", "trials": 12, "epochs": 4} | given
    with pytest.raises(InputError, match=message):
        search.open("s", tmp_path, **arguments)
    assert opened(tmp_path).ask().number == 1


def test_study_that_gets_more_trials_goes_on_in_every_process(tmp_path):
    study = opened(tmp_path, trials=2, epochs=1)
    train(study)
    assert study.finished
    opened(tmp_path, trials=4, epochs=1)
    assert not study.finished
    train(study)
    assert [event["event"] for event in events_of(tmp_path)].count("ended") == 2
    assert len(study.result.trials()) == 4


def test_budget_of_epochs_ends_a_study(tmp_path):
    study = opened(tmp_path, trials=9, epochs=2, settings={"epoch_budget": 4}, scheduler="none")
    train(study)
    assert len(study.result.curves()) == 4 and study.finished


def test_starting_configurations_come_first(tmp_path):
    study = opened(tmp_path, start=[{"x": 0.25, "kind": "b"}, {"x": 0.5}])
    assert study.ask().params == {"x": 0.25, "kind": "b"} and study.ask().params["x"] == 0.5


def test_study_waits_for_a_process_and_names_the_search_that_another_holds(tmp_path, monkeypatch):
    study = opened(tmp_path)
    journal = Journal(tmp_path / "searches" / "s" / "journal.jsonl")
    threading.Timer(0.2, journal.close).start()
    assert study.ask().number == 0
    monkeypatch.setattr("search.study.PATIENCE", 0.05)
    with (
        Journal(tmp_path / "searches" / "s" / "journal.jsonl"),
        pytest.raises(InputError, match="s: this search is running in another process"),
    ):
        study.ask()
    assert study.ask().number == 1


def test_disk_that_is_full_is_named_and_the_same_call_works_later(tmp_path, monkeypatch):
    study = opened(tmp_path)

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as now:
        now.setattr("search.core.journal.os.fsync", full)
        with pytest.raises(InputError, match=r"journal.jsonl: No space left on device; make room, and call it again"):
            study.ask()
    assert study.ask().number == 0 and len(events_of(tmp_path)) == 2


def test_search_that_is_no_study_is_not_opened_as_one(tmp_path):
    from tests.search.test_api import trial, written

    written(tmp_path, "s", trial(0))
    with (
        Store(tmp_path).search("s").hold(Store(tmp_path)),  # while it runs too
        pytest.raises(InputError, match="s: is a search of train, which is no study; choose another name"),
    ):
        opened(tmp_path)


def test_threads_of_a_process_share_a_study(tmp_path):
    study = opened(tmp_path, trials=20, epochs=1, searcher="random")
    threads = [threading.Thread(target=train, args=(study,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_whole(tmp_path, 20)


def test_each_trial_has_one_run_in_mlflow_whichever_process_sends_it(tmp_path, monkeypatch, empty_store):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    store = Store(tmp_path)
    study, other = opened(tmp_path, trials=4, epochs=2), opened(tmp_path, trials=4, epochs=2)
    store.database.write_bytes(empty_store.read_bytes())
    first = study.ask()
    study.tell(first, 1, {"loss": 1.0})
    assert study.sync() == 0
    study.tell(first, 2, {"loss": 1.0})
    train(other)
    threads = [threading.Thread(target=one.sync) for one in (study, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = store.search("s").read(store)
    runs = list(find_runs(mlflow_client(store), f"tags.`search.id` = '{record.id}'"))
    assert sorted(run.data.tags["search.run"] for run in runs) == ["parent", *(f"trial-{n}" for n in range(4))]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert commands.resume(Console(quiet=True), store, "s", {}, None) == 0
    for refused in (
        lambda: commands.resume(Console(quiet=True), store, "s", {"trials": "+1"}, None),
        lambda: commands.retrain(Console(quiet=True), store, "s", None, 1, None),
    ):
        with pytest.raises(InputError, match="s: is a study, whose trials your own programs ask for and train"):
            refused()


def test_deleted_study_is_named(tmp_path):
    study = opened(tmp_path)
    (tmp_path / "searches" / "s" / "search.json").unlink()
    with pytest.raises(InputError, match="s: no search of that name"):
        study.ask()
    assert isinstance(study, SharedStudy)


def test_target_stops_the_trials_of_every_process_and_ends_the_study(tmp_path):
    study, other = (opened(tmp_path, trials=9, epochs=4, scheduler="none", target=0.5) for _ in range(2))
    mine, theirs = study.ask(), other.ask()
    assert other.tell(theirs, 1, {"loss": 0.9}).kind == "continue"
    decision = study.tell(mine, 1, {"loss": 0.5})
    assert (decision.kind, decision.reason) == (
        "stop", "target: trial 0 has val_loss 0.5000 at epoch 1; the target is 0.5",
    )  # fmt: skip
    assert study.tell(mine, 1, {"loss": 0.5}) == decision, "an epoch that is told again has the same decision"
    assert study.ask() is None and not study.finished
    assert other.tell(theirs, 2, {"loss": 0.8}).kind == "stop"
    assert study.finished and other.finished
    assert len(study.result.trials()) == 2


def test_target_ends_a_study_whose_other_process_gave_its_trial_back(tmp_path):
    study = opened(tmp_path, trials=9, epochs=4, scheduler="none", target=0.5)
    mine, lost = study.ask(), study.ask()
    study.tell(mine, 1, {"loss": 0.1})
    study.give_back(lost)
    assert study.ask() is None and study.finished


def test_study_with_a_reached_target_gets_more_trials(tmp_path):
    study = opened(tmp_path, trials=2, epochs=1, scheduler="none", target=0.5)
    study.tell(study.ask(), 1, {"loss": 0.1})
    assert study.finished
    more = opened(tmp_path, trials=4, epochs=1, scheduler="none", target=0.5)
    while (trial := more.ask()) is not None:
        more.tell(trial, 1, {"loss": 0.9})
    assert more.finished and len(more.result.trials()) == 4
