"""Ridge regression on the last steps of sequences: the baseline, and an optional start of a network.

scikit-learn's `RidgeCV` with groups fits 8 strengths x 5 folds anew, and does not return the predictions for left-out
groups that a network starts from. Here one Gram matrix serves all 40 fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from trainables.rnn.data import SequenceSplit

#: The candidate strengths of the penalty on standardised inputs; the error on left-out groups decides.
STRENGTHS = tuple(10.0**power for power in range(-3, 5))
#: The number of parts of the groups; the error on each part is measured without it.
FOLDS = 5
#: The largest number of inputs of a sequence (the Gram matrix then takes 8 MB), and the largest number of inputs of all
#: sequences (240 MB in float64). They limit the number of last steps that are read.
WIDEST, LARGEST = 1000, 30_000_000


@dataclass(frozen=True)
class Ridge:
    """Predictions `bias + sum(weights * last steps)`, clipped to [`least`, `most`].

    Attributes:
        weights: (steps, features) float64.
        fill: (features,), the values of missing steps of a shorter sequence.
    """

    weights: np.ndarray
    bias: float
    fill: np.ndarray
    least: float
    most: float

    def __call__(self, split: SequenceSplit) -> np.ndarray:
        """(n,) float64, in the target's units."""
        predicted = last_steps(split, len(self.weights), self.fill) @ self.weights.ravel() + self.bias
        return predicted.clip(self.least, self.most)

    def described(self) -> dict[str, Any]:
        """Plain numbers for `from_description`."""
        return {**vars(self), "weights": self.weights.tolist(), "fill": self.fill.tolist()}

    @staticmethod
    def from_description(plain: dict[str, Any]) -> Ridge:
        return Ridge(**{**plain, "weights": np.array(plain["weights"]), "fill": np.array(plain["fill"])})


def last_steps(split: SequenceSplit, steps: int, fill: np.ndarray) -> np.ndarray:
    """The last steps of each sequence, flat: (n, steps * features) float64."""
    rows = split.offsets[1:, None] - np.arange(steps, 0, -1)
    inside = rows >= split.offsets[:-1, None]
    values = np.where(inside[..., None], split.values[np.where(inside, rows, 0)], fill)
    return values.reshape(len(split), -1)


@lru_cache(maxsize=2)
def fit_ridge(train: SequenceSplit) -> tuple[Ridge, np.ndarray]:
    """Fits to the last steps of each sequence; cached for all trials of a process.

    The number of steps is the length of the shortest training sequence, within the limits `WIDEST` and `LARGEST`.

    Returns:
        The regression, and for each training sequence the prediction of a regression that was fitted without the fold
        of the sequence's group, (n,).
    """
    features = train.values.shape[1]
    widest = min(WIDEST, LARGEST // len(train))
    steps = min(int(train.lengths.min()), max(1, widest // features))
    fill = train.values.mean(0, dtype=np.float64)
    x, y = last_steps(train, steps, fill), train.targets.astype(np.float64)
    centre, scale, level = x.mean(0), x.std(0), y.mean()
    scale[x.max(0) == x.min(0)] = np.inf  # constant inputs get the weight 0
    x, y = (x - centre) / scale, y - level

    groups = np.unique(train.groups, return_inverse=True)[1].ravel()
    fold = np.random.default_rng(0).permutation(groups.max() + 1)[groups] % FOLDS
    squares, products = x.T @ x, x.T @ y
    left_out = np.zeros((len(STRENGTHS), len(x)))
    for held in range(FOLDS):
        mine = fold == held
        inner, outer = squares - x[mine].T @ x[mine], products - x[mine].T @ y[mine]
        for row, strength in zip(left_out, STRENGTHS, strict=True):
            row[mine] = x[mine] @ _solve(inner, outer, strength)
    best = int(((left_out - y) ** 2).mean(1).argmin())
    weights = _solve(squares, products, STRENGTHS[best]) / scale
    # Clip predictions to the range of the targets, widened by once the range: a single extreme extrapolation would
    # dominate the mean squared error.
    margin = np.ptp(y)
    least, most = float(level + y.min() - margin), float(level + y.max() + margin)
    ridge = Ridge(weights.reshape(steps, features), float(level - centre @ weights), fill, least, most)
    return ridge, (left_out[best] + level).clip(least, most)


def _solve(squares: np.ndarray, products: np.ndarray, strength: float) -> np.ndarray:
    return np.linalg.solve(squares + strength * np.eye(len(squares)), products)
