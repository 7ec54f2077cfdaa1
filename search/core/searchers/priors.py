"""Proposes configurations from the priors of experts, and near the best trial.

In a space with priors, shares of the proposals are drawn from the priors, near the best trial, by the searcher's model
and uniformly. With more results the share of the priors falls and the share of the model grows, as in PriorBand (Mallik
et al. 2023, arXiv:2306.12370). If the best trials are far from the priors, the share of the priors falls faster. The
uniform share limits the cost of wrong priors.

Every function depends only on its arguments, among them a seeded generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from search.core.space import Parameter, Plain, Space
from trainables import Params

#: By confidence: the standard deviation around the prior of an ordered value, as a share of its range, and the
#: probability that a choice without order has the value of its prior. They were not measured.
SPREAD = {"low": 0.5, "medium": 0.25, "high": 0.125}
CHOSEN = {"low": 0.4, "medium": 0.6, "high": 0.8}
#: Near the best trial: the standard deviation as a share of the range, and the probability that a parameter changes
#: (PriorBand's values).
NEAR, CHANGED = 0.25, 0.5
#: The share of proposals that is always uniform. It was not measured.
UNIFORM = 0.15
#: Results after which the priors have half of the other proposals. It was not measured.
FADING = 10
#: Results after which the model has half of the proposals that are neither uniform nor from the priors. It was not
#: measured.
MODELLED = 20
#: Factor of the difference in log-density for each parameter in `agreement`. It was not measured.
STRICT = 8
#: Fewest results for `agreement`: with 6 the best third has two trials.
FEWEST_RANKED = 6
#: Added to the density of a number, which would be 0 far from its prior, and its logarithm infinite.
LEAST_DENSITY = 1e-3

Source = Literal["prior", "best", "model", "uniform"]


def first_from_priors(space: Space, turns: int) -> int:
    """The number of first trials with the configuration of the priors: one for each of the `turns` balanced values."""
    return turns if any(p.has_prior for p in space.parameters) else 0


def prior_configuration(space: Space, rng: np.random.Generator) -> Params:
    """The configuration of the priors. Parameters without a prior are drawn uniformly."""
    return space.sample(lambda p: p.prior if p.has_prior else draw_uniform(p, rng))


def winner(
    space: Space, first: Sequence[Params], number: int, turn: Params, rng: np.random.Generator, before: int
) -> Params | None:  # fmt: skip
    """The configuration of an earlier search for trial `number`; None if the trial gets none of them.

    A value outside this space is replaced by the prior, or drawn uniformly.

    Args:
        first: the configurations of earlier searches, in the order of the trials.
        turn: the balanced parameter with its value for this trial.
        before: the number of trials before them, which have starting configurations or that of the priors.
    """
    if not before <= number < before + len(first):
        return None
    return complete(space.fix(turn), first[number - before], rng)


def complete(space: Space, given: Params, rng: np.random.Generator) -> Params:
    """A configuration with the given values. The prior, or a random value, replaces a value outside the space."""

    def value(p: Parameter) -> Plain:
        if p.name in given and p.allows(own := given[p.name]):
            return int(own) if p.kind == "int" and isinstance(own, float) else own
        return p.prior if p.has_prior else draw_uniform(p, rng)

    return space.sample(value)


def choose_source(space: Space, ranked: Sequence[Params], rng: np.random.Generator) -> Source:
    """Draws the source of the next proposal.

    The probabilities of the sources after n results are:

        p = agreement x FADING / (FADING + n)
        m = (1 - p) x n / (n + MODELLED)
        uniform = UNIFORM
        prior = (1 - UNIFORM) x p
        model = (1 - UNIFORM) x m
        best = (1 - UNIFORM) x (1 - p - m)

    Args:
        ranked: configurations of the trials with a result, the best first.
    """
    results = len(ranked)
    from_prior = FADING / (FADING + results) * agreement(space, ranked)
    from_model = (1 - from_prior) * results / (results + MODELLED)
    shares = {
        "uniform": UNIFORM,
        "prior": (1 - UNIFORM) * from_prior,
        "model": (1 - UNIFORM) * from_model,
        "best": (1 - UNIFORM) * (1 - from_prior - from_model) if results else 0.0,
    }
    point = rng.random() * sum(shares.values())
    for source, share in shares.items():
        if point < share:
            return source  # type: ignore[return-value]
        point -= share
    return "prior"


def agreement(space: Space, ranked: Sequence[Params]) -> float:
    """How near the best trials are to the priors: min(1, exp(STRICT x (good - rest) / parameters with a prior)).

    `good` is the mean log-density under the priors of the best third of the trials, `rest` that of the others. Trials
    drawn from the priors raise both. With fewer than `FEWEST_RANKED` trials the result is 1.
    """
    if len(ranked) < FEWEST_RANKED:
        return 1.0
    third = len(ranked) // 3
    with_prior = [p for p in space.parameters if p.has_prior]
    good, rest = (
        np.mean([sum(_log_density(p, c[p.name]) for p in with_prior if c.get(p.name) is not None) for c in part])
        for part in (ranked[:third], ranked[third:])
    )
    return float(min(1.0, math.exp((good - rest) / max(1, len(with_prior)) * STRICT)))


def density(parameter: Parameter, value: Plain) -> float:
    """The density of a value under the prior of its parameter, divided by the uniform density."""
    if not parameter.has_order:
        others = len(parameter.choices) - 1
        chosen = CHOSEN[parameter.confidence] if others else 1.0
        return (chosen if value == parameter.prior else (1 - chosen) / max(1, others)) * len(parameter.choices)
    spread = SPREAD[parameter.confidence]
    away = (to_unit(parameter, value) - to_unit(parameter, parameter.prior)) / spread
    return math.exp(-(away**2) / 2) / (spread * math.sqrt(2 * math.pi)) + LEAST_DENSITY


@lru_cache(maxsize=1 << 16)
def _log_density(parameter: Parameter, value: Plain) -> float:
    """Kept, because each proposal asks for those of all trials: 60 of 150 ms with 200 trials."""
    return math.log(density(parameter, value))


def draw_from_prior(space: Space, rng: np.random.Generator) -> Params:
    """A configuration drawn from the priors. Parameters without a prior are drawn uniformly."""

    def draw(p: Parameter) -> Plain:
        if not p.has_prior:
            return draw_uniform(p, rng)
        if p.has_order:
            return draw_near(p, p.prior, SPREAD[p.confidence], rng)
        others = [value for value in p.choices if value != p.prior]
        if not others or rng.random() < CHOSEN[p.confidence]:
            return p.prior
        return others[rng.integers(len(others))]

    return space.sample(draw)


def draw_near_best(space: Space, best: Params, rng: np.random.Generator) -> Params:
    """The best configuration with a share `CHANGED` of its parameters changed a little, and at least one parameter."""
    searched = [p for p in space.parameters if p.searched]
    changed = {p.name for p in searched if rng.random() < CHANGED} or {searched[rng.integers(len(searched))].name}

    def draw(p: Parameter) -> Plain:
        value = best.get(p.name)
        if value is None and not (p.kind == "choice" and None in p.choices):
            return draw_uniform(p, rng)  # it does not exist in the best configuration
        if p.name not in changed:
            return value
        return draw_near(p, value, NEAR, rng) if p.has_order else draw_uniform(p, rng)

    return space.sample(draw)


def draw_uniform(parameter: Parameter, rng: np.random.Generator) -> Plain:
    """A value drawn uniformly from the range of a parameter, on its scale."""
    if parameter.kind == "choice":
        return parameter.choices[rng.integers(len(parameter.choices))]
    return from_unit(parameter, rng.random())


def draw_near(parameter: Parameter, value: Plain, spread: float, rng: np.random.Generator) -> Plain:
    """An ordered value drawn from a normal distribution around `value`, truncated to the range.

    Args:
        spread: the standard deviation, as a share of the range.
    """
    centre = to_unit(parameter, value)
    while not 0 <= (drawn := rng.normal(centre, spread)) <= 1:
        pass
    return from_unit(parameter, drawn)


def to_unit(parameter: Parameter, value: Plain) -> float:
    """The position of an ordered value in the range of its parameter, from 0 to 1, on the scale of the parameter.

    A range of n values has n equal shares, and the position is the middle of the value's share. A value of an int on a
    log scale has the share from value - 0.5 to value + 0.5. A number outside the range, or between two values, has the
    position of the nearest value.

    Raises:
        ValueError: the value is a text that the parameter does not have.
    """
    if (levels := parameter.levels()) is not None:
        return (nearest(levels, value) + 0.5) / len(levels)
    assert isinstance(value, int | float)
    value = min(parameter.high, max(parameter.low, value))
    low, high = _bounds(parameter)
    return math.log(value / low) / math.log(high / low) if parameter.is_log else (value - low) / (high - low)


def from_unit(parameter: Parameter, unit: float) -> Plain:
    """The value at a position from 0 to 1 in the range; the reverse of `to_unit`."""
    if (levels := parameter.levels()) is not None:
        return levels[min(len(levels) - 1, int(unit * len(levels)))]
    low, high = _bounds(parameter)
    value = low * (high / low) ** unit if parameter.is_log else low + unit * (high - low)
    value = min(parameter.high, max(parameter.low, value))
    return round(value) if parameter.kind == "int" else float(value)


def snap(parameter: Parameter, units: np.ndarray) -> np.ndarray:
    """Positions (n,) moved to those of the nearest values: `to_unit` of `from_unit`."""
    if (levels := parameter.levels()) is not None:
        return (np.minimum(len(levels) - 1, (units * len(levels)).astype(int)) + 0.5) / len(levels)
    if parameter.kind != "int":
        return units
    low, high = _bounds(parameter)
    values = np.clip(np.round(low * (high / low) ** units), parameter.low, parameter.high)
    return np.asarray(np.log(values / low) / math.log(high / low))


def nearest(levels: Sequence[Plain], value: Plain) -> int:
    """The index of the value, or of the number nearest to it."""
    if not isinstance(value, int | float):
        return levels.index(value)
    if isinstance(levels, range):
        return min(len(levels) - 1, max(0, round((value - levels.start) / levels.step)))
    return min(range(len(levels)), key=lambda index: abs(levels[index] - value))  # type: ignore[operator]


def _bounds(parameter: Parameter) -> tuple[float, float]:
    half = 0.5 if parameter.kind == "int" else 0.0
    return parameter.low - half, parameter.high + half
