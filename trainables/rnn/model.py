"""Recurrent networks with shared weights, or with separate weights for each step.

The code works for one network and for a `fused.Stack` of networks. In a stack a parameter of shape s has the shape
(members, *s), and data have the dimension of members behind time. `nn.RNN` knows neither stacks, nor separate weights,
nor padding in front.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from trainables.base.batches import Rows, read_only
from trainables.rnn.data import SequenceSplit
from trainables.rnn.gated import GatedRecurrence

VARIANTS = ("vanilla", "truncated", "padded")
CELLS = ("gru", "lstm", "simple")
ACTIVATIONS = ("tanh", "relu")
INITS = ("uniform", "xavier", "orthogonal")


def initialise(weight: torch.Tensor, kind: str) -> None:
    """Fills a matrix (fan in, fan out), or a stack of matrices, in place.

    `uniform`: U(-1/sqrt(n), 1/sqrt(n)) with n = fan out, as torch.nn.RNN; `xavier`: Glorot and Bengio 2010, eq. 16;
    `orthogonal`: Saxe et al. 2014.
    """
    fan_in, fan_out = weight.shape[-2:]
    with torch.no_grad():
        if kind == "uniform":
            weight.uniform_(-1 / math.sqrt(fan_out), 1 / math.sqrt(fan_out))
        elif kind == "xavier":
            bound = math.sqrt(6 / (fan_in + fan_out))
            weight.uniform_(-bound, bound)
        else:
            for matrix in weight.view(-1, fan_in, fan_out):
                nn.init.orthogonal_(matrix)


class Recur(torch.autograd.Function):
    """h_t = act(driven_t + h_{t-1} U_t) * present_t from h_{-1} = 0, with a hand-written backward pass through time.

    driven: (time, members, batch, hidden). U: (members, hidden, hidden), or (members, time, hidden, hidden) with
    separate weights for each step. present: (time, members, batch, 1) of 0 and 1, or None for all ones. Returns all
    h_t.

    In a small network the number of operations decides the speed. Autograd through the loop would record twice as many
    operations, and a Python number in an operation costs as much time as the operation itself.
    """

    @staticmethod
    def forward(
        ctx: Any, driven: torch.Tensor, weight: torch.Tensor, present: torch.Tensor | None, activation: str
    ) -> torch.Tensor:
        out = driven.new_empty(driven.shape)
        # tanh(a) = 2 sigmoid(2a) - 1: on some CPUs torch's tanh takes six times as long as its sigmoid.
        scale, minus_one = 2 if activation == "tanh" else 1, driven.new_full((), -1.0)
        states = out.unbind()
        for t, (state, drive) in enumerate(zip(states, driven.unbind(), strict=True)):
            if t == 0:
                torch.mul(drive, scale, out=state)
            else:
                torch.baddbmm(drive, states[t - 1], _at(weight, t), beta=scale, alpha=scale, out=state)
            if activation == "tanh":
                torch.add(minus_one, state.sigmoid_(), alpha=2, out=state)
            else:
                state.relu_()
            if present is not None:
                state.mul_(present[t])
        ctx.save_for_backward(out, weight, present)
        ctx.activation = activation
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (grad,) = gradients
        out, weight, present = ctx.saved_tensors
        delta = torch.empty_like(out)  # dloss / d(argument of the activation)
        transposed = weight.transpose(-1, -2).contiguous()
        states, deltas, totals = out.unbind(), delta.unbind(), grad.unbind()
        for t in range(len(states) - 1, -1, -1):
            total, state = totals[t], states[t]
            if t + 1 < len(states):
                total = torch.baddbmm(total, deltas[t + 1], _at(transposed, t + 1))
            if ctx.activation == "tanh":
                torch.addcmul(total, total * state, state, value=-1, out=deltas[t])
            else:
                torch.mul(total, state > 0, out=deltas[t])
            if present is not None:
                deltas[t].mul_(present[t])
        # The gradient of U from each step, (time - 1, members, hidden, hidden).
        products = out[:-1].transpose(-1, -2) @ delta[1:]
        if weight.dim() == 3:
            return delta, products.sum(0), None, None
        own = torch.zeros_like(weight)
        own[:, 1:] = products.transpose(0, 1)
        return delta, own, None, None


def _at(weight: torch.Tensor, t: int) -> torch.Tensor:
    return weight if weight.dim() == 3 else weight[:, t]


class Recurrence(nn.Module):
    """One recurrent layer: h_t = act(x_t W_t + h_{t-1} U_t + b_t), zero before a sequence begins.

    If `steps` is None, all steps share the weights; else each of `steps` steps has separate weights.
    """

    def __init__(self, inputs: int, hidden: int, steps: int | None, activation: str, init: str) -> None:
        super().__init__()
        lead = () if steps is None else (steps,)
        self.activation, self.steps = activation, steps
        self.input_weight = nn.Parameter(torch.empty(*lead, inputs, hidden))
        self.hidden_weight = nn.Parameter(torch.empty(*lead, hidden, hidden))
        self.bias = nn.Parameter(torch.zeros(*lead, hidden))
        initialise(self.input_weight, init)
        initialise(self.hidden_weight, init)

    def forward(self, x: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """x (time, members, batch, features), present as in `Recur` -> states (time, members, batch, hidden)."""
        members, single = x.shape[1], 2 if self.steps is None else 3
        weight, recurrent, bias = (
            p if p.dim() > dims else p.unsqueeze(0).expand(members, *p.shape)
            for p, dims in (
                (self.input_weight, single),
                (self.hidden_weight, single),
                (self.bias, single - 1),
            )
        )
        if self.steps is None:
            rows = x.transpose(0, 1).reshape(members, -1, x.shape[-1])  # one matrix product for all steps
            driven = torch.baddbmm(bias.unsqueeze(1), rows, weight)
            driven = driven.view(members, len(x), -1, driven.shape[-1]).transpose(0, 1)
        else:
            driven = x @ weight.transpose(0, 1) + bias.transpose(0, 1).unsqueeze(2)
        return Recur.apply(driven, recurrent, present, self.activation)


class SequenceRegressor(nn.Module):
    """Scales sequences, runs recurrent layers, and maps the last state of each sequence linearly to one number.

    Variants:
        vanilla: shared weights; each sequence is read to its end. `cell` is simple, gru or lstm.
        truncated: separate weights for each of `steps` steps; sequences keep their first or last `steps` steps
            (`keep`).
        padded: separate weights for each of `steps` steps; sequences are padded to `steps` and masked (`align` start or
            end). A longer sequence, which only test can hold, keeps its last `steps` steps.
    """

    def __init__(self, features: int, steps: int | None, params: dict[str, Any]) -> None:
        super().__init__()
        hidden, layers = params["hidden"], params["layers"]
        if is_gated(params):
            gated = GatedRecurrence(params["cell"], features, hidden, layers, params.get("dropout") or 0.0)
            self.layers = nn.ModuleList([gated])
        else:
            widths = [features, *[hidden] * layers]
            kinds = (params["activation"], params["init"])
            self.layers = nn.ModuleList([Recurrence(a, b, steps, *kinds) for a, b in pairwise(widths)])
        bound = 1 / math.sqrt(hidden)  # as torch.nn.Linear
        self.readout_weight = nn.Parameter(torch.empty(hidden).uniform_(-bound, bound))
        self.readout_bias = nn.Parameter(torch.empty(1).uniform_(-bound, bound))
        for name, size in (("x_mean", features), ("x_std", features), ("y_mean", 1), ("y_std", 1)):
            self.register_buffer(name, torch.zeros(size) if name.endswith("mean") else torch.ones(size))

    def fit_scaling(self, values: np.ndarray, targets: np.ndarray) -> None:
        """Sets the scaling of features and target from training data; constant features are only centred."""
        for prefix, array in (("x", values), ("y", targets[:, None])):
            mean, std = array.mean(0, dtype=np.float64), array.std(0, dtype=np.float64)
            getattr(self, f"{prefix}_mean").copy_(torch.as_tensor(mean))
            varies = array.max(0) > array.min(0)  # a threshold would treat small units as constant
            getattr(self, f"{prefix}_std").copy_(torch.as_tensor(np.where(varies, std, 1.0)))

    def scaled(self, x: torch.Tensor, mask: torch.Tensor, front: bool) -> torch.Tensor:
        """Predictions in units of the target's standard deviation, ([members,] batch).

        Args:
            x: (time, [members,] batch, features).
            mask: (time, [members,] batch), 1 on the consecutive steps of the sequence, else 0.
            front: whether a sequence is padded in front. Padding in front needs the mask; padding at the end cannot
                change the state at the end of the sequence.
        """
        alone = mask.dim() == 2
        if alone:
            x, mask = x.unsqueeze(1), mask.unsqueeze(1)
        buffers: Any = (self.x_mean, self.x_std)
        mean, std = (b.reshape(-1, 1, b.shape[-1]) for b in buffers)
        present = mask.unsqueeze(-1)
        # `masked_fill` turns any padding into 0; a product with the mask would keep NaN.
        hidden = (x - mean).div_(std).masked_fill_(present == 0, 0.0)
        # float32 for every `resources.precision`: over hundreds of steps the rounding of bfloat16 adds up.
        with torch.autocast(x.device.type, enabled=False):
            for layer in self.layers:
                hidden = layer(hidden, present if front else None)
        end = (mask * torch.arange(len(mask), device=mask.device).view(-1, 1, 1)).amax(0).long()
        last = hidden.gather(0, end[None, ..., None].expand(1, *end.shape, hidden.shape[-1]))[0]
        weight, bias = (p.reshape(-1, 1, p.shape[-1]) for p in (self.readout_weight, self.readout_bias))
        out = ((last * weight).sum(-1, keepdim=True) + bias).squeeze(-1)
        return out.squeeze(0) if alone else out

    def forward(self, x: torch.Tensor, mask: torch.Tensor, front: bool) -> torch.Tensor:
        """Predictions in the target's own units; arguments as of `scaled`."""
        return self.scaled(x, mask, front) * self.y_std + self.y_mean  # type: ignore[operator]


