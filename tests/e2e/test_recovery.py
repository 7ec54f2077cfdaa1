"""What a kill, a torn file or a budget leaves behind is taken up again, in small searches of the toy task."""

import os
import signal
import time

import pytest

from tests.conftest import CODE, OWN_RAY, Command
from tests.outcomes import assert_logged_once, results

LATE = (
    "run", "toy", "--name", "late", "--epochs", "8", "--scheduler", "asha", "--set", "search.grace_period=2",
    "--set", "search.reduction_factor=2", "--set", "curve=late-bloomer", "--set", "index={choice: [0, 1, 2, 3]}",
    "--set", "data.pause=0.15",
)  # fmt: skip


@pytest.fixture(scope="module")
def late(module_command):
    """What the resume of a search says that was killed after its first rung."""
    module_command.kill_when("late", lambda events: len(results(events)) >= 3, *LATE)
    return module_command.run("resume", "late")


def test_late_bloomer_killed_after_first_rung(module_command, late):
    assert "best: trial 0, val_score 0.9900 at epoch 8" in late
    rungs = [e["rungs"] for e in module_command.events("late") if e["event"] == "ended"][-1]
    # Each trial stands in a rung with its score at that rung's own epoch, whatever session it was trained in.
    assert rungs == {
        "2": {"0": -0.52, "1": -0.48, "2": -0.62, "3": -0.41},
        "4": {"0": -0.60, "2": -0.65},
    }
    assert_logged_once(module_command, "toy", "late")


def test_resume_of_finished_search(module_command, late):
    before = module_command.events("late")
    output = module_command.call("resume", "late")
    assert "search late is finished" in output
    assert "best: trial " in output
    assert "python -m search resume late" in module_command.call(*LATE, code=2)
    assert module_command.events("late") == before
    assert_logged_once(module_command, "toy", "late")


@pytest.mark.slow
def test_time_budget_and_resume(command):
    begun = time.monotonic()
    process = command.start(
        "run", "toy", "--name", "short", "--epochs", "30", "--time-budget", "1h", "--set", "data.pause=0.2",
        "--set", "index={choice: [0, 1]}",
    )  # fmt: skip
    command.until(process, "short", lambda events: len(results(events)) >= 3)
    # How long Ray takes to start differs by a factor of ten: the budget ends in the middle of a trial on any machine.
    command.run("set", "short", f"time-budget={time.monotonic() - begun + 1:.0f}s")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "stopping (time budget)" in output
    assert "1 interrupted" in output
    assert "is the first champion" in output, "the best so far is retrained all the same"
    output = command.run("resume", "short")
    assert_logged_once(command, "toy", "short")


@pytest.mark.nightly
def test_interrupt_in_final_training(command):
    arguments = ("run", "toy", "--name", "stop", "--epochs", "1", "--set", "index={value: 0}", "--set", "data.pause=15")
    process = command.start(*arguments)
    command.until(process, "stop", lambda events: any(e["event"] == "final_started" for e in events))
    time.sleep(2)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    while not any(e["event"] == "ended" for e in command.events("stop")):
        time.sleep(0.05)
        assert time.monotonic() - begun < 12, "it waited for the epoch"
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    command.run("resume", "stop")
    assert_logged_once(command, "toy", "stop")


#: Found by every Python, and late once: Ray's agent starts later than the rest of Ray waits for it.
LATE_AGENT = """
import pathlib, sys, time
late = pathlib.Path(__file__).with_name("late")
if any(argument.endswith("dashboard/agent.py") for argument in sys.orig_argv) and not late.exists():
    late.touch()
    time.sleep(20)
"""


@pytest.mark.nightly
def test_ray_slow_start_is_tried_again(tmp_path, empty_store):
    busy = tmp_path / "busy"
    busy.mkdir()
    (busy / "sitecustomize.py").write_text(LATE_AGENT)
    code = os.pathsep.join([CODE, str(busy)])
    output = Command(tmp_path, OWN_RAY, empty_store).run(
        "run", "toy", "--trials", "1", "--epochs", "1", "--no-retrain", PYTHONPATH=code
    )
    assert (busy / "late").exists()
    assert "trials: 1 completed" in output
    assert "Traceback" not in output
