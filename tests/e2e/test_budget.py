"""A time budget is that of the whole command, and there is a model at its end however short it is."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.conftest import OWN_RAY

pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path):
    """Sequences whose last steps decide; large enough that trials do not all end before the budget."""
    rng = np.random.default_rng(0)
    sequences = np.empty(1500, dtype=object)
    sequences[:] = [rng.normal(size=(n, 6)) for n in rng.integers(20, 60, 1500)]
    path = tmp_path / "sequences.npz"
    np.savez(path, X=sequences, y=np.array([s[-3:].sum() for s in sequences]))
    return str(path)


@pytest.fixture
def imports():
    """Seconds to import the large packages now: 4 on a quiet machine, 15 beside other programs."""
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch, ray.tune, mlflow, pandas"], check=True)
    return time.monotonic() - begun


def test_budget_alone_ends_in_time_with_a_model(command, data, imports):
    minutes = min(4, max(2, round(imports / 2)))
    begun = time.monotonic()
    output = command.run("run", "rnn", "--name", "s", "--data", data, "--time-budget", f"{minutes}m", **OWN_RAY)
    assert time.monotonic() - begun <= 1.1 * 60 * minutes
    assert f"as many trials as {minutes}m holds" in output and "an epoch takes about" in output
    assert "registry: rnn version 1" in output and "test (trial" in output
    assert "core_worker" not in output, "Ray complains of nothing"
    events = command.events("s")
    trials = [e for e in events if e["event"] == "trial"]
    # Two run at once; where other tests have the cores, the budget holds no more.
    assert len(trials) >= 2 and trials[0]["params"]["cell"] == "gru", "the priors come first"


def test_budget_too_short_for_a_final_training(command, data, imports):
    """Epochs of all trials are as long as a large part of the budget."""
    seconds = min(240, max(70, round(15 * imports)))
    output = command.run(
        "run", "rnn", "--name", "s", "--data", data, "--time-budget", f"{seconds}s", "--epochs", "500",
        "--set", "search.grace_period=2", "--set", "variant=vanilla", "--set", "cell=gru", **OWN_RAY,
    )  # fmt: skip
    assert "registry: rnn version 1" in output
    final = next(e for e in command.events("s") if e["event"] == "final_finished")
    if not final["merged"]:
        assert "its own model of epoch" in output
        _, runs = command.runs("rnn")
        (run,) = [r for r in runs if r.data.tags["role"] == "final"]
        assert run.data.metrics["test_mse"] == final["test"]["mse"]


def test_retrain_of_an_interrupted_search(command):
    """It makes a model without going on with the trials."""
    process = command.start("run", "toy", "--name", "s", "--set", "data.pause=1", "--epochs", "30")
    command.until(process, "s", lambda events: sum(e["event"] == "result" for e in events) >= 2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "\n  python -m search retrain s" in output
    before = {(e["number"], e["epoch"]) for e in command.events("s") if e["event"] == "result"}
    assert "registry: toy version 1" in command.run("retrain", "s")
    assert {(e["number"], e["epoch"]) for e in command.events("s") if e["event"] == "result"} == before
