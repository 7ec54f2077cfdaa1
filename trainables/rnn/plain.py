"""A sequence regressor as plain operations, for TorchScript and for `onnx_graph.py`.

TorchScript takes no `autograd.Function`, so that the recurrence and the layout of `model.py` are written here again.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from trainables.rnn.gated import GatedRecurrence
from trainables.rnn.model import Recurrence, SequenceRegressor, keeps_first, pads_behind
from trainables.rnn.ridge import Ridge


class Layer(nn.Module):
    """`Recurrence` as a loop over steps."""

    def __init__(self, layer: Recurrence) -> None:
        super().__init__()
        shared = layer.steps is None
        self.shared, self.relu = shared, layer.activation == "relu"
        weights = (layer.input_weight, layer.hidden_weight, layer.bias)
        self.input_weight, self.hidden_weight, self.bias = (
            nn.Parameter((w[None] if shared else w).detach()) for w in weights
        )

    def forward(self, x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(x.shape[1], self.bias.shape[-1])
        states = []
        for t in range(x.shape[0]):
            at = 0 if self.shared else t
            driven = x[t] @ self.input_weight[at] + self.bias[at] + state @ self.hidden_weight[at]
            state = (driven.relu() if self.relu else driven.tanh()) * present[t]
            states.append(state)
        return torch.stack(states)


class Gated(nn.Module):
    """The `nn.GRU` or `nn.LSTM` layers of a `GatedRecurrence`."""

    def __init__(self, layer: GatedRecurrence) -> None:
        super().__init__()
        self.cells = copy.deepcopy(layer.cells)

    def forward(self, x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        for cell in self.cells:
            x = cell(x)[0]
        return x


class Portable(nn.Module):
    """Sequences (n, time, features), padded at the end with any values, and their lengths (n,) -> predictions (n,)."""

    if TYPE_CHECKING:  # TorchScript would read these annotations, and fail
        x_mean: torch.Tensor
        x_std: torch.Tensor
        y_mean: torch.Tensor
        y_std: torch.Tensor
        readout_weight: torch.Tensor
        readout_bias: torch.Tensor
        ridge_weights: torch.Tensor
        ridge_fill: torch.Tensor

    def __init__(
        self, model: SequenceRegressor, steps: int | None, params: dict[str, Any], ridge: Ridge | None
    ) -> None:
        super().__init__()
        self.steps = steps or 0
        self.behind, self.first = pads_behind(params), keeps_first(params)
        self.layers = nn.ModuleList(
            Layer(layer) if isinstance(layer, Recurrence) else Gated(layer)  # type: ignore[arg-type]
            for layer in model.layers
        )
        for name in ("x_mean", "x_std", "y_mean", "y_std", "readout_weight", "readout_bias"):
            self.register_buffer(name, getattr(model, name).detach().cpu())
        ridge = ridge or Ridge(np.zeros((0, len(self.x_mean))), 0.0, np.zeros(len(self.x_mean)), 0.0, 0.0)
        self.ridge_bias, self.least, self.most = ridge.bias, ridge.least, ridge.most
        self.register_buffer("ridge_weights", torch.as_tensor(ridge.weights)[:, None])
        self.register_buffer("ridge_fill", torch.as_tensor(ridge.fill))
        self.requires_grad_(False)

    def forward(self, sequences: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        time = self.steps if self.steps > 0 else sequences.shape[1]
        used = lengths.clamp(max=time)
        step = torch.arange(time)[:, None].expand(time, len(used))
        if not self.behind:
            step = step - (time - used)
        inside = (step >= 0) & (step < used)
        rows = step if self.first else step + (lengths - used)
        rows = torch.where(inside, rows, torch.zeros_like(rows))
        x = sequences[torch.arange(len(used))[None, :], rows]
        present = inside.to(x.dtype)[..., None]
        x = torch.where(inside[..., None], (x - self.x_mean) / self.x_std, torch.zeros_like(x))
        for layer in self.layers:
            x = layer(x, present)
        end = torch.where(inside, torch.arange(time)[:, None], torch.zeros_like(step)).amax(0)
        last = x[end, torch.arange(len(used))]
        return (
            (last @ self.readout_weight + self.readout_bias) * self.y_std + self.y_mean + self.start(sequences, lengths)
        )

    def start(self, sequences: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The predictions of ridge regression, to which the output of the network is added."""
        count = len(self.ridge_weights)
        rows = torch.arange(count)[:, None] + (lengths - count)
        steps = sequences[torch.arange(len(lengths))[None, :], rows.clamp(min=0)].to(self.ridge_fill.dtype)
        x = torch.where((rows >= 0)[..., None], steps, self.ridge_fill)
        predicted = (x * self.ridge_weights).sum(dim=(0, 2)) + self.ridge_bias
        return predicted.clamp(self.least, self.most).to(sequences.dtype)
