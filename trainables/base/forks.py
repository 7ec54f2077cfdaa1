"""Loads the state of another trial, from whose checkpoint a trial starts (a fork).

The state of an optimizer holds its hyperparameters: a fork with another learning rate would train with the old one. So
the new hyperparameters stay, and only what the training has learned is taken over.
"""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def load_part(part: Any, state: Any, fork: bool) -> None:
    """Restores a part of a training by its `load_state_dict`.

    Args:
        fork: whether the state is of another trial. An optimizer or a schedule then keeps its own hyperparameters. One
            of another kind starts anew.
    """
    own = part.state_dict() if fork and isinstance(part, Optimizer | LRScheduler) else None
    if own is None:
        part.load_state_dict(state)
    elif isinstance(part, Optimizer):
        _load_optimizer(part, own, state)
    elif state is not None and state.keys() == own.keys():
        rates = [group["lr"] for group in part.optimizer.param_groups]
        part.load_state_dict({**state, "base_lrs": own["base_lrs"], "_last_lr": rates})


def _load_optimizer(part: Optimizer, own: dict[str, Any], state: dict[str, Any]) -> None:
    pairs = list(zip(own["param_groups"], state["param_groups"], strict=False))
    if len(own["param_groups"]) != len(state["param_groups"]) or any(mine.keys() != old.keys() for mine, old in pairs):
        return
    groups = [{**mine, "params": old["params"], "lr": _rate(mine, old)} for mine, old in pairs]
    part.load_state_dict({**state, "param_groups": groups})


def _rate(mine: dict[str, Any], old: dict[str, Any]) -> float:
    """The learning rate at the epoch of the checkpoint: the schedule has changed the initial rate by a factor."""
    if old.get("initial_lr"):
        return float(mine["initial_lr"] * old["lr"] / old["initial_lr"])
    return float(mine["lr"])
