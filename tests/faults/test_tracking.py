"""A tracking server that goes away holds no training up and gets everything when it is back."""

import contextlib
import os
import signal
import sqlite3
import time

import pytest

from tests.faults.conftest import start_until
from tests.outcomes import results
from tests.serving import free_port, tracking_server

pytestmark = pytest.mark.slow


class Server:
    """`mlflow server` on the store's own database, so that what it was told is read there."""

    def __init__(self, folder) -> None:
        (folder / "mlruns").mkdir()
        self.folder, self.port = folder, free_port()
        self.env = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.port}"}

    def start(self) -> None:
        backend = f"sqlite:///{self.folder}/mlruns/mlflow.db"
        self.process = tracking_server(self.port, backend, self.folder / "served")

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(command):
    server = Server(command.folder)
    server.start()
    yield server
    server.kill()


def delivered(command) -> list[tuple[str]]:
    """The number of events that MLflow has, by its own count."""
    with contextlib.closing(sqlite3.connect(command.folder / "mlruns" / "mlflow.db", timeout=60)) as database:
        return database.execute("SELECT value FROM tags WHERE key = 'search.delivered'").fetchall()


@pytest.mark.nightly
def test_tracking_server_away_20_s(command, whole, survived, server):
    process = start_until(command, 4, "--set", "data.pause=2", **server.env)  # longer than a server takes to be back
    server.kill()
    time.sleep(20)
    server.start()
    back, before = time.monotonic(), delivered(command)
    while time.monotonic() < back + 60 and delivered(command) == before:
        time.sleep(0.1)
    seconds = time.monotonic() - back
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    assert "MLflow cannot be written" in output
    assert "MLflow lacks" not in output
    assert len(results(command.events("s"))) > 20
    survived("MLflow away for 20 s", command, 1, 0, seconds, whole)


def test_tracking_server_away_for_good(command, whole, survived, server):
    process = start_until(command, 4, **server.env)
    server.kill()
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    assert "best: trial " in output
    assert "which are kept; send them: python -m search resume s" in output
    server.start()
    begun = time.monotonic()
    output = command.run("resume", "s", **server.env)
    assert "MLflow lacks" not in output
    assert "is the first champion" in output
    survived("MLflow away for good", command, 1, 1, time.monotonic() - begun, whole)
