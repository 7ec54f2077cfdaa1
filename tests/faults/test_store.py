"""What happens to the store and around it: a full disk, a torn file, a clock, a second search, a signal."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest
import torch

from tests.conftest import CODE
from tests.faults.conftest import SEARCH, resume, start_until
from tests.outcomes import assert_logged_once, outcome_of

pytestmark = pytest.mark.slow


@contextmanager
def small_disk(path, megabytes: int):
    path.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a disk that can be filled is a tmpfs, and only root may mount one")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def fill(folder) -> None:
    with (folder / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))


def test_disk_full_checkpoint(command, whole, survived):
    store = command.folder / "mlruns"
    with small_disk(store, 12):
        process = start_until(command, 8)
        fill(store)
        output, _ = process.communicate(timeout=280)
        assert process.returncode == 1, output
        assert "stopping (disk full)" in output or "No space left on device" in output
        assert "resume s" in output
        assert not any(e["event"] == "failed" for e in command.events("s")), "no trial is to blame"
        (store / "filler").unlink()
        _, seconds = resume(command)
        survived("disk full, checkpoint", command, 1, 1, seconds, whole)


@pytest.mark.nightly
def test_disk_full_database(command, whole, survived):
    disk, store = command.folder / "database", command.folder / "mlruns"
    with small_disk(disk, 3):
        env = {"MLFLOW_TRACKING_URI": f"sqlite:///{disk}/mlflow.db"}
        process = start_until(command, 8, **env)
        fill(disk)
        output, _ = process.communicate(timeout=280)
        assert process.returncode == 0, output
        assert "MLflow cannot be written" in output
        assert "which are kept; send them: " in output
        (disk / "filler").unlink()
        begun = time.monotonic()
        assert "MLflow lacks" not in command.run("resume", "s", **env)
        seconds = time.monotonic() - begun
        shutil.copytree(disk, store, dirs_exist_ok=True)
    survived("disk full, database", command, 1, 1, seconds, whole)


def test_checkpoint_torn(command, whole, survived):
    process = start_until(command, 8)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    last = [e for e in command.events("s") if e["event"] == "checkpoint"][-1]
    torn = command.folder / "mlruns/searches/s" / last["name"]
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    _, seconds = resume(command)
    survived("last checkpoint torn", command, 1, 1, seconds, whole)


def test_checkpoint_bit_flipped(command, whole, survived):
    """Of a figure of the model, which `torch.load` reads without a word. After epoch 3 no trial stops, so that the
    trial goes on from it."""
    command.kill_when("s", lambda events: any(e["event"] == "checkpoint" and e["epoch"] == 3 for e in events), *SEARCH)
    last = [e for e in command.events("s") if e["event"] == "checkpoint"][-1]
    path = command.folder / "mlruns/searches/s" / last["name"]
    weights = torch.load(path, weights_only=True)["model"]["0.weight"].numpy().tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(weights) + 3] ^= 64
    path.write_bytes(content)
    output, seconds = resume(command)
    assert f"{last['name']} is damaged" in output
    survived("bit flipped in a checkpoint", command, 1, 1, seconds, whole)


def test_final_state_torn(command, whole, survived):
    process = command.start(*SEARCH)
    command.until(process, "s", lambda events: any(e["event"] == "final_result" for e in events))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (torn,) = (command.folder / "mlruns/searches/s/final").glob("*.pt")
    torn.write_bytes(bytes(4096))
    output, seconds = resume(command)
    assert f"final/{torn.name} is damaged" in output
    survived("state of the final training torn", command, 1, 1, seconds, whole)


@pytest.mark.nightly
def test_sigterm(command, whole, survived):
    process = start_until(command, 8)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "next:\n  python -m search resume s" in output
    assert not any(e["event"] in ("failed", "retry") for e in command.events("s"))
    _, seconds = resume(command)
    survived("SIGTERM", command, 1, 1, seconds, whole)


def test_two_searches_at_once(command, whole, survived):
    command.empty_store = None  # both find no store
    other = command.start(*SEARCH, "--name", "t", "--seed", "7")
    command.run(*SEARCH)
    output, _ = other.communicate(timeout=280)
    assert other.returncode == 0, output
    survived("two searches at once", command, 1, 0, 0.0, whole)
    assert_logged_once(command, "toy", "t")


@pytest.mark.nightly
def test_clock_set_back(command, whole, survived):
    """By an hour, as the driver sees it, in the middle."""
    (command.folder / "sitecustomize.py").write_text(
        "import os, time\n"
        "right = time.time\n"
        f"time.time = lambda: right() - 3600 * os.path.exists({str(command.folder / 'back')!r})\n"
    )
    process = start_until(command, 8, PYTHONPATH=os.pathsep.join([str(command.folder), CODE]))
    (command.folder / "back").touch()
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    times = [e["time"] for e in command.events("s")]
    assert times == sorted(times)
    survived("clock set back by an hour", command, 1, 0, 0.0, whole)
    assert outcome_of(command, "s") == whole
