"""Scores of classifiers from confusion matrices, and the best decision threshold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix, counts (classes, classes) by truth and prediction, of indices (n,)."""
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _macro_f1(matrices: np.ndarray) -> np.ndarray:
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    return _mean_of(2 * hits, matrices.sum(-1) + matrices.sum(-2))


def _balanced_accuracy(matrices: np.ndarray) -> np.ndarray:
    return _mean_of(np.diagonal(matrices, axis1=-2, axis2=-1), matrices.sum(-1))


def _mean_of(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The mean ratio over the classes that occur; in a small or resampled set a rare one may be missing."""
    there = whole > 0
    ratios = np.divide(part, whole, out=np.zeros(part.shape), where=there)
    return np.asarray(ratios.sum(-1) / there.sum(-1))


#: Scores of confusion matrices (..., truth, prediction).
SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "macro_f1": _macro_f1,
    "balanced_accuracy": _balanced_accuracy,
}


def best_threshold(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The threshold with the best macro-F1, in steps of 0.01; of equal ones the middle of the longest run.

    Args:
        probabilities: of the positive class, (n,).
        truth: whether each is positive, (n,) of bool.
    """
    steps = np.arange(1, 100) / 100
    hits, alarms = (  # positives and others that reach each threshold
        count - np.searchsorted(np.sort(probabilities[which]), steps)
        for which, count in ((truth, truth.sum()), (~truth, (~truth).sum()))
    )
    missed, rejected = truth.sum() - hits, (~truth).sum() - alarms
    scores = hits / (2 * hits + alarms + missed) + rejected / (2 * rejected + alarms + missed)
    runs = np.split(np.arange(len(steps)), np.flatnonzero(np.diff(scores)) + 1)
    best = max((run for run in runs if scores[run[0]] == scores.max()), key=len)
    return float(steps[best[len(best) // 2]])


def decide(probabilities: np.ndarray, positive: int, threshold: float | None) -> np.ndarray:
    """The predicted classes (n,): the most probable one; with a threshold `positive` where it reaches that."""
    if threshold is None:
        return probabilities.argmax(1)
    return np.where(probabilities[:, positive] >= threshold, positive, 1 - positive)
