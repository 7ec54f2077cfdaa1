"""Three recurrent networks written by hand: shared weights, and own weights at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}


def initialise(weight: torch.Tensor, kind: str) -> None:
    """Fills the last two dimensions, (fan in, fan out), of a stack of matrices in place.

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
        elif kind == "orthogonal":
            for matrix in weight.view(-1, fan_in, fan_out):
                nn.init.orthogonal_(matrix)
        else:
            raise ValueError(f"init: {kind!r}: allowed are uniform, xavier, orthogonal")


class Recurrence(nn.Module):
    """One recurrent layer: h_t = act(x_t W_t + h_{t-1} U_t + b_t), with h kept where the mask is 0.

    With `steps` None the weights are shared over time, else each of `steps` steps has its own.
    """

    def __init__(self, inputs: int, hidden: int, steps: int | None, activation: str, init: str) -> None:
        super().__init__()
        lead = () if steps is None else (steps,)
        self.activation = ACTIVATIONS[activation]
        self.steps = steps
        self.input_weight = nn.Parameter(torch.empty(*lead, inputs, hidden))
        self.hidden_weight = nn.Parameter(torch.empty(*lead, hidden, hidden))
        self.bias = nn.Parameter(torch.zeros(*lead, hidden))
        initialise(self.input_weight, init)
        initialise(self.hidden_weight, init)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """x (batch, time, features), mask (batch, time) of 0 and 1 -> hidden states (batch, time, hidden)."""
        if self.steps is None:
            driven = x @ self.input_weight + self.bias
            recurrent: Sequence[torch.Tensor] = [self.hidden_weight] * x.shape[1]
        else:
            driven = torch.einsum("btf,tfh->bth", x, self.input_weight) + self.bias
            recurrent = self.hidden_weight.unbind(0)
        state = x.new_zeros(x.shape[0], self.bias.shape[-1])
        states = []
        keep = (mask == 0).unsqueeze(-1)
        whole = not bool(keep.any())  # a full batch needs no masking
        for t, drive in enumerate(driven.unbind(1)):
            new = self.activation(drive + state @ recurrent[t])
            # where, not a product: a padded step gives exactly nothing, whatever stands there, NaN included.
            state = new if whole else torch.where(keep[:, t], state, new)
            states.append(state)
        return torch.stack(states, dim=1)


class SequenceRegressor(nn.Module):
    """Scaled sequences through recurrent layers; the last state is read out to one number, scaled back.

    Variants:
        vanilla: shared weights, each sequence read to its own end.
        truncated: own weights at each of `steps` steps; sequences cut to them at one end (`keep` first or last).
        padded: own weights at each of `steps` steps, sequences padded to them and masked (`align` start or end);
            a longer one, which only a test can bring, keeps its last `steps` steps.
    """

    def __init__(
        self, features: int, steps: int | None, hidden: int, layers: int, activation: str, init: str
    ) -> None:  # fmt: skip
        super().__init__()
        widths = [features, *[hidden] * layers]
        self.layers = nn.ModuleList([Recurrence(a, b, steps, activation, init) for a, b in pairwise(widths)])
        self.readout = nn.Linear(hidden, 1)
        for name, size in (("x_mean", features), ("x_std", features), ("y_mean", 1), ("y_std", 1)):
            self.register_buffer(name, torch.zeros(size) if name.endswith("mean") else torch.ones(size))

    def fit_scaling(self, values: np.ndarray, targets: np.ndarray) -> None:
        """Feature and target scaling from training data; constant features are only centred."""
        for prefix, array in (("x", values), ("y", targets[:, None])):
            mean, std = array.mean(0, dtype=np.float64), array.std(0, dtype=np.float64)
            getattr(self, f"{prefix}_mean").copy_(torch.as_tensor(mean))
            getattr(self, f"{prefix}_std").copy_(torch.as_tensor(np.where(std > 1e-12, std, 1.0)))

    def scaled(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Predictions in units of the target's standard deviation: x (batch, time, features) -> (batch,)."""
        present = mask.unsqueeze(-1) != 0
        hidden = torch.where(present, (x - self.x_mean) / self.x_std, 0.0)  # type: ignore[operator]
        for layer in self.layers:
            hidden = layer(hidden, mask)
        out: torch.Tensor = self.readout(hidden[:, -1]).squeeze(-1)
        return out

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Predictions in the target's own units, (batch,)."""
        return self.scaled(x, mask) * self.y_std + self.y_mean  # type: ignore[operator]


def steps_of(params: dict[str, Any], lengths: np.ndarray) -> int | None:
    """How many steps have weights of their own, from the training lengths; None where weights are shared."""
    if params["variant"] == "truncated":
        return int(lengths.min())
    return int(lengths.max()) if params["variant"] == "padded" else None


def layout(sequences: list[np.ndarray], params: dict[str, Any], steps: int | None) -> tuple[np.ndarray, np.ndarray]:
    """A batch as the variant reads it: x float32 (batch, time, features) and mask float32 (batch, time).

    Vanilla batches and batches aligned at the end are padded in front, so that the last step is each one's last.
    A truncated network that meets a sequence shorter than any of training pads it in front too.
    """
    time = steps or max(len(s) for s in sequences)
    x = np.zeros((len(sequences), time, sequences[0].shape[1]), dtype=np.float32)
    mask = np.zeros((len(sequences), time), dtype=np.float32)
    at_start = params["variant"] == "padded" and params["align"] == "start"
    first = params["variant"] == "truncated" and params["keep"] == "first"
    for row, sequence in enumerate(sequences):
        kept = sequence[:time] if first else sequence[-time:]
        where = slice(0, len(kept)) if at_start else slice(time - len(kept), time)
        x[row, where], mask[row, where] = kept, 1.0
    return x, mask
