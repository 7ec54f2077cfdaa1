"""Scores of classifiers from confusion matrices, and the best decision threshold.

scikit-learn scores one set of predictions at a time. The bootstrap scores thousands of resampled confusion matrices;
`SCORES` takes all of them in one NumPy operation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def _macro_f1(matrices: np.ndarray) -> np.ndarray:
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    return _mean_of(2 * hits, matrices.sum(-1) + matrices.sum(-2))


def _balanced_accuracy(matrices: np.ndarray) -> np.ndarray:
    return _mean_of(np.diagonal(matrices, axis1=-2, axis2=-1), matrices.sum(-1))


def _mean_of(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The mean of part / whole over the classes that occur; a small or resampled set may lack a rare class."""
    occurs = whole > 0
    ratios = np.divide(part, whole, out=np.zeros(part.shape), where=occurs)
    return np.asarray(ratios.sum(-1) / occurs.sum(-1))


#: Scores of confusion matrices (..., truth, prediction).
SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "macro_f1": _macro_f1,
    "balanced_accuracy": _balanced_accuracy,
}


def best_threshold(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The threshold with the best macro-F1, in steps of 0.01. Of equal thresholds: the middle of the longest run.

    Args:
        probabilities: the probability of the positive class, (n,).
        truth: whether each sample is positive, (n,) of bool.
    """
    steps = np.arange(1, 100) / 100
    positives, negatives = probabilities[truth], probabilities[~truth]
    missed = np.searchsorted(np.sort(positives), steps)  # positives below each threshold
    rejected = np.searchsorted(np.sort(negatives), steps)  # negatives below each threshold
    hits, alarms = len(positives) - missed, len(negatives) - rejected
    scores = hits / (2 * hits + alarms + missed) + rejected / (2 * rejected + alarms + missed)
    runs = np.split(np.arange(len(steps)), np.flatnonzero(np.diff(scores)) + 1)  # thresholds of equal score
    best = max((run for run in runs if scores[run[0]] == scores.max()), key=len)
    return float(steps[best[len(best) // 2]])


def decide(probabilities: np.ndarray, positive: int, threshold: float | None) -> np.ndarray:
    """The predicted classes (n,): the most probable class; with a threshold, `positive` if its probability reaches
    it."""
    if threshold is None:
        return probabilities.argmax(1)
    return np.where(probabilities[:, positive] >= threshold, positive, 1 - positive)
