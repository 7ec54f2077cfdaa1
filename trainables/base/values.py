"""Converts values of users into plain data, and checks them against allowed values."""

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

#: The most bits of a whole number, as in a float. Python does not even print a number of 5,000 digits.
MOST_BITS = 1023
Plain = str | int | float | bool | None


def plain(value: Any, place: str) -> Any:
    """Converts values of other libraries into plain Python data: `np.float64(0.1)` to 0.1, `Path("a")` to "a".

    NumPy and torch scalars become numbers, an enum its value; arrays, tuples, ranges and sets become lists. The order
    of a set differs from run to run, so its list is sorted.

    Args:
        place: the position of the value for messages, such as `space.lr`.

    Raises:
        InputError: the value has another type.
    """
    if isinstance(value, Enum):
        return plain(value.value, place)
    if value is None or isinstance(value, bool):
        return value
    kinds: tuple[tuple[type, Any], ...] = ((str, (str, PurePath)), (int, numbers.Integral), (float, numbers.Real))
    for kind, abstract in kinds:
        if isinstance(value, abstract):
            converted = kind(value)
            if isinstance(converted, int) and converted.bit_length() > MOST_BITS:
                raise InputError(f"{place}: {too_long(converted)}")
            return converted
    if isinstance(value, Mapping):
        return _plain_mapping(value, place)
    if isinstance(value, AnySet):
        return sorted((plain(item, place) for item in value), key=lambda item: (type(item).__name__, item))
    if isinstance(value, list | tuple | range):
        return [plain(item, place) for item in value]
    if hasattr(value, "tolist"):  # NumPy, torch, pandas
        return plain(value.tolist(), place)
    shown = repr(value)
    shown = shown if len(shown) < 60 and "\n" not in shown else f"a {type(value).__name__}"
    raise InputError(
        f"{place}: {shown}: allowed are text, numbers, true, false, null and lists of these; give a name, and select "
        "the object by this name in the training"
    )


def too_long(number: int) -> str:
    """The refusal of a whole number with more than `MOST_BITS` bits."""
    return f"a whole number of {number.bit_length()} bits: allowed are up to {MOST_BITS}, as in a float"


def _plain_mapping(value: Mapping[Any, Any], place: str) -> dict[str, Any]:
    """The mapping with texts as keys; raises InputError if two keys have the same text, such as 1 and `"1"`."""
    mapping: dict[str, Any] = {}
    for key, item in value.items():
        name = str(plain(key, place))
        if name in mapping:
            raise InputError(f"{place}.{name}: given twice, as two keys of the same text; remove one of them")
        mapping[name] = plain(item, f"{place}.{key}")
    return mapping


@dataclass(frozen=True)
class Numbers:
    """An interval of numbers that a hyperparameter can take, by default [0, infinity).

    Attributes:
        whole: whether only whole numbers are allowed.
        above, below: whether `low` or `high` itself is excluded.
        null: whether null is allowed too.
        words: texts that are allowed too, such as `all`.

    >>> print(Numbers(1, whole=True))
    a whole number >= 1
    """

    low: float = 0.0
    high: float = math.inf
    whole: bool = False
    above: bool = False
    below: bool = False
    null: bool = False
    words: tuple[str, ...] = ()

    def __contains__(self, value: object) -> bool:
        if value is None:
            return self.null
        if isinstance(value, str):
            return value in self.words
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        high_enough = value > self.low if self.above else value >= self.low
        low_enough = value < self.high if self.below else value <= self.high
        return high_enough and low_enough

    def __str__(self) -> str:
        bounds = [f"{'>' if self.above else '>='} {self.low:g}"]
        if self.high < math.inf:
            bounds.append(f"{'<' if self.below else '<='} {self.high:g}")
        others = "".join(f", or {word}" for word in (*self.words, *["null"] * self.null))
        return f"a {'whole ' if self.whole else ''}number {' and '.join(bounds)}{others}"


#: The allowed values by hyperparameter: a list of values, or a range of numbers.
Allowed = Mapping[str, tuple[Plain, ...] | Numbers]
COUNT, SHARE = Numbers(1, whole=True), Numbers(0, 1)
BELOW_ONE = Numbers(0, 1, below=True)
SWITCH: tuple[Plain, ...] = (True, False)


def refusal(value: Plain, allowed: tuple[Plain, ...] | Numbers) -> str | None:
    """Names the allowed values, such as `allowed are sgd, adam; did you mean 'adam'?`; None if `value` is allowed."""
    if isinstance(allowed, Numbers):
        return None if value in allowed else f"expected {allowed}"
    if any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in allowed):
        return None
    near = suggestion(value, [text for text in allowed if isinstance(text, str)]) if isinstance(value, str) else ""
    return f"allowed are {', '.join(map(_as_yaml, allowed))}{near}"


def _as_yaml(value: Plain) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_params(allowed: Allowed, params: Mapping[str, Any]) -> None:
    """Checks a configuration. A missing hyperparameter passes, and so does None: its `when` does not hold.

    Raises:
        InputError: a value is not allowed. The message names the hyperparameter, the value and the allowed values.
    """
    for name, values in allowed.items():
        if params.get(name) is not None:
            check_value(name, params[name], values)


def check_value(name: str, value: Any, allowed: tuple[Plain, ...] | Numbers) -> None:
    """Raises InputError if a hyperparameter cannot have this value; None is checked like any other value."""
    if why := refusal(value, allowed):
        raise InputError(f"{name}: {value!r}: {why}")


def suggestion(word: str, words: Iterable[str]) -> str:
    """`; did you mean 'X'?` for the most similar of `words`; empty if none is similar.

    A word that begins with the other or is a part of it comes first: `grace` means `grace_period`, not `brackets`.
    """
    words = [known for known in words if known]
    pairs = [(known, *sorted((word, known), key=len)) for known in words]
    related = [
        known for known, short, long in pairs
        if len(short) > 1 and (long.startswith(short) or short in long.split("_"))
    ]  # fmt: skip
    close = difflib.get_close_matches(word, related or words, 1, 0.0 if related else 0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
