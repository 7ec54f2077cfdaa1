"""Simple methods that any network has to beat; fitted in seconds with every search."""

from __future__ import annotations

import numpy as np

from trainables.rnn.data import SequenceSplit

#: Ridge's strengths, chosen on validation.
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)


def baselines(train: SequenceSplit, val: SequenceSplit, test: SequenceSplit) -> dict[str, float]:
    """Test mean squared errors of the training mean, and of ridge regression on the last steps.

    Ridge reads as many last steps as the shortest training sequence has; shorter test sequences are padded in front
    with the training mean.
    """
    steps = int(train.lengths.min())
    mean = train.values.mean(0)
    x, y = _last_steps(train, steps, mean), train.targets
    best: tuple[float, float] = (np.inf, np.inf)
    for strength in STRENGTHS:
        weights, bias = _ridge(x, y, strength)
        losses = [_mse(_last_steps(s, steps, mean) @ weights + bias, s.targets) for s in (val, test)]
        best = min(best, (losses[0], losses[1]))
    return {"constant": _mse(np.full(len(test), y.mean()), test.targets), "ridge": best[1]}


def _last_steps(split: SequenceSplit, steps: int, mean: np.ndarray) -> np.ndarray:
    rows = np.tile(mean, (len(split), steps, 1))
    for index in range(len(split)):
        kept = split.sequence(index)[-steps:]
        rows[index, steps - len(kept) :] = kept
    return rows.reshape(len(split), -1)


def _ridge(x: np.ndarray, y: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    centre, level = x.mean(0), y.mean()
    inner = x - centre
    weights = np.linalg.solve(inner.T @ inner + strength * np.eye(x.shape[1]), inner.T @ (y - level))
    return weights, float(level - centre @ weights)


def _mse(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean((predicted.astype(np.float64) - truth) ** 2))
