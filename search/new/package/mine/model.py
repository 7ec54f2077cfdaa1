"""The model: a multilayer perceptron."""

from __future__ import annotations

from typing import Any

from torch import nn


def build_model(params: dict[str, Any], features: int, classes: int) -> nn.Sequential:
    """Maps (n, features) to (n, classes) logits."""
    layers: list[nn.Module] = []
    width = features
    for _ in range(params["layers"]):
        layers += [nn.Linear(width, params["width"]), nn.ReLU(), nn.Dropout(params["dropout"])]
        width = params["width"]
    return nn.Sequential(*layers, nn.Linear(width, classes))
