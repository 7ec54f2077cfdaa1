"""The files of an exported model: `model.json` describes it, `weights.pt` holds its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainables.base.device import Device
from trainables.base.training import Learner


def write_model(folder: Path, about: dict[str, Any], model: nn.Module, weights: str = "weights.pt") -> None:
    """Writes the weights of `model`, and everything else that `load` of the task needs: `about`, plain data."""
    write_about(folder, about)
    torch.save(model.state_dict(), folder / weights)


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Writes everything but the weights that `load` of the task needs: `about`, plain data."""
    (folder / "model.json").write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")


def read_about(folder: Path) -> dict[str, Any]:
    """The description that `write_model` wrote."""
    return json.loads((folder / "model.json").read_text(encoding="utf-8"))


def load_weights(model: nn.Module, file: Path) -> None:
    """Loads weights onto the CPU. Code in the file is not run."""
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))


def finished(model: nn.Module, params: dict[str, Any], extra: dict[str, Any]) -> Learner:
    """A loaded model as a learner on the CPU, for predictions."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    return Learner(model.eval(), optimizer, None, Device(torch.device("cpu")), params, extra=extra)
