"""SIGKILL, of the driver and of workers, and a machine that is gone."""

import random
import signal
import time

import pytest

from tests.conftest import Command
from tests.faults.conftest import SEARCH, resume, start_until
from tests.machines import machines
from tests.outcomes import in_an_epoch, outcome_of, results

pytestmark = pytest.mark.slow


@pytest.mark.nightly
def test_driver_killed_ten_times(command, whole, survived, untouched):
    events, rng = len(untouched.events("s")), random.Random(0)
    moments = sorted(rng.sample(range(3, events - 3), 10))
    begun, waits = SEARCH, []
    for moment in moments:
        before, start = len(command.events("s")), time.monotonic()
        process = command.start(*begun)
        while len(command.events("s")) < max(moment, before + 2):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
            if begun is not SEARCH and len(command.events("s")) >= before + 2 and len(waits) < moments.index(moment):
                waits.append(time.monotonic() - start)
        time.sleep(rng.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        begun = ("resume", "s")
    _, seconds = resume(command)
    survived("SIGKILL of the driver", command, 10, 10, sum([*waits, seconds]) / (len(waits) + 1), whole)


@pytest.mark.parametrize(
    ("fault", "name"), [("lost", "SIGKILL of a worker in an epoch"), ("lost-saving", "SIGKILL of a worker as it saves")]
)
def test_worker_killed(command, whole, survived, fault, name):
    once = command.folder / "once"
    output = command.run(*SEARCH, "--set", f"data.fault={fault}", "--set", f"data.once={once}")
    assert "its worker was lost" in output
    survived(name, command, 1, 0, seconds_to_go_on(command), whole)


def seconds_to_go_on(command: Command) -> float:
    """From the one failure to the trial's next epoch."""
    (retry,) = [e for e in command.events("s") if e["event"] == "retry"]
    later = [e["time"] for e in results(command.events("s")) if e["number"] == retry["number"]]
    return (min(t for t in later if t > retry["time"]) - retry["time"]) / 1000


@pytest.mark.nightly
def test_machine_killed(tmp_path, survived):
    # In rounds, so that a search of two trials at once has an outcome to compare.
    arguments = ("--concurrency", "2", "--deterministic", "--set", "data.pause=0.5", "--trials", "6")
    with machines(head_cpus=1) as there:
        there.add(cpus=1)
        command, whole = Command(tmp_path, there.env), Command(tmp_path / "whole", there.env)
        process = start_until(command, 8, *arguments)
        # Each machine trains one: a machine that is between two trials loses none.
        command.until(process, "s", lambda events: len(in_an_epoch(events)) >= 2)
        there.remove()
        output, _ = process.communicate(timeout=280)
        assert process.returncode == 0, output
        assert "its worker was lost" in output
        there.add(cpus=1)
        whole.folder.mkdir()
        whole.run(*SEARCH, *arguments)
    survived("a machine of a cluster is gone", command, 1, 0, seconds_to_go_on(command), None)
    mine, other = outcome_of(command, "s"), outcome_of(whole, "s")
    # Two run at once, so the order in which they report is not always the same; what they report is.
    assert sorted(mine.pop("curves"), key=lambda c: c[:2]) == sorted(other.pop("curves"), key=lambda c: c[:2])
    assert mine == other
