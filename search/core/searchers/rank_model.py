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
from functools import lru_cache

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
        squared = _squared(x / scales, x / scales).reshape(-1)[_places(len(y))]
        factor = _factor(_matern(squared), len(y), noise)
        return RankModel(x, scales, noise, factor, _solve(factor, _solve(factor, y), transposed=True))

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean (m,) and standard deviation (m,) of the score at points (m, d), without the noise."""
        across = (1 - self.noise) * _matern(_squared(x / self.scales, self.x / self.scales))
        variance = (1 - self.noise) - (_solve(self._factor, across.T) ** 2).sum(0)
        return across @ self._weights, np.sqrt(np.maximum(variance, 1e-12))


def _choose(x: Array, y: Array) -> tuple[Array, float]:
    """Length scales (d,) and noise with the largest likelihood: first one scale for all dimensions, then each scale."""
    if len(y) > CHOSEN_ON:
        some = np.linspace(0, len(y) - 1, CHOSEN_ON).astype(int)
        x, y = x[some], y[some]
    squared, dimensions = _pairs(x), x.shape[1]
    total = squared.sum(0)

    def likelihood(correlations: Array, noise: float) -> float:
        """The logarithm of the marginal likelihood, without a constant."""
        factor = _factor(correlations, len(y), noise)
        half = _solve(factor, y)
        return round(-float(half @ half) / 2 - float(np.log(factor.diagonal()).sum()), DECIMALS)

    best, scales, noise = -math.inf, np.ones(dimensions), NOISES[0]
    for scale in SCALES:
        correlations = _matern(total * scale**-2.0)
        for share in NOISES:
            if (now := likelihood(correlations, share)) > best:
                best, scales, noise = now, np.full(dimensions, scale), share
    together = total * scales[0] ** -2.0
    for dimension, own in enumerate(squared):
        scale = scales[dimension]
        others = together - own * scale**-2.0
        for factor in FACTORS:
            changed = np.maximum(0.0, others + own * (factor * scale) ** -2.0)
            if (now := likelihood(_matern(changed), noise)) > best:
                best, together = now, changed
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


def _matern(squared: Array) -> Array:
    """The Matern 5/2 correlations of squared distances, which are shares of the length scales."""
    distance = np.sqrt(5 * squared)
    correlations = 1 + distance + 5 / 3 * squared
    correlations *= np.exp(-distance)
    return correlations


def _factor(correlations: Array, count: int, noise: float) -> Array:
    """The lower Cholesky factor (count, count) of the covariance (1 - noise) x correlations + noise x I.

    LAPACK is called directly: at 100 points the checks of numpy and scipy take longer than the factorization.

    Args:
        correlations: of each pair of points, as `_pairs` has them.
    """
    from scipy.linalg import lapack  # imported here: most commands do not need it

    upper = np.eye(count)
    upper.reshape(-1)[_places(count)] = (1 - noise) * correlations
    factor, failed = lapack.dpotrf(upper.T, lower=1, clean=0, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError("the covariance of the rank model is not positive definite")
    return np.asarray(factor)


@lru_cache(maxsize=4)
def _places(count: int) -> Array:
    """The places of the pairs of `_pairs` in a flat matrix (count, count), above its diagonal."""
    larger, smaller = np.tril_indices(count, -1)
    return smaller * count + larger


def _pairs(x: Array) -> Array:
    """The squared difference of each dimension and each pair of points, (d, n (n - 1) / 2), for points (n, d)."""
    larger, smaller = np.tril_indices(len(x), -1)
    columns = np.ascontiguousarray(x.T)
    return (columns[:, larger] - columns[:, smaller]) ** 2


def _solve(factor: Array, right: Array, transposed: bool = False) -> Array:
    """The solution of factor @ solution = right, or of factor.T @ solution = right; right is (n,) or (n, m)."""
    from scipy.linalg import lapack

    solution, _ = lapack.dtrtrs(factor, right, lower=1, trans=int(transposed))
    return np.asarray(solution)
