"""A Gaussian process on the ranks of what trials have shown, for searches that stop most of them early.

What trials have shown last, after however many epochs, is ranked in one pot, and the ranks are turned into normal
scores (Salinas et al. 2020, arXiv:1909.13595; that pooling is enough: Salinas et al. 2023, arXiv:2305.03623). Ranks do
not mind the scale of a loss, outliers, or that one diverged. The kernel is Matern 5/2 with a length scale for each
dimension; these and the noise are chosen by marginal likelihood on a grid, so that no optimizer's path matters.

Likelihoods and scores are rounded before they are compared, and ties go to the lower index: the same data gives the
same choice on any machine, whatever its linear algebra does to the last bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

#: Length scales, in units of the range, and shares of noise that are tried; factors that one dimension's scale is then
#: multiplied by.
SCALES, NOISES, FACTORS = (0.15, 0.3, 0.6, 1.2, 2.4), (0.03, 0.1, 0.3, 0.6), (0.4, 2.5, 12.0)
#: Points that they are chosen on, at most.
CHOSEN_ON = 100
#: Decimals of a likelihood and of a relative score that are compared.
DECIMALS = 6


def normal_scores(losses: Array) -> Array:
    """(n,) -> (n,): standard normal quantiles of the ranks; ties share the mean of their ranks."""
    _, index, counts = np.unique(losses, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[index]
    return _quantile((ranks - 0.5) / len(losses))


@dataclass(frozen=True)
class RankModel:
    """A Gaussian process fitted to scores."""

    x: Array
    scales: Array
    noise: float
    _factor: Array
    _weights: Array

    @staticmethod
    def fit(x: Array, y: Array) -> RankModel:
        """Fits to points (n, d) in the unit cube and their scores (n,)."""
        scales, noise = _choose(x, y)
        factor = np.linalg.cholesky(_kernel(_squared(x / scales, x / scales), noise) + noise * np.eye(len(y)))
        return RankModel(x, scales, noise, factor, _solve(factor, y))

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean (m,) and standard deviation (m,) of the score at points (m, d), without the noise."""
        across = _kernel(_squared(x / self.scales, self.x / self.scales), self.noise)
        half = np.linalg.solve(self._factor, across.T)
        variance = (1 - self.noise) - (half**2).sum(0)
        return across @ self._weights, np.sqrt(np.maximum(variance, 1e-12))


def _choose(x: Array, y: Array) -> tuple[Array, float]:
    """Length scales (d,) and the share of noise: first one scale for all dimensions, then each dimension's own."""
    if len(y) > CHOSEN_ON:
        some = np.linspace(0, len(y) - 1, CHOSEN_ON).astype(int)
        x, y = x[some], y[some]
    squared = (x[:, None, :] - x[None, :, :]) ** 2
    dimensions = x.shape[1]
    best, scales, noise = -math.inf, np.ones(dimensions), NOISES[0]
    for scale in SCALES:
        for share in NOISES:
            found = _likelihood(squared @ np.full(dimensions, scale**-2.0), y, share)
            if found > best:
                best, scales, noise = found, np.full(dimensions, scale), share
    for dimension in range(dimensions):
        here, own = scales[dimension], squared[:, :, dimension]
        rest = squared @ scales**-2.0 - own * here**-2.0
        for factor in FACTORS:
            found = _likelihood(np.maximum(0.0, rest + own * (factor * here) ** -2.0), y, noise)
            if found > best:
                best = found
                scales[dimension] = factor * here
    return scales, noise


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """How far below `best` a score is expected to come, 0 where it does not (m,)."""
    z = (best - mean) / deviation
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return np.maximum(0.0, deviation * (z * _cumulative(z) + density))


def order(scores: Array) -> np.ndarray:
    """Indices by score, the largest first; those that differ by rounding alone in the order of their indices."""
    top = scores.max(initial=0.0)
    return np.argsort(-np.round(scores / top, DECIMALS) if top > 0 else np.zeros(len(scores)), kind="stable")


def _squared(a: Array, b: Array) -> Array:
    """(n, m): squared distances of points (n, d) and (m, d)."""
    return np.maximum(0.0, (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T)


def _kernel(squared: Array, noise: float) -> Array:
    distance = np.sqrt(5 * squared)
    return (1 - noise) * (1 + distance + distance**2 / 3) * np.exp(-distance)


def _likelihood(squared: Array, y: Array, noise: float) -> float:
    factor = np.linalg.cholesky(_kernel(squared, noise) + noise * np.eye(len(y)))
    fit = float(y @ _solve(factor, y))
    return round(-fit / 2 - float(np.log(np.diag(factor)).sum()), DECIMALS)


def _solve(factor: Array, y: Array) -> Array:
    return np.linalg.solve(factor.T, np.linalg.solve(factor, y))


def _cumulative(z: Array) -> Array:
    from scipy.special import ndtr

    return np.asarray(ndtr(z))


def _quantile(share: Array) -> Array:
    from scipy.special import ndtri

    return np.asarray(ndtri(share))
