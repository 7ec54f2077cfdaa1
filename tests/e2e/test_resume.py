"""A search that was killed or interrupted ends as if it never had been."""

import math
import os
import signal
import time

import pytest

from tests.conftest import Command
from tests.e2e.conftest import OWN_RAY

#: Metrics that measure this machine at this moment, not the training.
TIMING = {"epoch_seconds", "samples_per_second", "peak_memory_mib"}

WINDOWS = (
    "run", "windows", "--name", "s", "--trials", "6", "--epochs", "5", "--concurrency", "1", "--seed", "3",
    "--set", "search.grace_period=2", "--set", "search.reduction_factor=2", "--set", "search.startup_trials=2",
    "--set", "data.size=24", "--set", "data.demo.train=100", "--set", "data.demo.test=30",
    "--set", "resources.dashboard=false", "--set", "width={choice: [4, 8]}", "--set", "image_size={choice: [16, 24]}",
)  # fmt: skip


def results(events):
    return [e for e in events if e["event"] == "result"]


def outcome_of(command: Command, name: str) -> dict:
    """Everything that must not depend on an interruption."""
    events = command.events(name)
    return {
        "configurations": {e["number"]: (e["params"], e["seed"]) for e in events if e["event"] == "trial"},
        "curves": [
            (
                e["number"],
                e["epoch"],
                e["outcome"],
                {k: v for k, v in e["metrics"].items() if k not in TIMING},
            )
            for e in results(events)
        ],
        "rungs": [e["rungs"] for e in events if e["event"] == "ended"][-1],
        "final": [(e["params"], e["epochs"], e["trial"]) for e in events if e["event"] == "final_started"][-1:],
        "test": [e["test"] for e in events if e["event"] == "final_finished"],
    }


def assert_logged_once(command: Command, experiment: str, name: str) -> None:
    """MLflow has each trial as one run, and of each metric one value a step: those of the journal."""
    client, runs = command.runs(experiment)
    assert not [r for r in runs if r.info.status == "RUNNING"]
    keys = [r.data.tags["search.run"] for r in runs]
    assert len(keys) == len(set(keys))
    by_key = dict(zip(keys, runs, strict=True))
    for run in runs:
        for key in run.data.metrics:
            steps = [m.step for m in client.get_metric_history(run.info.run_id, key)]
            assert len(steps) == len(set(steps)), f"{run.info.run_name}: {key} has two values at one step"
    events = command.events(name)
    for trial in [e for e in events if e["event"] == "trial"]:
        run = by_key[f"trial-{trial['number']}"]
        assert run.data.tags["mlflow.parentRunId"] == by_key["parent"].info.run_id
        curve = [e for e in results(events) if e["number"] == trial["number"]]
        assert len({e["epoch"] for e in curve}) == len(curve)
        for key in curve[0]["metrics"]:
            history = client.get_metric_history(run.info.run_id, key)
            recorded = [(e["epoch"], e["metrics"][key]) for e in curve if key in e["metrics"]]
            finite = [(epoch, value) for epoch, value in recorded if math.isfinite(value)]  # a diverged trial's are not
            assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == finite


@pytest.fixture(scope="module")
def uninterrupted(module_command):
    module_command.run(*WINDOWS)
    return outcome_of(module_command, "s")


def test_search_killed_twice_and_resumed_equals_uninterrupted_one(command, uninterrupted):
    command.kill_when("s", lambda events: len(results(events)) >= 5, *WINDOWS)
    command.kill_when("s", lambda events: len(results(events)) >= 12, "resume", "s")
    output = command.run("resume", "s")
    assert "resumed: " in output
    assert outcome_of(command, "s") == uninterrupted
    assert_logged_once(command, "windows", "s")


@pytest.mark.slow
def test_interrupted_search_saves_says_how_to_resume_and_equals_uninterrupted_one(command, uninterrupted):
    process = command.start(*WINDOWS, **OWN_RAY)
    while len(results(command.events("s"))) < 4:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "go on with: python -m search resume s" in output
    _, runs = command.runs("windows")
    assert {r.info.status for r in runs if r.data.tags["outcome"] == "interrupted"} == {"KILLED"}
    assert not [r for r in runs if r.info.status == "RUNNING"]
    begun = max(
        e["epoch"] for e in results(command.events("s")) if e["number"] == results(command.events("s"))[-1]["number"]
    )
    saved = [e for e in command.events("s") if e["event"] == "checkpoint"][-1]
    assert saved["epoch"] == begun, "the last finished epoch is on disk"
    assert not any(e["event"] in ("failed", "retry") for e in command.events("s"))

    command.run("resume", "s")
    assert outcome_of(command, "s") == uninterrupted
    assert_logged_once(command, "windows", "s")
