"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

import math
from typing import Any

import torch


def make_optimizer(groups: Any, params: dict[str, Any]) -> torch.optim.Optimizer:
    """Makes an optimizer from `optimizer`, `lr`, `weight_decay` (None: 0) and, for sgd, `momentum`.

    Args:
        groups: parameters or parameter groups; a group's own `lr` or `weight_decay` goes before.

    Raises:
        ValueError: another name.
    """
    name, rate, decay = params["optimizer"], params["lr"], params["weight_decay"] or 0.0
    # Fused: a parameter's whole step is one pass over its memory, on a processor too.
    if name == "sgd":
        momentum = params["momentum"]
        return torch.optim.SGD(
            groups, lr=rate, momentum=momentum, weight_decay=decay, nesterov=momentum > 0, fused=True
        )
    if name == "adam":
        return torch.optim.Adam(groups, lr=rate, weight_decay=decay, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay, fused=True)
    raise ValueError(f"optimizer: {name!r}: allowed are sgd, adam, adamw")


def make_schedule(
    optimizer: torch.optim.Optimizer, name: str, epochs: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """Makes a schedule that is stepped once an epoch; None for `constant`.

    `cosine` falls to 1 % at the last epoch; `warmup_cosine` rises over the first twentieth before, so that the first
    rung of a search lies behind it; `step` multiplies by 0.95 each epoch.

    Raises:
        ValueError: another name.
    """
    if name == "constant":
        return None
    if name in ("cosine", "warmup_cosine"):
        warmup = math.ceil(epochs / 20) if name == "warmup_cosine" else 0
        last = max(1, epochs - warmup)

        def factor(epoch: int) -> float:
            if epoch < warmup:
                return (epoch + 1) / (warmup + 1)
            return 0.01 + 0.99 * (1 + math.cos(math.pi * min(epoch - warmup, last) / last)) / 2

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    if name == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.95)
    raise ValueError(f"schedule: {name!r}: allowed are constant, cosine, warmup_cosine, step")
