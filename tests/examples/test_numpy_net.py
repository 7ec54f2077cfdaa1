"""The worked example of docs/howto/own-task.md: a sixth task from another package."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import ROOT, Command
from tests.outcomes import assert_logged_once, outcome_of, results

EXAMPLE = ROOT / "examples" / "numpy_net"
sys.path.insert(0, str(EXAMPLE))

from numpy_net.layers import Dropout, Layer, squared_error  # noqa: E402


def test_it_is_a_hundred_lines():
    assert sum(len(path.read_text().splitlines()) for path in EXAMPLE.glob("numpy_net/*.py")) <= 101


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_gradients_equal_autograd(activation, rate):
    torch.manual_seed(0)
    np.random.seed(0)
    net = nn.Sequential(Layer(5, 7, activation), Dropout(rate), Layer(7, 3)).double()
    x, target = np.random.randn(6, 5), np.random.randn(6, 3)
    loss, gradient = squared_error(net(x), target)
    for layer in reversed(net):
        gradient = layer.backward(gradient)

    first, second = ([p.detach().clone().requires_grad_() for p in (net[i].weight, net[i].bias)] for i in (0, 2))
    hidden = torch.from_numpy(x) @ first[0] + first[1]
    hidden = hidden.relu() if activation == "relu" else hidden.sigmoid()
    answer = hidden * torch.from_numpy(net[1].scale) @ second[0] + second[1]
    expected = torch.nn.functional.mse_loss(answer, torch.from_numpy(target))
    expected.backward()
    assert loss == pytest.approx(expected.item())
    for ours, theirs in zip(net.parameters(), [*first, *second], strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_dropout_mean_and_evaluation():
    np.random.seed(0)
    dropout, x = Dropout(0.25), np.ones((1000, 100))
    assert set(np.unique(dropout(x))) == {0.0, 1 / 0.75}
    assert dropout(x).mean() == pytest.approx(1, abs=0.01)
    assert (dropout.eval()(x) == x).all()


@pytest.mark.nightly
def test_installed_task_searched_killed_and_resumed(tmp_path, command):
    there = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", there, EXAMPLE], check=True, timeout=120
    )
    env = {**command.env, "PYTHONPATH": f"{ROOT}:{there}"}
    run = ("run", "numpy_net", "--name", "s", "--concurrency", "1", "--trials", "8", "--epochs", "9")
    whole = Command(tmp_path / "whole", env, command.empty_store)
    whole.folder.mkdir()
    output = whole.run(*run)
    assert "stopped early" in output and "no model is registered, as numpy_net has no `export`" in output
    (accuracy,) = [e["test"]["accuracy"] for e in whole.events("s") if e["event"] == "final_finished"]
    assert accuracy > 0.8
    killed = Command(tmp_path, env, command.empty_store)
    killed.kill_when("s", lambda events: len(results(events)) >= 7, *run)
    killed.run("resume", "s")
    assert outcome_of(killed, "s") == outcome_of(whole, "s")
    assert_logged_once(killed, "numpy_net", "s")
    refused = killed.run("predict", "numpy_net", "digit.csv", code=2)
    assert "numpy_net: a task without `export` has no registered model" in refused
