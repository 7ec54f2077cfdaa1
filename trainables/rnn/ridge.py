"""Ridge regression on the last steps of sequences: what any network has to beat, and what one may start from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from trainables.rnn.data import SequenceSplit

#: Strengths of the penalty on standardised inputs, of which the one with the least error on left-out groups is taken.
STRENGTHS = tuple(10.0**power for power in range(-3, 5))
FOLDS = 5
#: Inputs at most, and numbers of all sequences; only so many of the last steps are read as that allows.
WIDEST, LARGEST = 1000, 30_000_000


@dataclass(frozen=True)
class Ridge:
    """Predictions `bias + sum(weights * last steps)`, kept between `least` and `most`.

    `weights` are (steps, features) float64; `fill` (features,) stands for the steps that a shorter sequence lacks.
    """

    weights: np.ndarray
    bias: float
    fill: np.ndarray
    least: float
    most: float

    def __call__(self, split: SequenceSplit) -> np.ndarray:
        """(n,) float64, in the target's units."""
        found = last_steps(split, len(self.weights), self.fill) @ self.weights.ravel() + self.bias
        return found.clip(self.least, self.most)

    def described(self) -> dict[str, Any]:
        """As plain numbers, which `from_description` reads."""
        return {**vars(self), "weights": self.weights.tolist(), "fill": self.fill.tolist()}

    @staticmethod
    def from_description(plain: dict[str, Any]) -> Ridge:
        return Ridge(**{**plain, "weights": np.array(plain["weights"]), "fill": np.array(plain["fill"])})


def last_steps(split: SequenceSplit, steps: int, fill: np.ndarray) -> np.ndarray:
    """(n, steps * features) float64."""
    place = split.offsets[1:, None] - np.arange(steps, 0, -1)
    inside = place >= split.offsets[:-1, None]
    rows = np.where(inside[..., None], split.values[np.where(inside, place, 0)], fill)
    return rows.reshape(len(split), -1)


@lru_cache(maxsize=2)
def fit_ridge(train: SequenceSplit) -> tuple[Ridge, np.ndarray]:
    """Fits to as many last steps as the shortest training sequence has; once for all trials of a process.

    Returns:
        The regression, and (n,) its predictions for each training sequence when fitted without the sequence's fold of
        groups: what it would say of sequences that it has not seen.
    """
    features = train.values.shape[1]
    widest = min(WIDEST, LARGEST // len(train))
    steps = min(int(train.lengths.min()), max(1, widest // features))
    fill = train.values.mean(0, dtype=np.float64)
    x, y = last_steps(train, steps, fill), train.targets.astype(np.float64)
    centre, scale, level = x.mean(0), x.std(0), y.mean()
    scale[x.max(0) == x.min(0)] = np.inf  # constant inputs say nothing
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
    # A sequence unlike all of training would else be given any number, and one such number decides a mean of squares.
    margin = np.ptp(y)
    least, most = float(level + y.min() - margin), float(level + y.max() + margin)
    ridge = Ridge(weights.reshape(steps, features), float(level - centre @ weights), fill, least, most)
    return ridge, (left_out[best] + level).clip(least, most)


def _solve(squares: np.ndarray, products: np.ndarray, strength: float) -> np.ndarray:
    weights: np.ndarray = np.linalg.solve(squares + strength * np.eye(len(squares)), products)
    return weights
