"""One small search of everything that has to survive: sampled, stopped early, checkpointed, retrained, tested."""

import fcntl
import os
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.conftest import Command
from tests.outcomes import account, assert_logged_once, outcome_of, results

SEARCH = (
    "run", "toy", "--name", "s", "--searcher", "tpe", "--scheduler", "asha", "--trials", "10", "--epochs", "6",
    "--set", "search.reduction_factor=2", "--set", "lr={loguniform: [0.001, 0.2]}", "--set", "data.pause=0.1",
    "--set", "index={value: 1}",
)  # fmt: skip


@pytest.fixture(scope="session")
def untouched(tmp_path_factory, ray_env, empty_store) -> Command:
    """The search that nothing happens to, run once for all the processes that test."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "untouched"
    shared.mkdir(exist_ok=True)
    command = Command(shared, ray_env, empty_store)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not any(e["event"] == "ended" for e in command.events("s")):
            command.run(*SEARCH)
    return command


@pytest.fixture(scope="session")
def whole(untouched) -> dict:
    return outcome_of(untouched, "s")


def start_until(command: Command, epochs: int, *arguments: str, **env: str) -> subprocess.Popen:
    """The search in a process that has ended so many epochs by now."""
    process = command.start(*SEARCH, *arguments, **env)
    command.until(process, "s", lambda events: len(results(events)) >= epochs)
    return process


def resume(command: Command, **env: str) -> tuple[str, float]:
    """The output of `resume`, and the seconds until the search went on."""
    before, begun = len(command.events("s")), time.monotonic()
    process = command.start("resume", "s", **env)
    while len(command.events("s")) < before + 2 and process.poll() is None:
        time.sleep(0.02)
    seconds = time.monotonic() - begun
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    return output, seconds


@pytest.fixture
def survived(request) -> Callable[..., None]:
    """`survived(fault, command, times, resumed, seconds, whole)`: nothing lost, nothing doubled, and it is told."""

    def check(fault: str, command: Command, times: int, resumed: int, seconds: float, whole: dict | None) -> None:
        counts = account(command, "toy", "s")
        row = {"fault": fault, "injected": times, "resumed": resumed, **counts, "seconds to resume": round(seconds, 1)}
        request.node.user_properties.append(("fault", row))
        assert set(counts.values()) == {0}, row
        assert_logged_once(command, "toy", "s")
        assert not [p for p in (command.folder / "mlruns").rglob(".*") if p.is_file()], "half-written files are left"
        if whole is not None:
            assert outcome_of(command, "s") == whole

    return check
