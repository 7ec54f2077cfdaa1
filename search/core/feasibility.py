"""Limits on outcomes, such as `latency_ms: "<= 5"`: a trial beyond a limit is infeasible and cannot be the best.

The limits of `search.core.limits` are others: they end the trials of a search.

A limit is of one of two kinds. No training changes a figure of the configuration (`FIGURES`): a trial beyond its limit
ends as soon as the figure is known. Any other metric may come back within its limit: the trial goes on, and only its
epochs within all limits can be its best.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from search.core.pareto import no_metric
from search.core.readable import value as shown
from trainables import InputError

#: Figures of a configuration.
FIGURES = ("parameters", "latency_ms", "peak_memory_mib")
#: The figures that a worker can measure before the first epoch of a trial, if the task has a network.
BEFORE_TRAINING = ("parameters", "latency_ms")
#: `Limit.excess` is at most this; so is the excess of a value that is not finite.
MOST = 1e9
#: Losses of infeasible epochs are above this; see `ranked_last`.
BEHIND = 1e300
_FORM = re.compile(r"\s*(<=|>=)\s*(\S+)\s*")


@dataclass(frozen=True)
class OutcomeLimit:
    """The limit on a metric: an upper bound (`<=`) or a lower bound (`>=`)."""

    metric: str
    sign: Literal["<=", ">="]
    bound: float

    @property
    def is_figure(self) -> bool:
        """Whether the metric is a figure of the configuration, which no training changes."""
        return self.metric in FIGURES

    def value(self, metrics: Mapping[str, float]) -> float | None:
        """The limited value of an epoch: the validation metric of this name, or another metric; None without it."""
        return metrics.get(f"val_{self.metric}", metrics.get(self.metric))

    def excess(self, metrics: Mapping[str, float]) -> float | None:
        """How far an epoch is beyond the limit, as a share of the bound (of 1 if the bound is 0).

        Above 0 the epoch is infeasible. None without the metric; `MOST` if its value is not a number.
        """
        value = self.value(metrics)
        if value is None:
            return None
        excess = (value - self.bound if self.sign == "<=" else self.bound - value) / (abs(self.bound) or 1.0)
        return MOST if math.isnan(excess) else max(-MOST, min(excess, MOST))

    def reason(self, metrics: Mapping[str, float]) -> str:
        """Why an epoch is infeasible, such as `latency_ms 7.2 is over the limit 5`; empty if it is not."""
        excess = self.excess(metrics)
        if excess is None or excess <= 0:
            return ""
        side, value = "over" if self.sign == "<=" else "under", float(self.value(metrics) or 0.0)
        reached, bound = shown(value), shown(self.bound)
        if reached == bound:  # they differ in later digits
            reached, bound = repr(value), repr(self.bound)
        return f"{self.metric} {reached} is {side} the limit {bound}"


def parse_limit(metric: str, text: object) -> OutcomeLimit:
    """The limit that a text such as `<= 5` sets; raises ValueError."""
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    if match is not None:
        try:
            bound = float(match[2])
        except ValueError:
            bound = math.nan
        if math.isfinite(bound):
            return OutcomeLimit(metric, "<=" if match[1] == "<=" else ">=", bound)
    raise ValueError('expected <= or >= and a number, such as "<= 5" or ">= 0.9"')


def limits_of(texts: Mapping[str, str] | None) -> tuple[OutcomeLimit, ...]:
    """The limits of the setting `search.limits`."""
    return _limits_of(tuple((texts or {}).items()))


@cache
def _limits_of(texts: tuple[tuple[str, str], ...]) -> tuple[OutcomeLimit, ...]:
    return tuple(parse_limit(metric, text) for metric, text in texts)


def check_measured(limits: Iterable[OutcomeLimit], metrics: Mapping[str, float]) -> None:
    """Raises InputError if an epoch does not measure a limited metric."""
    for limit in limits:
        if limit.value(metrics) is None:
            raise InputError(f"search.limits: {no_metric(limit.metric, metrics)}")


def infeasible(limits: Iterable[OutcomeLimit], metrics: Mapping[str, float]) -> str:
    """Why an epoch is infeasible, limit by limit; empty if it is within all limits."""
    return "; ".join(filter(None, (limit.reason(metrics) for limit in limits)))


def infeasible_for_good(limits: Iterable[OutcomeLimit], epochs: Iterable[Mapping[str, float]]) -> str:
    """Why a trial with these epochs cannot become feasible: a figure of its configuration; empty if it can."""
    figures = [limit for limit in limits if limit.is_figure]
    return next(filter(None, (infeasible(figures, metrics) for metrics in epochs)), "") if figures else ""


def excess(limits: Iterable[OutcomeLimit], metrics: Mapping[str, float]) -> float:
    """How far an epoch is beyond its limits together: the sum of `OutcomeLimit.excess` above 0; 0 if it is feasible."""
    return sum(max(0.0, limit.excess(metrics) or 0.0) for limit in limits)


def ranked_last(limits: Sequence[OutcomeLimit], metrics: Mapping[str, float], loss: float) -> float:
    """The loss by which trials are compared at a rung.

    Feasible trials come first, in the order of their losses. The others follow, in the order of their excess.

    So a trial with a good loss outside of the limits does not push out a trial within them (Deb 2000).
    """
    beyond = excess(limits, metrics) if limits else 0.0
    return loss if not beyond else BEHIND * (1 + beyond / (1 + beyond))
