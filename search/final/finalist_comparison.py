"""Compares finalists on test: the interval of each figure, and whether the best one is better by more than noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from search.core.events import Verdict
from search.core.readable import Grid, figure
from trainables import Objective

#: Confidence of intervals and of a winner.
LEVEL = 0.95
#: Number of resampled test sets. The standard error of a deviation from 2000 draws is 1.6 % of it: 1 / sqrt(2 x 2000).
DRAWS = 2000
#: Number of units that are weighted at once. It limits the memory to `DRAWS * CHUNK` floats, 33 MB.
CHUNK = 4096


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its `LEVEL` interval from `low` to `high`. `p`: two-sided p-value of "the mean is 0"."""

    mean: float
    low: float
    high: float
    p: float


def estimate(values: np.ndarray, sampling: float = 0.0) -> Estimate:
    """Estimates a mean with Student's t.

    A test metric varies with the seed of the training and with the test set. More seeds reduce only the first part:

        variance of the mean = variance over seeds / number of seeds + `sampling`
        degrees of freedom = (seeds - 1) * (variance of the mean / first term)^2   (Welch and Satterthwaite 1947)

    `scipy.stats.ttest_1samp` gives the same numbers if `sampling` is 0, and scipy's Welch test gives the same p-value.
    No function of scipy gives the interval of the sum. `test_finalists.py` compares both.

    Args:
        values: (seeds,); the interval of fewer than two values is NaN.
        sampling: variance of the mean over resampled test sets.
    """
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Estimate(mean, math.nan, math.nan, math.nan)
    from scipy import stats  # imported here: it takes most of a second, and most commands do not need it

    seeds = float(values.var(ddof=1)) / count
    total = seeds + sampling
    if total == 0:
        return Estimate(mean, mean, mean, float(mean == 0))
    freedom = (count - 1) * (total / seeds) ** 2 if seeds else math.inf
    t = stats.t(freedom) if math.isfinite(freedom) else stats.norm()
    error = math.sqrt(total)
    reach = float(t.ppf((1 + LEVEL) / 2)) * error
    return Estimate(mean, mean - reach, mean + reach, float(2 * t.sf(abs(mean) / error)))


def resample(
    units: list[np.ndarray], objective_of: Callable[[np.ndarray], np.ndarray], draws: int = DRAWS
) -> np.ndarray:
    """The objective of each model on the same `draws` resampled test sets: (models, draws).

    Each unit is drawn a Poisson(1) number of times: the bootstrap for sets too large to index (Chamandy et al. 2012).
    `scipy.stats.bootstrap` is no faster: 7.1 s against 6.7 s for 15 models of 20,000 units on a core. It would draw
    other test sets, so that comparisons in existing journals would change.

    Args:
        units: for each model the array (units, k) of `Bootstrapped.units`, with the units in the same order.
    """
    rng, count = np.random.default_rng(0), len(units[0])
    sums = np.zeros((len(units), draws, units[0].shape[1]))
    for start in range(0, count, CHUNK):
        part = slice(start, min(start + CHUNK, count))
        weights = rng.poisson(1.0, (draws, part.stop - start)).astype(np.float32)
        for model, values in enumerate(units):
            sums[model] += weights @ values[part].astype(np.float32)
    return objective_of(sums)


def compare_finalists(
    validation: dict[int, float], test: dict[int, np.ndarray], resampled: dict[int, np.ndarray] | None,
    objective: Objective,
) -> Verdict:  # fmt: skip
    """Compares finalists: which trial is best on test, and which others are worse by more than noise.

    Args:
        validation: the best validation objective of each trial.
        test: (seeds,) for each trial: the test objective with each seed. All trials have the same seeds.
        resampled: (seeds, draws) for each trial: the test objective on resampled test sets, the same sets for all
            trials. None: the intervals do not include the variation of the test set.

    Returns:
        `champion`: the number of the best trial. `winner`: whether it differs from every other trial by more than
        noise. `finalists`: a row for each trial with `trial`, `val`, `test`, `low` and `high`. The rows of the other
        trials also have `p`: the p-value of their paired difference to the champion, corrected by `holm`.
    """

    def spread(values: np.ndarray) -> float:
        return float(values.mean(0).var(ddof=1))

    order = sorted(test, key=lambda t: (objective.loss(float(test[t].mean())), objective.loss(validation[t])))
    champion, others = order[0], order[1:]
    p = {}
    for trial in others:
        sampling = spread(resampled[trial] - resampled[champion]) if resampled else 0.0
        p[trial] = estimate(test[trial] - test[champion], sampling).p
    corrected = holm(p)
    rows = []
    for trial in order:
        interval = estimate(test[trial], spread(resampled[trial]) if resampled else 0.0)
        row = {
            "trial": trial,
            "val": validation[trial],
            "test": interval.mean,
            "low": interval.low,
            "high": interval.high,
        }
        rows.append({**row, **({"p": corrected[trial]} if trial in corrected else {})})
    return {
        "champion": champion,
        "winner": bool(others) and all(value < 1 - LEVEL for value in corrected.values()),
        "resampled": resampled is not None,
        "seeds": len(test[champion]),
        "finalists": rows,
    }


def holm(p: dict[int, float]) -> dict[int, float]:
    """p-values corrected for the number of comparisons (Holm 1979).

    scipy has only the corrections of Benjamini, Hochberg and Yekutieli, which limit another error, the share of false
    discoveries. statsmodels has Holm's correction; it would be a new dependency for these five lines.
    """
    ordered, running, corrected = sorted(p, key=p.__getitem__), 0.0, {}
    for index, key in enumerate(ordered):
        running = max(running, min(1.0, (len(p) - index) * p[key]))
        corrected[key] = running
    return {key: corrected[key] for key in p}


def finalists_grid(decision: Verdict, metric: str) -> Grid:
    """A table with a row of figures for each finalist."""
    rows = [
        [
            str(row["trial"]), figure(row["val"]), figure(row["test"]),
            f"{figure(row['low'])} to {figure(row['high'])}", f"{row['p']:.3f}" if "p" in row else "",
        ]
        for row in decision["finalists"]
    ]  # fmt: skip
    return Grid(["trial", f"val_{metric}", f"test_{metric}", "95 % interval", "p"], rows)


def finalists_paragraph(decision: Verdict, objective: Objective) -> str:
    """A paragraph about a comparison of finalists."""
    rows, metric = decision["finalists"], objective.metric
    first, others = rows[0], rows[1:]
    noise = [str(row["trial"]) for row in others if not row["p"] < 1 - LEVEL]
    apart = [str(row["trial"]) for row in others if row["p"] < 1 - LEVEL]
    sentences = [
        f"Over {decision['seeds']} seeds, trial {first['trial']} has the best test_{metric}: {figure(first['test'])} "
        f"(95 % interval {figure(first['low'])} to {figure(first['high'])})."
    ]
    if decision["winner"]:
        sentences.append("It is better than every other finalist by more than chance explains.")
    elif noise:
        than = f" It is better than {', '.join(apart)}." if apart else ""
        sentences.append(f"Its difference to {', '.join(noise)} is within noise: this does not tell them apart.{than}")
    if not decision["resampled"]:
        sentences.append("The intervals are of the seeds alone: this task does not say how its test set varies.")
    gaps = [objective.loss(row["test"]) - objective.loss(row["val"]) for row in rows]
    mean = sum(gaps) / len(gaps)
    sentences.append(
        f"On validation, where they were chosen, the finalists looked {abs(mean):.2g} "
        f"{'better' if mean > 0 else 'worse'} on average than they are on test."
    )
    return " ".join(sentences)
