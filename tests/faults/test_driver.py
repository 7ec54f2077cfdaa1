"""The driver dies, loses its reader, or runs in a user's program: nothing is lost, and the user knows how to go on."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
from mlflow.tracking import MlflowClient

from tests.conftest import CODE, OWN_RAY
from tests.faults.conftest import SEARCH, resume, start_until
from tests.outcomes import outcome_of

pytestmark = pytest.mark.slow
GO_ON = "go on with: python -m search resume s"


def statuses(command) -> set[str]:
    uri = f"sqlite:///{command.folder / 'mlruns' / 'mlflow.db'}"
    client = MlflowClient(uri, registry_uri=uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.status for run in client.search_runs(experiments)}


def wait_until(ready, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.2)


def test_raylet_killed(command, whole, survived):
    """Ray's core ends the driver with lines of its own when its raylet is gone."""
    process = start_until(command, 8, **OWN_RAY)
    raylet = next(p for p in psutil.Process(process.pid).children(recursive=True) if p.name() == "raylet")
    raylet.kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert output.rstrip().endswith(GO_ON), output
    wait_until(lambda: "RUNNING" not in statuses(command))
    _, seconds = resume(command)
    survived("raylet killed", command, 1, 1, seconds, whole)


def test_driver_killed_says_how_to_go_on(command):
    process = start_until(command, 4, "--set", "data.pause=2")
    wait_until(lambda: "RUNNING" in statuses(command))
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert output.rstrip().endswith(GO_ON), output
    wait_until(lambda: "RUNNING" not in statuses(command))


@pytest.mark.parametrize("number", [signal.SIGHUP, pytest.param(signal.SIGTERM, marks=pytest.mark.nightly)])
def test_signal_to_the_process_group_interrupts(command, number):
    """A terminal that closes, `timeout`, systemd and batch systems send their signal to the whole group."""
    process = start_until(command, 4, **OWN_RAY)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "next:\n  python -m search resume s" in output


@pytest.mark.parametrize("reader", ["head", "full disk"])
def test_output_closed_or_full(command, reader, whole):
    """`search run ... | head -2`, or output on a disk without room."""
    environment = {**os.environ, "PYTHONPATH": CODE, "SEARCH_STORE": str(command.folder / "mlruns"), **command.env}
    arguments = [sys.executable, "-m", "search", *SEARCH, "--verbose"]
    end = " | head -2" if reader == "head" else " > /dev/full"
    shell = subprocess.run(
        ["bash", "-c", f'"$@" 2>errors {end}; echo "code ${{PIPESTATUS[0]}}"', "bash", *arguments],
        cwd=command.folder, env=environment, text=True, capture_output=True, timeout=280, check=True,
    )  # fmt: skip
    assert shell.stdout.endswith("code 0\n"), (shell.stdout, (command.folder / "errors").read_text())
    assert [e["status"] for e in command.events("s") if e["event"] == "ended"] == ["finished"]
    assert outcome_of(command, "s") == whole


PROGRAM = """
import logging, os, random, signal, sys, threading, warnings

import numpy as np
import torch

import search


def train(trial):
    for epoch in trial.epochs():
        yield {"loss": trial.params["x"] / epoch}


def run(name):
    search.run(train, {"x": search.uniform(1, 2)}, "loss min", name=name, trials=2, epochs=2,
               resources={"dashboard": False})


def surroundings():
    return {
        "environment": {k: v for k, v in os.environ.items() if k != "SEARCH_TASKS"},
        "handlers": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "levels": {n: logging.getLogger(n).level for n in ("", "ray", "ray.tune", "mlflow", "alembic", "optuna")},
        "root handlers": list(logging.getLogger().handlers),
        "random": [random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()],
        "threads of torch": torch.get_num_threads(),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "hook": sys.excepthook,
        "streams": [sys.stdout, sys.stderr],
    }


import mlflow, optuna, ray.tune, sklearn  # what an import changes is no change by the search

before = surroundings()
run("first")
after = surroundings()
for key in before:
    changed = (before[key], after[key])
    if key == "environment":
        changed = set(before[key].items()) ^ set(after[key].items())
    assert after[key] == before[key], (key, changed)
errors = []


def in_thread():
    try:
        run("second")
    except BaseException as error:
        errors.append(error)


thread = threading.Thread(target=in_thread)
thread.start()
thread.join()
assert not errors, errors
assert search.open("second").status == "finished"
print("all as before")
"""


def test_search_run_restores_process(command):
    """A notebook or a server calls `search.run`: signals, environment, logging and random generators are its own."""
    (command.folder / "program.py").write_text(PROGRAM)
    output = replace(command, program=("program.py",)).run(**OWN_RAY)
    assert output.endswith("all as before\n")
    assert [e["status"] for e in command.events("second") if e["event"] == "ended"] == ["finished"]
