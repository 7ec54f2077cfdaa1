"""The baselines of the task, which are fitted in seconds with every search."""

from __future__ import annotations

import numpy as np

from trainables.rnn.data import SequenceSplit
from trainables.rnn.ridge import fit_ridge


def baselines(train: SequenceSplit, test: SequenceSplit) -> dict[str, float]:
    """Test mean squared errors of the training mean, and of ridge regression on the last steps."""
    ridge, _ = fit_ridge(train)
    return {"constant": _mse(np.full(len(test), train.targets.mean()), test), "ridge": _mse(ridge(test), test)}


def _mse(predicted: np.ndarray, test: SequenceSplit) -> float:
    return float(np.mean((predicted.astype(np.float64) - test.targets) ** 2))
