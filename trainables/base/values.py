"""Values that come from outside: how they become plain data, and which of them a task's code can take."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from collections.abc import Set as AnySet
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

from trainables.base.errors import InputError

Plain = str | int | float | bool | None


def plain(value: Any, place: str) -> Any:
    """Makes plain Python data of what a user's libraries hold: `np.float64(0.1)` becomes 0.1, `Path("a")` becomes "a".

    NumPy and torch scalars become numbers, an enum its value; arrays, tuples, ranges and sets become lists. A set has
    no order, which differs from run to run, so its list is sorted.

    Args:
        place: what a message names, such as `space.lr`.

    Raises:
        InputError: the value is something else; the message names its place.
    """
    if isinstance(value, Enum):
        return plain(value.value, place)
    if value is None or isinstance(value, bool):
        return value
    kinds: tuple[tuple[type, Any], ...] = ((str, (str, PurePath)), (int, numbers.Integral), (float, numbers.Real))
    for kind, abstract in kinds:
        if isinstance(value, abstract):
            return kind(value)
    if isinstance(value, Mapping):
        return {str(plain(key, place)): plain(one, f"{place}.{key}") for key, one in value.items()}
    if isinstance(value, AnySet):
        return sorted((plain(one, place) for one in value), key=lambda one: (type(one).__name__, one))
    if isinstance(value, list | tuple | range):
        return [plain(one, place) for one in value]
    if hasattr(value, "tolist"):  # NumPy, torch, pandas
        return plain(value.tolist(), place)
    shown = repr(value)
    shown = shown if len(shown) < 60 and "\n" not in shown else f"a {type(value).__name__}"
    raise InputError(
        f"{place}: {shown}: allowed are text, numbers, true, false, null and lists of these; give a name, and choose "
        "by it in the training"
    )


@dataclass(frozen=True)
class Numbers:
    """The numbers from `low` to `high` that a hyperparameter can take, by default those >= 0.

    Attributes:
        above, below: whether `low` or `high` itself is refused.
        null: whether null is allowed too.

    >>> print(Numbers(1, whole=True))
    a whole number >= 1
    """

    low: float = 0.0
    high: float = math.inf
    whole: bool = False
    above: bool = False
    below: bool = False
    null: bool = False

    def __contains__(self, value: object) -> bool:
        if value is None:
            return self.null
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        high_enough = value > self.low if self.above else value >= self.low
        low_enough = value < self.high if self.below else value <= self.high
        return high_enough and low_enough

    def __str__(self) -> str:
        bounds = [f"{'>' if self.above else '>='} {self.low:g}"]
        if self.high < math.inf:
            bounds.append(f"{'<' if self.below else '<='} {self.high:g}")
        return f"a {'whole ' if self.whole else ''}number {' and '.join(bounds)}{', or null' if self.null else ''}"


#: What hyperparameters can be, by name: one of some values, or a number of a range.
Allowed = Mapping[str, tuple[Plain, ...] | Numbers]
COUNT, SHARE = Numbers(1, whole=True), Numbers(0, 1)
BELOW_ONE = Numbers(0, 1, below=True)
SWITCH: tuple[Plain, ...] = (True, False)


def refusal(value: Plain, allowed: tuple[Plain, ...] | Numbers) -> str | None:
    """What is allowed in the place of a value, such as `allowed are sgd, adam; did you mean 'adam'?`; None if it is."""
    if isinstance(allowed, Numbers):
        return None if value in allowed else f"expected {allowed}"
    if any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
        return None
    shown = ["null" if one is None else str(one).lower() if isinstance(one, bool) else str(one) for one in allowed]
    near = suggestion(value, [one for one in allowed if isinstance(one, str)]) if isinstance(value, str) else ""
    return f"allowed are {', '.join(shown)}{near}"


def check_params(allowed: Allowed, params: Mapping[str, Any]) -> None:
    """Checks a configuration; a hyperparameter that it lacks, or that is None as its `when` does not hold, passes.

    Raises:
        InputError: naming the hyperparameter, its value and what is allowed.
    """
    for name, values in allowed.items():
        if params.get(name) is not None:
            check_value(name, params[name], values)


def check_value(name: str, value: Any, allowed: tuple[Plain, ...] | Numbers) -> None:
    """Raises InputError where a hyperparameter cannot have this value; None counts like any other."""
    if why := refusal(value, allowed):
        raise InputError(f"{name}: {value!r}: {why}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'X'?` for the known word that is most like this one; empty where none is."""
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""
