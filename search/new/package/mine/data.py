"""The data: a table of numbers with a column `label`, or a demo of two spirals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trainables import InputError, Splits


def load(data: dict[str, Any], source: Path | None) -> Splits:
    """Splits of (x (n, features) float32, y (n,) int64); raises InputError where the table cannot be used."""
    if source is None:
        x, y = two_spirals(data["demo_size"])
    else:
        try:
            table = pd.read_csv(source)
        except (OSError, ValueError) as error:
            raise InputError(f"--data {source}: cannot be read as CSV ({str(error).splitlines()[0]})") from error
        if "label" not in table:
            raise InputError(f"--data {source}: no column `label` among {', '.join(map(str, table.columns))}")
        features = table.drop(columns="label").select_dtypes("number")
        if features.empty or features.isna().any(axis=None):
            raise InputError(f"--data {source}: expected columns of numbers beside `label`, without gaps")
        x, y = features.to_numpy(np.float32), pd.factorize(table["label"], sort=True)[0]
    order = np.random.default_rng(data["split_seed"]).permutation(len(y))
    parts = np.split(order, [int(0.6 * len(y)), int(0.8 * len(y))])
    train, val, test = ((x[part], y[part]) for part in parts)
    return Splits.of(str(source or "two spirals, made by code"), train, val, test)


def two_spirals(size: int) -> tuple[np.ndarray, np.ndarray]:
    """(size, 2) points on two arms with noise, and the arm of each."""
    rng = np.random.default_rng(0)
    arm, angle = rng.integers(0, 2, size), 3 * np.pi * np.sqrt(rng.random(size))
    points = np.stack([np.cos(angle + np.pi * arm), np.sin(angle + np.pi * arm)], 1) * angle[:, None] / 3
    return (points + rng.normal(0, 0.1, points.shape)).astype(np.float32), arm
