"""A cluster whose machines share no disk: worker nodes here see an empty folder where the search keeps its files."""

import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.faults.conftest import start_until
from tests.machines import machines
from tests.outcomes import assert_logged_once, in_an_epoch, interrupted, outcome_of, results

pytestmark = pytest.mark.slow


def can_hide() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@contextmanager
def node_without(folder: Path, env: dict[str, str], cpus: int):
    """A Ray node for which the folder is empty, and which has no code of this project but what is sent to it."""
    hidden = 'mount -t tmpfs none "$0" && cd / && exec ray start --address="$1" --num-cpus="$2" --block'
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", hidden, str(folder), env["RAY_ADDRESS"], str(cpus)],
        env={**os.environ, **env, "PYTHONPATH": ""}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


SMALL = (
    "run", "rnn", "--name", "s", "--trials", "4", "--epochs", "3", "--set", "search.grace_period=1",
    "--concurrency", "1",
    "--set", "data.demo.train=200", "--set", "data.demo.test=60", "--set", "search.compare_seeds=0",
    "--set", "data.demo.longest=12", "--set", "layers=1",
)  # fmt: skip


@pytest.mark.nightly
@pytest.mark.skipif(not can_hide(), reason="mount namespaces are not allowed here")
def test_machines_without_shared_disk(tmp_path, command):
    """The search equals a search on this machine alone."""
    here = Command(tmp_path / "here", command.env, command.empty_store)
    away_folder = tmp_path / "away"
    for folder in (here.folder, away_folder):
        folder.mkdir()
    here.run(*SMALL)
    with machines(head_cpus=0) as there, node_without(away_folder, there.env, cpus=1):
        there.until(cpus=1)
        away = Command(away_folder, there.env, command.empty_store)
        away.kill_when("s", lambda events: len(results(events)) >= 4, *SMALL)
        saved = away_folder / "mlruns" / "searches" / "s" / "checkpoints"
        assert list(saved.rglob("*.pt")), "the driver has what the other machine wrote"
        output = away.run("resume", "s", "--audit-stopping", "1")
        assert "from their last epoch" in output
    assert outcome_of(away, "s") == outcome_of(here, "s")
    assert_logged_once(away, "rnn", "s")
    (model,) = (away_folder / "mlruns" / "searches" / "s" / "final").glob("*-seed-0/model")
    assert list(model.iterdir()) and not list(model.parent.parent.glob("*.pt")), "the model came, its progress is gone"


#: As many trials at once as fit.
ALL = ("--set", "search.concurrency=null")


def test_machine_added_and_removed(tmp_path, command):
    """A machine that comes takes trials; a machine that goes loses at most an epoch of its trial."""
    with machines(head_cpus=1) as there:
        one = Command(tmp_path, there.env, command.empty_store)
        # Trials are shorter than a worker takes to start, as it must not be given up when another is free; and more
        # than ever end, however long a machine takes to come.
        short = ("--epochs", "2", "--set", "data.pause=1.5", "--scheduler", "none")
        process = start_until(one, 3, *short, "--trials", "1000", *ALL)
        assert len(in_an_epoch(one.events("s"))) == 1
        there.add(cpus=1)
        one.until(process, "s", lambda events: len(in_an_epoch(events)) >= 2)
        there.remove()
        one.until(process, "s", trained_again)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=280)
        assert process.returncode == 130, output
    events = one.events("s")
    epochs = [(e["number"], e["epoch"]) for e in results(events)]
    assert len(epochs) == len(set(epochs)), "every epoch once"
    ended = {e["number"] for e in events if e["event"] == "trial"} - interrupted(events)
    assert set(epochs) >= {(number, epoch) for number in ended for epoch in (1, 2)}, "and none is missing"
    assert output.count("its worker was lost") == 1
    assert_logged_once(one, "toy", "s")


def trained_again(events: list[dict]) -> bool:
    """Whether the trial whose machine went has reported since."""
    retries = [(position, e["number"]) for position, e in enumerate(events) if e["event"] == "retry"]
    return any(number in {e["number"] for e in results(events[position:])} for position, number in retries)
