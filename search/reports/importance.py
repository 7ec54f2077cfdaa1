"""Which hyperparameters matter: functional analysis of variance, with intervals.

A forest of regression trees learns the rank of a trial from its configuration. The share of a hyperparameter p is

    Var over p (mean of the forest's rank over the other hyperparameters) / Var of the forest's rank

which is the main effect of Hutter et al. (2014, fANOVA). Both variances are over configurations that are drawn from the
space as a search draws them: a log-uniform range is uniform in the logarithm.

Why not Optuna's importances: its fANOVA integrates a log-uniform range uniformly, so nine tenths of the weight of
[1e-5, 1e-1] lie above 1e-2. In a test where log10 of lr explains half of the variance and x the other half, 150 trials
give 0.09 and 0.91 there, and 0.45 and 0.48 here. Its default, PED-ANOVA, asks another question: how the best tenth of
the trials differs from all trials. The best tenth of 18 trials has two trials.

Ranks are used instead of values, because one diverging loss would be most of the variance of the values.

A conditional hyperparameter exists in a part of the space. Its two variances are over that part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.core.searchers.encoding import Encoding
from search.core.searchers.priors import from_unit
from search.core.searchers.rank_model import normal_scores
from search.core.space import Parameter, Plain, Space
from search.core.state import Trial
from trainables import Objective

Array = np.ndarray

#: Number of resampled sets of trials, and of trees that are fitted to each set.
RESAMPLES, TREES = 40, 8
#: Fewest trials at a leaf: with 1, a tree learns the noise of each trial.
LEAF = 2
#: Number of values of a range, and of drawn configurations for each value.
VALUES, BACKGROUND = 12, 64
#: Fewest drawn configurations, and fewest trials, in which a conditional hyperparameter must exist.
FEWEST_DRAWN, FEWEST_TRIALS = 8, 4
#: Share of the resampled sets whose importance is within the interval.
LEVEL = 0.9


@dataclass(frozen=True)
class Importance:
    """The share (0 to 1) of the variance of the trials' ranks that one hyperparameter explains by itself.

    `low` and `high`: the interval that holds `LEVEL` of the shares of resampled trials. `trials`: number of trials in
    which the hyperparameter exists.
    """

    name: str
    share: float
    low: float
    high: float
    trials: int


@dataclass(frozen=True)
class _Probe:
    """Configurations that differ in one hyperparameter.

    Attributes:
        rows: features (values * background, d), grouped by value.
        there: (background,), whether the hyperparameter exists in each background configuration.
    """

    parameter: Parameter
    rows: Array
    there: Array


def importances(trials: Sequence[Trial], space: Space, objective: Objective) -> list[Importance]:
    """The importance of each searched hyperparameter, the largest first.

    Hyperparameters that exist in fewer than `FEWEST_TRIALS` trials are left out.

    Args:
        trials: each has a result.

    Raises:
        ValueError: there are too few trials, or all have the same result.
    """
    losses = np.array([objective.loss(t.best_value) for t in trials])
    if len(trials) < FEWEST_TRIALS:
        raise ValueError(f"{len(trials)} trials have a result; an importance needs {FEWEST_TRIALS}")
    if (losses == losses[0]).all():
        raise ValueError("all trials came to the same result")
    encoding = Encoding(space)
    rows = np.array([encoding.row(t.params) for t in trials])
    x, y = encoding.features(rows), normal_scores(losses)
    counts = (~np.isnan(rows)).sum(0)
    probes = [
        probe
        for parameter, count in zip(space.parameters, counts, strict=True)
        if parameter.searched and count >= FEWEST_TRIALS and (probe := _probe(encoding, parameter)) is not None
    ]
    shares = np.array(_resampled_shares(x, y, probes)).reshape(RESAMPLES, len(probes))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(shares, [tail, 1 - tail], axis=0)
    number = dict(zip((p.name for p in space.parameters), counts, strict=True))
    result = [
        Importance(probe.parameter.name, float(share), float(least), float(most), int(number[probe.parameter.name]))
        for probe, share, least, most in zip(probes, shares.mean(0), low, high, strict=True)
    ]
    return sorted(result, key=lambda importance: (-importance.share, importance.name))


def _probe(encoding: Encoding, parameter: Parameter) -> _Probe | None:
    """The configurations for one hyperparameter; None if it exists in fewer than `FEWEST_DRAWN` of them."""
    column = [p.name for p in encoding.space.parameters].index(parameter.name)
    rows = np.array(
        [encoding.draw(np.random.default_rng(0), BACKGROUND, {parameter.name: value}) for value in _values(parameter)]
    )
    there = ~np.isnan(rows[0, :, column])
    if there.sum() < FEWEST_DRAWN:
        return None
    return _Probe(parameter, encoding.features(rows.reshape(-1, rows.shape[2])), there)


def _values(parameter: Parameter) -> list[Plain]:
    """Equally likely values that represent the whole range of a hyperparameter."""
    if parameter.kind == "choice":
        return list(parameter.choices)
    middles = (np.arange(VALUES) + 0.5) / VALUES
    return [from_unit(parameter, float(unit)) for unit in middles]


def _resampled_shares(x: Array, y: Array, probes: Sequence[_Probe]) -> list[list[float]]:
    """The share of each probed hyperparameter (inner list), for each resampled set of trials (outer list)."""
    from sklearn.ensemble import RandomForestRegressor  # the import takes a second, and most commands need no forest

    rng = np.random.default_rng(0)
    everything = np.concatenate([probe.rows for probe in probes])
    ends = np.cumsum([len(probe.rows) for probe in probes])[:-1]
    shares = []
    for seed in range(RESAMPLES):
        drawn = rng.integers(len(y), size=len(y))
        # Each split considers 70 % of the features, so that the trees differ and a strong feature hides no other one.
        forest = RandomForestRegressor(
            TREES, bootstrap=False, min_samples_leaf=LEAF, max_features=0.7, random_state=seed
        ).fit(x[drawn], y[drawn])
        parts = np.split(forest.predict(everything), ends)
        shares.append([_share(part, probe) for part, probe in zip(parts, probes, strict=True)])
    return shares


def _share(predicted: Array, probe: _Probe) -> float:
    """Variance of the means over the background, divided by the variance of all predictions."""
    table = predicted.reshape(-1, len(probe.there))[:, probe.there]  # (values, background)
    total = float(table.var())
    return float(table.mean(1).var()) / total if total > 0 else 0.0