def is_gated(params: dict[str, Any]) -> bool:
    """Whether a configuration has GRU or LSTM cells. Old configurations lack the parameter."""
    return params.get("cell") in ("gru", "lstm")


def steps_of(params: dict[str, Any], lengths: np.ndarray) -> int | None:
    """The number of steps with separate weights, from the training lengths; None for shared weights."""
    if params["variant"] == "truncated":
        return int(lengths.min())
    return int(lengths.max()) if params["variant"] == "padded" else None


@dataclass(frozen=True)
class Sequences:
    """A split on a device.

    Attributes:
        values: (sum of lengths, features).
        starts, lengths, targets: of each sequence, (n,).
        sizes: the lengths again, on the CPU, (n,).
        start: the numbers to which the outputs of a network are added, on the CPU, (n,) or a single number.
    """

    values: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor
    sizes: np.ndarray
    start: np.ndarray

    @staticmethod
    def of(split: SequenceSplit, device: torch.device, start: np.ndarray | float = 0.0) -> Sequences:
        """Copies a split to a device."""
        values, starts, lengths, targets = (
            read_only(array).to(device) for array in (split.values, split.offsets[:-1], split.lengths, split.targets)
        )
        return Sequences(values, starts, lengths, targets, split.lengths, np.asarray(start, dtype=np.float32))


