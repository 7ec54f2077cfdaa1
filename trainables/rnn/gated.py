"""GRU and LSTM layers, with a fast GRU for CPUs.

On a CPU `nn.GRU` runs about a dozen small operations for each time step, and autograd records each of them. In a small
network their number decides the speed. `Gru` runs five operations for each step forward and three backward. An epoch of
C-MAPSS with two layers of 32 units takes 0.96 s instead of 2.55 s with `nn.GRU` (benchmarks/tasks.md). An LSTM is one
operation of oneDNN on a CPU, so that PyTorch's is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from trainables.base.dropout import Dropout


class GatedRecurrence(nn.Module):
    """Layers of GRU cells (Cho et al. 2014, arXiv:1406.1078) or LSTM cells (Hochreiter and Schmidhuber 1997), their
    weights shared over time, with dropout between layers. A `fused.Stack` cannot hold it."""

    def __init__(self, cell: str, inputs: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        kind = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
        # One module for each layer: cuDNN's dropout between layers has a random state that no checkpoint holds.
        self.cells = nn.ModuleList(kind(inputs if layer == 0 else hidden, hidden) for layer in range(layers))
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """x (time, 1, batch, features) -> states (time, 1, batch, hidden); sequences begin at the first step."""
        states = x.squeeze(1)
        for number, cell in enumerate(self.cells):
            states = run_layer(cell, states if number == 0 else self.dropout(states))
        return states.unsqueeze(1)


def run_layer(cell: Any, x: torch.Tensor) -> torch.Tensor:
    """One layer, `nn.GRU` or `nn.LSTM`, from zero states: x (time, batch, features) -> (time, batch, hidden)."""
    out: torch.Tensor
    if x.device.type != "cpu" or cell.mode != "GRU":
        out = cell(x)[0]  # one operation of cuDNN or, for an LSTM on a CPU, of oneDNN
        return out
    gates, candidate = cell.bias_hh_l0.split((2 * cell.hidden_size, cell.hidden_size))
    bias = cell.bias_ih_l0 + nn.functional.pad(gates, (0, cell.hidden_size))
    driven = torch.addmm(bias, x.flatten(0, 1), cell.weight_ih_l0.t()).unflatten(0, x.shape[:2])
    out = Gru.apply(driven, cell.weight_hh_l0.t(), candidate)
    return out


class Gru(torch.autograd.Function):
    """r, z = sigmoid(driven + h W); n = tanh(driven + r * (h W + bias)); h = n + z * (h - n) at each step.

    driven: (time, batch, 3 hidden), the inputs of r, z and n in this order; W (hidden, 3 hidden); bias (hidden,).
    Returns the states h of all steps.
    """

    @staticmethod
    def forward(ctx: Any, driven: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        hidden = len(weight)
        two, last = slice(2 * hidden), slice(2 * hidden, None)
        # tanh(a) = 2 sigmoid(2a) - 1, as in `Recur`: arguments of the tanh are stored times 2.
        gates, weight_twice = driven.clone(), weight.clone(memory_format=torch.contiguous_format)
        gates[..., last] = 2 * bias
        weight_twice[:, last] *= 2
        candidates, out = 2 * driven[..., last], driven.new_empty(*driven.shape[:2], hidden)
        both, (r, z, q) = gates[..., two].unbind(), (part.unbind() for part in gates.split(hidden, -1))
        state, minus_one = torch.zeros_like(out[0]), driven.new_full((), -1.0)
        for t, (gate, n, following) in enumerate(zip(gates.unbind(), candidates.unbind(), out.unbind(), strict=True)):
            gate.addmm_(state, weight_twice)
            both[t].sigmoid_()
            n.addcmul_(r[t], q[t]).sigmoid_()
            torch.add(minus_one, n, alpha=2, out=n)
            state = torch.lerp(n, state, z[t], out=following)
        ctx.save_for_backward(gates, candidates, out, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        gates, n, out, weight = ctx.saved_tensors
        r, z, q = gates.split(len(weight), -1)
        one = n.new_ones(())
        inner = (1 - z).mul_(torch.addcmul(one, n, n, value=-1))  # dh / d(argument of n's tanh)
        change = -n
        change[1:] += out[:-1]
        slopes = n.new_empty(*n.shape[:2], 3, len(weight))  # dh / d(h W), for r, z and n
        by_r, by_z, by_q = slopes.unbind(2)
        torch.mul(inner, r, out=by_q)
        torch.mul(by_q, q, out=by_r).addcmul_(by_r, r, value=-1).mul_(0.5)  # 0.5: q is stored times 2
        torch.addcmul(z, z, z, value=-1, out=by_z).mul_(change)
        delta, total = torch.empty_like(slopes), torch.empty_like(out)  # dloss / d(h W), and dloss / dh
        transposed, flat = weight.t().contiguous(), delta.flatten(2)
        steps, deltas, totals, wide = slopes.unbind(), delta.unbind(), total.unbind(), total.unsqueeze(2).unbind()
        updates, flats, grads = z.unbind(), flat.unbind(), grad.unbind()
        totals[-1].copy_(grads[-1])
        for t in range(len(out) - 1, -1, -1):
            torch.mul(wide[t], steps[t], out=deltas[t])
            if t:
                torch.addcmul(grads[t - 1], totals[t], updates[t], out=totals[t - 1]).addmm_(flats[t], transposed)
        by_weight = out[:-1].flatten(0, 1).t() @ flat[1:].flatten(0, 1)
        by_bias = delta[:, :, 2].sum((0, 1))
        torch.mul(total, inner, out=delta[:, :, 2])
        return flat, by_weight, by_bias
