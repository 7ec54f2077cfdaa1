"""Requests to a search that trains on Ray, from another process and from Python."""

import json

import pytest

from search.core.store import Store
from search.result import open_result
from tests.outcomes import assert_logged_once, results

SEARCH = (
    "run", "toy", "--name", "s", "--searcher", "random", "--scheduler", "none", "--trials", "3", "--epochs", "90",
    "--concurrency", "1", "--set", "lr={loguniform: [0.001, 0.2]}", "--set", "index={value: 1}",
    "--set", "data.pause=0.5", "--set", "search.trial_timeout=1h",
)  # fmt: skip


def outcomes(events: list[dict]) -> dict[int, str]:
    """The last outcome of each trial."""
    found = {}
    for event in events:
        if event["event"] == "result" and event["outcome"]:
            found[event["number"]] = event["outcome"]
        elif "number" in event and event["event"] in ("stopped_early", "paused", "promoted", "interrupted"):
            found[event["number"]] = event["event"]
    return found


def trials_of(events: list[dict]) -> list[dict]:
    return [event for event in events if event["event"] == "trial"]


@pytest.fixture
def searching(command):
    """A search that has trained an epoch, and what was asked of it."""
    process = command.start(*SEARCH)
    command.until(process, "s", lambda events: len(results(events)) >= 1)
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_trial_stopped_configuration_added_space_changed_and_search_ended(command, searching):
    assert command.call("add", "s", "lr=0.05") == "1 configuration is tried next\n"
    assert "trials: 5" in command.call("set", "s", "trials=+2", "space.lr={loguniform: [0.01, 0.1]}")
    assert command.call("stop", "s", "0") == "trial 0 ended\n"
    command.until(searching, "s", lambda events: any(e["number"] == 1 for e in results(events)))
    assert command.call("stop", "s", "1") == "trial 1 ended\n"
    command.until(searching, "s", lambda events: any(e["number"] == 2 for e in results(events)))
    assert "then the final training begins" in command.call("stop", "s")
    output, _ = searching.communicate(timeout=280)
    assert searching.returncode == 0, output
    events = command.events("s")
    trials = trials_of(events)
    assert outcomes(events)[0] == "stopped_early"
    assert trials[1]["params"]["lr"] == 0.05 and 0.01 <= trials[2]["params"]["lr"] <= 0.1
    assert [event["status"] for event in events if event["event"] == "ended"] == ["finished"]
    assert any(event["event"] == "final_finished" for event in events)
    assert "by a request at" in command.call("why", "s", "0")
    assert "proposed: by a request at" in command.call("why", "s", "1")
    record = json.loads((command.folder / "mlruns" / "searches" / "s" / "search.json").read_text())
    assert record["config"]["search"]["trials"] == 5
    assert_logged_once(command, "toy", "s")


def test_search_paused_continued_and_forked_from_python(command, searching):
    found = open_result(Store(command.folder / "mlruns"), "s")
    assert found.pause(timeout=60).done
    command.until(searching, "s", lambda events: outcomes(events).get(0) == "paused")
    assert found.add({"lr": 0.1}, from_trial=0, from_checkpoint=True, timeout=60).done
    assert found.continue_(timeout=60).done
    command.until(searching, "s", lambda events: outcomes(events).get(0) == "promoted")
    assert found.stop(0, timeout=60).done
    command.until(searching, "s", lambda events: any(e["number"] == 1 for e in results(events)))
    assert found.stop(timeout=60).done
    output, _ = searching.communicate(timeout=280)
    assert searching.returncode == 0, output
    events = command.events("s")
    fork = trials_of(events)[1]
    first = min(event["epoch"] for event in results(events) if event["number"] == 1)
    assert first == fork["fork"][1] + 1
    rate = next(event["metrics"]["learning_rate"] for event in results(events) if event["number"] == 1)
    assert rate == 0.1, "the checkpoint holds the old learning rate"
    assert_logged_once(command, "toy", "s")


def test_request_to_a_search_that_is_not_running_waits_for_resume(command):
    command.call(
        "run", "toy", "--name", "s", "--trials", "1", "--epochs", "1", "--no-retrain", "--searcher", "random",
        "--set", "data.pause=0", "--set", "lr={uniform: [0.01, 0.1]}",
    )  # fmt: skip
    assert "at its next `resume`" in command.call("add", "s", "lr=0.05")
    assert "s: is finished, so there is nothing to stop" in command.call("stop", "s", "4", code=2)
    command.call("resume", "s")
    trials = trials_of(command.events("s"))
    assert [trial["params"]["lr"] == 0.05 for trial in trials] == [False, True]
    assert outcomes(command.events("s"))[1] == "completed"
