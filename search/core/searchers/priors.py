"""Proposals from what experts would try, and from around the best so far.

Where a space has priors, a share of the proposals is drawn from them, a share from around the best trial so far, a
share from the searcher's model, and a share uniformly. The shares move from the first to the last as results come, as
in PriorBand (Mallik et al. 2023, arXiv:2306.12370): the priors lose to the best trials where these lie elsewhere, and
the uniform share bounds the cost of a wrong prior.

Everything here is a function of a seeded generator and of the trials that were told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from search.core.space import Parameter, Plain, Space
from trainables import Params

#: Standard deviation around a prior, as a share of the range; and the probability that a choice is the prior.
SPREAD = {"low": 0.5, "medium": 0.25, "high": 0.125}
CHOSEN = {"low": 0.4, "medium": 0.6, "high": 0.8}
#: The same around the best trial, and the probability that a parameter of it is changed at all (PriorBand's values).
NEAR, CHANGED = 0.25, 0.5
#: Share of proposals that is always uniform; number of told trials after which priors have half of the rest; number of
#: told trials after which the model has half of what is left to it and to the best trial.
UNIFORM, FADING, MODELLED = 0.15, 10, 20
#: How much a difference in log-density per parameter counts against the priors.
STRICT = 8

Source = Literal["prior", "best", "model", "uniform"]


def first_from_priors(space: Space, turns: int) -> int:
    """How many trials, from the first on, have the priors' own configuration: one for each of `turns` values."""
    return turns if any(p.has_prior for p in space.parameters) else 0


def prior_configuration(space: Space, rng: np.random.Generator) -> Params:
    """Each parameter at its prior; one without a prior is drawn uniformly."""
    return space.sample(lambda p: p.prior if p.has_prior else draw_uniform(p, rng))


def winner(
    space: Space, first: Sequence[Params], number: int, turn: Params, rng: np.random.Generator, before: int
) -> Params | None:  # fmt: skip
    """The configuration of an earlier search that trial `number` tries; None where it is none's turn.

    Where this space does not have their value, it is the prior, or drawn uniformly.

    Args:
        first: the configurations, in their order.
        turn: the balanced parameter with the value whose turn it is.
        before: the trials that come before them, which have the priors' own configuration.
    """
    if not before <= number < before + len(first):
        return None
    known = first[number - before]

    def value(p: Parameter) -> Plain:
        if p.name in known and p.allows(known[p.name]):
            return known[p.name]
        return p.prior if p.has_prior else draw_uniform(p, rng)

    return space.fix(turn).sample(value)


def choose_source(space: Space, ranked: Sequence[Params], rng: np.random.Generator) -> Source:
    """Where the next proposal comes from.

    Args:
        ranked: configurations of the told trials with a result, the best first.
    """
    told = len(ranked)
    from_prior = FADING / (FADING + told) * agreement(space, ranked)
    from_model = (1 - from_prior) * told / (told + MODELLED)
    shares = {
        "uniform": UNIFORM,
        "prior": (1 - UNIFORM) * from_prior,
        "model": (1 - UNIFORM) * from_model,
        "best": (1 - UNIFORM) * (1 - from_prior - from_model) if told else 0.0,
    }
    point = rng.random() * sum(shares.values())
    for source, share in shares.items():
        if point < share:
            return source  # type: ignore[return-value]
        point -= share
    return "prior"


def agreement(space: Space, ranked: Sequence[Params]) -> float:
    """Whether the best trials lie near the priors, from 0 to 1; 1 with fewer than six trials.

    The mean density of the best third under the priors, per parameter, is compared with that of the others. Where the
    priors say nothing of what is good, or the opposite, the value falls; it takes what the priors themselves drew into
    account on both sides.
    """
    if len(ranked) < 6:
        return 1.0
    third = len(ranked) // 3
    with_prior = [p for p in space.parameters if p.has_prior]
    good, rest = (
        np.mean([sum(math.log(density(p, c[p.name])) for p in with_prior if c.get(p.name) is not None) for c in part])
        for part in (ranked[:third], ranked[third:])
    )
    return float(min(1.0, math.exp((good - rest) / max(1, len(with_prior)) * STRICT)))


def density(parameter: Parameter, value: Plain) -> float:
    """The density of a value under its parameter's prior, relative to the uniform one."""
    if parameter.kind == "choice":
        others = len(parameter.choices) - 1
        chosen = CHOSEN[parameter.confidence] if others else 1.0
        return (chosen if value == parameter.prior else (1 - chosen) / max(1, others)) * len(parameter.choices)
    spread = SPREAD[parameter.confidence]
    away = (to_unit(parameter, value) - to_unit(parameter, parameter.prior)) / spread
    return math.exp(-(away**2) / 2) / (spread * math.sqrt(2 * math.pi)) + 1e-3


def draw_from_prior(space: Space, rng: np.random.Generator) -> Params:
    """A configuration near the priors; parameters without one are drawn uniformly."""

    def draw(p: Parameter) -> Plain:
        if not p.has_prior:
            return draw_uniform(p, rng)
        if p.kind != "choice":
            return draw_near(p, p.prior, SPREAD[p.confidence], rng)
        others = [value for value in p.choices if value != p.prior]
        if not others or rng.random() < CHOSEN[p.confidence]:
            return p.prior
        return others[rng.integers(len(others))]

    return space.sample(draw)


def draw_near_best(space: Space, best: Params, rng: np.random.Generator) -> Params:
    """The best configuration with about half of its parameters changed a little; at least one."""
    searched = [p for p in space.parameters if p.searched]
    changed = {p.name for p in searched if rng.random() < CHANGED} or {searched[rng.integers(len(searched))].name}

    def draw(p: Parameter) -> Plain:
        value = best.get(p.name)
        if value is None and not (p.kind == "choice" and None in p.choices):
            return draw_uniform(p, rng)  # it did not exist in the best
        if p.name not in changed:
            return value
        return draw_uniform(p, rng) if p.kind == "choice" else draw_near(p, value, NEAR, rng)

    return space.sample(draw)


def draw_uniform(parameter: Parameter, rng: np.random.Generator) -> Plain:
    """A value drawn uniformly from a parameter's range, on its own scale."""
    if parameter.kind == "choice":
        return parameter.choices[rng.integers(len(parameter.choices))]
    return from_unit(parameter, rng.random())


def draw_near(parameter: Parameter, value: Plain, spread: float, rng: np.random.Generator) -> Plain:
    """A value drawn from a normal distribution around another, truncated to the range."""
    centre = to_unit(parameter, value)
    while not 0 <= (drawn := rng.normal(centre, spread)) <= 1:
        pass
    return from_unit(parameter, drawn)


def to_unit(parameter: Parameter, value: Plain) -> float:
    """Where a number lies in its range, from 0 to 1, on its own scale."""
    assert isinstance(value, int | float)
    if parameter.kind == "loguniform":
        return math.log(value / parameter.low) / math.log(parameter.high / parameter.low)
    return (value - parameter.low) / (parameter.high - parameter.low)


def from_unit(parameter: Parameter, unit: float) -> int | float:
    """The number at a place from 0 to 1 in its range; whole numbers are rounded to their steps."""
    low, high = parameter.low, parameter.high
    if parameter.kind == "loguniform":
        return float(min(high, max(low, low * (high / low) ** unit)))
    if parameter.kind == "int":
        steps = int((high - low) // parameter.step)
        return int(low) + parameter.step * min(steps, int(unit * (steps + 1)))
    return float(low + unit * (high - low))
