"""Axes for drawings: they map values to positions from 0 to 1 and have readable ticks.

The rows of one drawing have different units, so each row is scaled by itself. Trials that do not use a conditional
hyperparameter stand at a position below 0.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from search.core.readable import value as significant
from search.core.readable import visible
from search.core.space import Parameter, Plain
from search.core.state import Trial
from trainables import Objective

#: The position of trials that do not use the hyperparameter.
NOT_USED = -0.28
#: Most ticks on an axis, and on that of a small figure; most characters of a tick's label, and of a value in a list.
TICKS, FEW, LABEL, VALUE = 6, 4, 14, 40
#: Ratio of the largest loss to the smallest from which on an axis is logarithmic.
WIDE = 4.0
#: The width of a character of a label, and of the gap between two labels, in pixels.
CHARACTER, GAP = 6.3, 4
#: The length of an axis in pixels where it is shortest: in a row of the configurations on a phone of 400 pixels, and in
#: a small figure.
ROW_PIXELS, SMALL_PIXELS = 235, 165


def label(value: object, most: int = LABEL) -> str:
    """A value as text for plotly, which interprets HTML in labels. Long text is cut in its middle."""
    text = visible(significant(value)).replace("\n", r"\n").replace("\t", r"\t")
    if len(text) > most:
        text = text[: most - most // 2 - 1] + "…" + text[-(most // 2) :]
    return html.escape(text, quote=False)


def readable_ticks(ticks: Sequence[tuple[float, str]], pixels: float, thin: bool = False) -> list[tuple[float, str]]:
    """Ticks whose labels do not overlap.

    If they overlap on one line, every second label stands one line lower. If they overlap on two lines, too, labels are
    left out evenly; their ticks stay.

    Args:
        ticks: positions from 0 to 1, ascending, and labels.
        pixels: length of the axis from 0 to 1.
        thin: leave out labels before a second line is used: numbers between two numbers can be guessed.
    """

    def apart(labels: Sequence[tuple[float, str]]) -> bool:
        return all(
            (right - left) * pixels >= (_characters(first) + _characters(second)) / 2 * CHARACTER + GAP
            for (left, first), (right, second) in pairwise(labels)
        )

    def every(stride: int) -> list[tuple[float, str]]:
        return [(at, text if i % stride == 0 else "") for i, (at, text) in enumerate(ticks)]

    for stride in range(1, len(ticks) + 1):
        chosen = [tick for tick in every(stride) if tick[1]]
        if apart(chosen):
            return every(stride)
        if not thin and apart(chosen[::2]) and apart(chosen[1::2]):
            lower = {at for at, _ in chosen[1::2]}
            return [(at, f"<br>{text}" if text and at in lower else text) for at, text in every(stride)]
    return list(ticks)


def _characters(text: str) -> int:
    return len(html.unescape(text))


@dataclass(frozen=True)
class Axis:
    """One row of a drawing: its title, its ticks (position and label), and a function from a trial to its position.

    Positions are from 0 to 1; None: the trial has no value.
    """

    title: str
    ticks: tuple[tuple[float, str], ...]
    at: Callable[[Trial], float | None]
    #: Whether the labels are numbers, some of which may be left out.
    numeric: bool = True

    def place(self, trial: Trial) -> float:
        """The position of a trial; `NOT_USED` where it has no value."""
        found = self.at(trial)
        return NOT_USED if found is None else found

    def all_ticks(self, trials: Sequence[Trial], pixels: float = math.inf) -> list[tuple[float, str]]:
        """The ticks; with the tick `not used` if one of the trials has no value.

        Args:
            pixels: length of the axis from 0 to 1; the labels do not overlap on it.
        """
        missing = any(self.at(trial) is None for trial in trials)
        ticks = [*([(NOT_USED, "not used")] if missing else []), *self.ticks]
        return readable_ticks(ticks, pixels, self.numeric)


def value_axis(title: str, values: Callable[[Trial], float], trials: Sequence[Trial], objective: Objective) -> Axis:
    """The axis of an objective, over the values of the trials."""
    known = [values(trial) for trial in trials]
    low, high = min(known), max(known)
    log = wide(known, objective)
    scale = _scale(low, high, log)
    ticks = log_ticks(low, high) if log else linear_ticks(low, high)
    title = f"{title}, log" if log else title
    return Axis(title, _labelled(ticks, scale), lambda trial: scale(values(trial)))


def parameter_axis(parameter: Parameter, trials: Sequence[Trial], most: int = TICKS) -> Axis:
    """The axis of a hyperparameter: over its range, widened to the values of the trials, or over its choices.

    Args:
        most: number of ticks, at most; choices have twice as many.
    """
    title = label(parameter.name, VALUE)
    if parameter.kind in ("choice", "value"):
        return _choices_axis(parameter, title, most)
    used = [v for t in trials if (v := _number(parameter, t)) is not None]
    low, high = min([parameter.low, *used]), max([parameter.high, *used])
    log = parameter.is_log and low > 0
    scale = _scale(low, high, log)
    if parameter.kind == "int" and not log:
        step = int(parameter.step or 1)
        ticks: Sequence[float] = whole_ticks(int(parameter.low), int(parameter.high), step, most)
    else:
        ticks = log_ticks(low, high, most) if log else linear_ticks(low, high, most)

    def at(trial: Trial) -> float | None:
        value = _number(parameter, trial)
        return None if value is None else scale(value)

    return Axis(f"{title}, log" if log else title, _labelled(ticks, scale), at)


def _number(parameter: Parameter, trial: Trial) -> float | None:
    value = trial.params.get(parameter.name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not parameter.exists(trial.params):
        return None
    return float(value) if math.isfinite(value) else None


def _choices_axis(parameter: Parameter, title: str, most: int) -> Axis:
    choices = list(parameter.choices)
    last = max(1, len(choices) - 1)

    def at(trial: Trial) -> float | None:
        value: Plain = trial.params.get(parameter.name)
        if not parameter.exists(trial.params) or not parameter.allows(value):
            return None
        return _index(choices, value) / last

    every = math.ceil(len(choices) / (2 * most))
    ticks = tuple((i / last, label(choice)) for i, choice in enumerate(choices) if i % every == 0)
    return Axis(title, ticks, at, numeric=False)


def _index(choices: list[Plain], value: Plain) -> int:
    """The index of a value among the choices. True differs from 1."""
    return next(i for i, c in enumerate(choices) if c == value and isinstance(c, bool) == isinstance(value, bool))


def _scale(low: float, high: float, log: bool) -> Callable[[float], float]:
    """Maps values to positions: `low` to 0, `high` to 1; to 0.5 where both are equal."""
    if low == high:
        return lambda value: 0.5
    if log:
        return lambda value: math.log(value / low) / math.log(high / low)
    return lambda value: (value - low) / (high - low)


def _labelled(ticks: Sequence[float], scale: Callable[[float], float]) -> tuple[tuple[float, str], ...]:
    return tuple((scale(tick), label(tick)) for tick in ticks)


def wide(values: Sequence[float], objective: Objective) -> bool:
    """Whether a logarithmic axis shows the values better: the objective is minimized, and they span a wide range."""
    return objective.mode == "min" and bool(values) and min(values) > 0 and max(values) > WIDE * min(values)


def whole_ticks(low: int, high: int, step: int = 1, most: int = TICKS) -> list[int]:
    """At most `most` evenly spaced whole numbers of a range; each is a value of the range."""
    stride = max(1, math.ceil((high - low) // step / (most - 1)))
    return list(range(low, high + 1, stride * step))


def linear_ticks(low: float, high: float, most: int = TICKS) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`."""
    if low == high:
        return [low]
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [float(f"{i * step:.12g}") for i in range(first, last + 1)]
    return [min(high, max(low, tick)) for tick in ticks]


def log_ticks(low: float, high: float, most: int = TICKS) -> list[float]:
    """Powers of ten from `low` to `high`; with fewer than three also 2 and 5 times these; else the two ends."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / (most - 1)))
    powers = [float(f"1e{power}") for power in range(first, last + 1)]

    def inside(values: Sequence[float]) -> list[float]:
        return [v for v in values if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]

    ticks = inside(powers)
    if len(ticks) < 3:
        ticks = inside([float(f"{factor * power:.3g}") for power in powers for factor in (1, 2, 5)])
        every = max(1, math.ceil(len(ticks) / most))
    return ticks[::every] if len(ticks) >= 2 else [low, high]