def pads_behind(params: dict[str, Any]) -> bool:
    """Whether sequences are padded at their end. Else they are padded in front, and end at the last step."""
    return params["variant"] == "vanilla" or (params["variant"] == "padded" and params["align"] == "start")


def keeps_first(params: dict[str, Any]) -> bool:
    """Whether a longer sequence keeps its first steps. Else it keeps its last steps."""
    return bool(params["variant"] == "truncated" and params["keep"] == "first")


def layout(
    data: Sequences, index: Rows, params: dict[str, Any], steps: int | None
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Gathers the sequences `index`, ([members,] batch), in the form of the variant.

    `pads_behind` says where a sequence is padded. A truncated network pads sequences that are shorter than all of
    train.

    Returns:
        - x (time, [members,] batch, features). The values of the padding have no meaning.
        - mask float32 (time, [members,] batch): 1 on the steps of a sequence, 0 on its padding.
        - Whether a sequence is padded in front.
    """
    sizes = data.sizes[index.here]
    time = steps or int(sizes.max())
    starts, lengths = data.starts[index.there], data.lengths[index.there]
    used = lengths.clamp(max=time)
    behind, first = pads_behind(params), keeps_first(params)
    step = torch.arange(time, device=used.device).reshape(-1, *[1] * used.dim())
    if not behind:
        step = step - (time - used)
    inside = (step >= 0) & (step < used)
    rows = torch.where(inside, step + (starts if first else starts + (lengths - used)), 0)
    return data.values[rows], inside.float(), not behind and bool((sizes < time).any())
