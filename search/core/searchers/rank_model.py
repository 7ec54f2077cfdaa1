"""A Gaussian process on the ranks of the last losses of trials, for searches that stop most trials early.

The last losses of all trials are ranked together, whatever their epochs (Salinas et al. 2023, arXiv:2305.03623, measure
that this is enough). The ranks become normal scores (Salinas et al. 2020, arXiv:1909.13595). Ranks do not depend on the
scale of the loss, and an outlier or a diverged trial is only the last rank. The kernel is Matern 5/2 with a length
scale for each dimension. The length scales and the noise maximize the marginal likelihood on a grid of values.

Likelihoods and scores are rounded before they are compared, and the lower index wins ties. So the same data gives the
same choice on every machine, although the last bits of its linear algebra differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

#: The grid: length scales (shares of a range) and noises (shares of the variance). Then the scale of each dimension is
#: multiplied by the factor that raises the likelihood most, if one does. Other grids were not measured.
SCALES, NOISES, FACTORS = (0.15, 0.3, 0.6, 1.2, 2.4), (0.03, 0.1, 0.3, 0.6), (0.4, 2.5, 12.0)
#: At most this many points are used to choose scales and noise: each likelihood factorizes a matrix of this size.
CHOSEN_ON = 100
#: The share of the weighted sum in the Chebyshev norm (the value of Knowles 2006).
AUGMENTED = 0.05
#: The largest scaled loss in it. Ranks in place of scaled losses were no better (benchmarks/tried.md).
FAR = 4.0
#: Likelihoods and relative scores are compared with this many decimals, far above rounding errors.
DECIMALS = 6


def normal_scores(losses: Array) -> Array:
    """Standard normal quantiles (n,) of (rank - 0.5) / n for losses (n,). Equal losses have their mean rank."""
    from scipy.special import ndtri  # imported here: it takes 0.2 s, and most commands do not need it

    _, index, counts = np.unique(losses, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[index]
    return np.asarray(ndtri((ranks - 0.5) / len(losses)))


def chebyshev(losses: Array, weights: Array) -> Array:
    """One loss (n,) for losses (n, objectives): the augmented Chebyshev norm of ParEGO (Knowles 2006).

    It is the largest weighted loss, and `AUGMENTED` times the sum of the weighted losses. So with the right weights
    each trial of the front has the smallest norm, on a front of any shape. Each objective is scaled before: 0 is its
    smallest loss, 1 its median, and no loss counts more than `FAR`. A diverged trial, whose first loss is infinite,
    stays so.
    """
    known = losses[np.isfinite(losses).all(1)]
    if not len(known):
        return losses[:, 0]
    low, middle, high = known.min(0), np.median(known, axis=0), known.max(0)
    scale = np.where(middle > low, middle - low, np.where(high > low, high - low, 1.0))
    points = weights * np.minimum((losses - low) / scale, FAR)
    return np.where(np.isinf(losses[:, 0]), np.inf, points.max(1) + AUGMENTED * points.sum(1))


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
        """Fits the model to points (n, d) in the unit cube and their scores (n,)."""
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
    """Length scales (d,) and noise with the largest likelihood: first one scale for all dimensions, then each scale."""
    if len(y) > CHOSEN_ON:
        some = np.linspace(0, len(y) - 1, CHOSEN_ON).astype(int)
        x, y = x[some], y[some]
    squared = (x[:, None, :] - x[None, :, :]) ** 2
    dimensions = x.shape[1]
    best, scales, noise = -math.inf, np.ones(dimensions), NOISES[0]
    for scale in SCALES:
        for share in NOISES:
            likelihood = _likelihood(squared @ np.full(dimensions, scale**-2.0), y, share)
            if likelihood > best:
                best, scales, noise = likelihood, np.full(dimensions, scale), share
    for dimension in range(dimensions):
        scale, own = scales[dimension], squared[:, :, dimension]
        others = squared @ scales**-2.0 - own * scale**-2.0
        for factor in FACTORS:
            likelihood = _likelihood(np.maximum(0.0, others + own * (factor * scale) ** -2.0), y, noise)
            if likelihood > best:
                best = likelihood
                scales[dimension] = factor * scale
    return scales, noise


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """E[max(0, best - score)] (m,) for normal scores with these means (m,) and deviations (m,).

    With z = (best - mean) / deviation it is deviation x (z x cdf(z) + pdf(z)) (Jones et al. 1998).
    """
    from scipy.special import ndtr

    z = (best - mean) / deviation
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return np.maximum(0.0, deviation * (z * ndtr(z) + density))


def order(scores: Array) -> np.ndarray:
    """The indices (m,) of scores (m,), the largest score first. Scores are equal if they differ only by rounding."""
    top = scores.max(initial=0.0)
    return np.argsort(-np.round(scores / top, DECIMALS) if top > 0 else np.zeros(len(scores)), kind="stable")


def _squared(a: Array, b: Array) -> Array:
    """Squared distances (n, m) of points (n, d) and (m, d)."""
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
