"""At the end of a time budget the best configurations train again with other seeds, and the best mean wins."""

import signal
from statistics import fmean

import pytest

BUDGET = (
    "--time-budget", "90s", "--epochs", "4", "--set", "data.pause=0.05", "--searcher", "random", "--scheduler", "asha",
    "--set", "lr={uniform: [0.01, 0.1]}", "--concurrency", "2",
)  # fmt: skip


def check(command) -> None:
    """Nothing was trained twice, and the final training has the configuration with the best mean over seeds."""
    events = command.events("s")
    results = [(e["number"], e["epoch"]) for e in events if e["event"] == "result"]
    assert len(results) == len({*results})
    reruns = {e["number"]: e["rerun_of"] for e in events if "rerun_of" in e}
    assert len({*reruns.values()}) > 1
    best: dict[int, float] = {}
    for event in events:
        if event["event"] == "result":
            value = event["metrics"]["val_score"]
            best[event["number"]] = max(best.get(event["number"], value), value)
    over = {e["number"] for e in events if e.get("outcome") == "completed"}
    means = {
        first: fmean([best[first], *(best[n] for n, of in reruns.items() if of == first and n in over)])
        for first in {reruns[n] for n in reruns if n in over}
    }
    (final,) = {e["trial"] for e in events if e["event"] == "final_started"}
    assert means[final] == max(means.values())
    _, runs = command.runs("toy")
    assert len([r for r in runs if r.data.tags["role"] == "final"]) == 1


@pytest.mark.nightly
def test_race_chooses_the_configuration_of_the_final_training(command):
    output = command.run("run", "toy", "--name", "s", *BUDGET)
    check(command)
    assert "mean over seeds (their number): trial" in output
    (number, first), *_ = [(e["number"], e["rerun_of"]) for e in command.events("s") if "rerun_of" in e]
    why = command.call("why", "s", str(number))
    assert f"trains the configuration of trial {first} again" in why and f"it counts for trial {first}" in why


@pytest.mark.nightly
def test_killed_race_goes_on(command):
    process = command.start("run", "toy", "--name", "s", *BUDGET)
    command.until(process, "s", lambda events: any("rerun_of" in event for event in events))
    process.send_signal(signal.SIGKILL)
    process.wait()
    command.run("resume", "s")
    check(command)
