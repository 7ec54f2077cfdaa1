"""The functions that describe a hyperparameter of a space in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.core.space import check_spec
from trainables import plain

When = Mapping[str, Any] | str | Sequence[Mapping[str, Any] | str]
#: The function of a spec, where its name differs.
_FUNCTIONS = {"int": "integer"}


def uniform(
    low: float, high: float, *, step: float | None = None, prior: float | None = None, when: When | None = None
) -> dict[str, Any]:
    """A number between two bounds. Each number is equally likely.

    Args:
        step: the distance of two values; it divides the range. By default every number is possible.
        prior: the value that you would try first.
        when: the condition under which the hyperparameter exists. Values of others: `{"optimizer": "sgd"}`. An
            expression: `"layers > 1"`. A list holds if each of its conditions holds.

    >>> uniform(0, 0.5)
    {'uniform': [0, 0.5]}
    """
    return _spec({"uniform": [low, high], **({"step": step} if step is not None else {})}, prior, when)


def loguniform(low: float, high: float, *, prior: float | None = None, when: When | None = None) -> dict[str, Any]:
    """A number between two bounds. Each order of magnitude is equally likely. `prior` and `when` are as of `uniform`.

    The values are no whole numbers: `loguniform(4, 128)` gives 22.6, for example. Use `integer` for a width or a number
    of layers: `integer(4, 128, log=True)`.

    >>> loguniform(1e-4, 1e-1, prior=1e-3)
    {'loguniform': [0.0001, 0.1], 'prior': 0.001}
    """
    return _spec({"loguniform": [low, high]}, prior, when)


def integer(
    low: int, high: int, *, step: int = 1, log: bool = False, prior: int | None = None, when: When | None = None
) -> dict[str, Any]:
    """A whole number from `low` to `high`, both included. `prior` and `when` are as of `uniform`.

    Args:
        step: the distance of two values; it divides the range.
        log: whether each order of magnitude is equally likely, instead of each number.

    >>> integer(16, 64, step=16)
    {'int': [16, 64], 'step': 16}
    >>> integer(8, 1024, log=True)
    {'int': [8, 1024], 'log': True}
    """
    own = {**({"step": step} if step != 1 else {}), **({"log": True} if log else {})}
    return _spec({"int": [low, high], **own}, prior, when)


def choice(
    values: Sequence[Any], *, ordered: bool | None = None, prior: Any = None, when: When | None = None
) -> dict[str, Any]:
    """One of some plain values, from a list, a tuple, a range or an array. `prior` and `when` are as of `uniform`.

    Args:
        ordered: whether the values have an order, so that neighbours are expected to have similar results. By default
            numbers have the order of their size, and other values have no order.

    >>> choice(["sgd", "adamw"])
    {'choice': ['sgd', 'adamw']}
    >>> choice(["small", "medium", "large"], ordered=True)
    {'choice': ['small', 'medium', 'large'], 'ordered': True}
    """
    return _spec({"choice": values, **({} if ordered is None else {"ordered": ordered})}, prior, when)


def _spec(spec: dict[str, Any], prior: Any, when: When | None) -> dict[str, Any]:
    given = spec | ({"prior": prior} if prior is not None else {}) | ({"when": when} if when else {})
    checked = {key: plain(value, key) for key, value in given.items()}
    check_spec(checked, f"search.{_FUNCTIONS.get(next(iter(spec)), next(iter(spec)))}")
    return checked
