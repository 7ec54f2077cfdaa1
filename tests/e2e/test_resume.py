"""A search that was killed or interrupted ends as if it never had been."""

import os
import signal

import pytest

from tests.conftest import OWN_RAY, Command
from tests.faults.conftest import SEARCH
from tests.outcomes import assert_logged_once, outcome_of, results

WINDOWS = (
    "run", "windows", "--name", "s", "--trials", "6", "--epochs", "5", "--concurrency", "1", "--seed", "3",
    "--set", "search.grace_period=2", "--set", "search.reduction_factor=2", "--set", "search.startup_trials=2",
    "--set", "data.size=24", "--set", "data.demo.train=100", "--set", "data.demo.test=30",
    "--set", "resources.dashboard=false", "--set", "width={choice: [4, 8]}", "--set", "image_size={choice: [16, 24]}",
)  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(module_command):
    module_command.run(*WINDOWS)
    return outcome_of(module_command, "s")


def test_search_killed_twice_and_resumed(command, uninterrupted):
    command.kill_when("s", lambda events: len(results(events)) >= 5, *WINDOWS)
    command.kill_when("s", lambda events: len(results(events)) >= 12, "resume", "s")
    output = command.run("resume", "s")
    assert "resumed: " in output
    assert outcome_of(command, "s") == uninterrupted
    assert_logged_once(command, "windows", "s")


@pytest.mark.slow
def test_search_interrupted_and_resumed(command, uninterrupted):
    process = command.start(*WINDOWS, **OWN_RAY)
    command.until(process, "s", lambda events: len(results(events)) >= 4)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "next:\n  python -m search resume s" in output
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


PROMOTE = (*SEARCH, "--scheduler", "asha-promote", "--set", "data.pause=0.02")
PREDICT = (*PROMOTE, "--searcher", "ranks", "--scheduler", "asha-predict", "--set", "search.startup_trials=3")


@pytest.mark.slow
@pytest.mark.parametrize(
    "search", [pytest.param(PROMOTE, id="by rank", marks=pytest.mark.nightly), pytest.param(PREDICT, id="by model")]
)
def test_paused_trials_killed_and_resumed(command, tmp_path, search):
    whole = Command(tmp_path / "whole", command.env, command.empty_store)
    whole.folder.mkdir()
    whole.run(*search)
    for kind in ("paused", "promoted"):  # in the middle of the first rung, and of a promoted trial's epochs

        def seen(events: list[dict], kind: str = kind) -> bool:
            return any(kind in (e["event"], e.get("outcome")) for e in events[-3:]) and len(results(events)) > 4

        command.kill_when("s", seen, *(search if kind == "paused" else ("resume", "s")))
    command.run("resume", "s")
    assert outcome_of(command, "s") == outcome_of(whole, "s")
    assert {e["event"] for e in command.events("s")} >= {"promoted", "stopped_early"}
    assert_logged_once(command, "toy", "s")
