"""Gated layers: the pass through time that is written by hand."""

import pytest
import torch
from torch import nn

from trainables.rnn.gated import GatedRecurrence, Gru, run_layer


@pytest.mark.parametrize("steps", [1, 7])
def test_gru_has_the_states_and_the_gradients_of_pytorchs(steps):
    torch.manual_seed(0)
    cell = nn.GRU(3, 5).double()
    x = torch.randn(steps, 4, 3, dtype=torch.double, requires_grad=True)
    weights = torch.randn(steps, 4, 5, dtype=torch.double)
    theirs, ours = cell(x)[0], run_layer(cell, x)
    assert torch.allclose(ours, theirs, atol=1e-12)
    inputs = [x, *cell.parameters()]
    for own, expected in zip(
        torch.autograd.grad((ours * weights).sum(), inputs), torch.autograd.grad((theirs * weights).sum(), inputs),
        strict=True,
    ):  # fmt: skip
        assert torch.allclose(own, expected, atol=1e-12)


def test_gradients_are_the_slopes_between_neighbours():
    torch.manual_seed(1)
    driven, weight, bias = (torch.randn(s, dtype=torch.double, requires_grad=True) for s in ((3, 2, 12), (4, 12), (4,)))
    assert torch.autograd.gradcheck(Gru.apply, (driven, weight, bias))


def test_gru_on_cpu_avoids_pytorchs(monkeypatch):
    layers = GatedRecurrence("gru", inputs=2, hidden=4, layers=2, dropout=0.0)
    monkeypatch.setattr(nn.GRU, "forward", lambda *_: pytest.fail("a step of it takes twice as long"))
    layers(torch.randn(5, 1, 3, 2)).sum().backward()
    assert all(parameter.grad is not None for parameter in layers.parameters())
