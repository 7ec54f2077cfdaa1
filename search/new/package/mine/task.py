"""The task: what an epoch of training is, and what counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mine import data as tables
from mine.model import build_model
from trainables import (
    Device,
    Learner,
    Objective,
    Params,
    Progress,
    Splits,
    fit_batches,
    make_optimizer,
    make_schedule,
    shuffled_batches,
)

Split = tuple[np.ndarray, np.ndarray]


class Mine:
    """What `trainables.Task` asks for, and a merge; `Exported` would add a registered model."""

    name, objective = "mine", Objective("accuracy", "max")

    def prepare(self, data: dict[str, Any], source: Path | None, cache: Path, progress: Progress) -> Splits:
        return tables.load(data, source)

    def build(self, params: Params, splits: Splits, epochs: int, device: Device) -> Learner:
        x, y = splits.train
        model = build_model(params, x.shape[1], int(y.max()) + 1).to(device.torch_device)
        optimizer = make_optimizer(model.parameters(), params)
        return Learner(model, optimizer, make_schedule(optimizer, params["schedule"], epochs), device, params)

    def train_epoch(self, learner: Learner, split: Split) -> dict[str, float]:
        x, y = _on_device(learner, split)

        def forward(batch: Any) -> tuple[torch.Tensor, int, dict[str, torch.Tensor]]:
            return torch.nn.functional.cross_entropy(learner.model(x[batch]), y[batch]), len(batch), {}

        return fit_batches(learner, shuffled_batches(len(x), learner.params["batch_size"]), forward, clip_norm=1.0)

    @torch.no_grad()
    def evaluate(self, learner: Learner, split: Split) -> dict[str, float]:
        x, y = _on_device(learner, split)
        logits = learner.model.eval()(x)
        accuracy = (logits.argmax(1) == y).float().mean().item()
        return {"accuracy": accuracy, "loss": torch.nn.functional.cross_entropy(logits, y).item()}

    def merge(self, splits: Splits) -> Split:
        (x, y), (more_x, more_y) = splits.train, splits.val
        return np.concatenate([x, more_x]), np.concatenate([y, more_y])


def _on_device(learner: Learner, split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    device = learner.device.torch_device
    return learner.resident(split, lambda: (torch.tensor(split[0]).to(device), torch.tensor(split[1]).to(device)))


TASK = Mine()
