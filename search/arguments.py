"""Checks the arguments of the functions that `import search` offers, before anything starts."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from trainables import InputError
from trainables.base.errors import one_line
from trainables.base.values import suggestion

P = ParamSpec("P")
R = TypeVar("R")


def names_unknown_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which raises InputError for an unknown keyword, with the most similar argument."""
    known = [*inspect.signature(function).parameters]

    @wraps(function)
    def checked(*given: P.args, **named: P.kwargs) -> R:
        for key in [key for key in named if key not in known]:
            raise InputError(f"{key}={shown(named[key])}: unknown argument{_instead(key, named[key], known)}")
        return function(*given, **named)

    return checked


def _instead(key: str, value: object, known: Sequence[str]) -> str:
    """The argument that a person probably meant, as the end of a message."""
    from search.core.settings import Resources, SearchSection

    for section, fields in (("settings", SearchSection.model_fields), ("resources", Resources.model_fields)):
        if key in fields and section in known:
            return f"; give {section}={{{key!r}: {shown(value)}}}"
    return suggestion(key, known) or f"; there are {', '.join(known)}"


def mapping(value: Any, place: str, example: str) -> Mapping[str, Any]:
    """The value; an empty mapping for None. Raises InputError for any other type than a mapping.

    Args:
        example: a mapping that `place` takes, for the message.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{place}={shown(value)}: expected a mapping, such as {example}")
    return value


def whole(value: Any, place: str, least: int) -> int:
    """The whole number; raises InputError for another type (true and false too), or for a number below `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise InputError(f"{place}={shown(value)}: expected a whole number >= {least}")
    return number


def check_callbacks(callbacks: Any) -> None:
    """Raises InputError if the callbacks are no list of functions."""
    if callable(callbacks):
        raise InputError(f"callbacks={shown(callbacks)}: expected a list of functions: callbacks=[...]")
    if isinstance(callbacks, str) or not isinstance(callbacks, Sequence):
        raise InputError(f"callbacks={shown(callbacks)}: expected a list of functions `callback(event, state)`")
    for callback in callbacks:
        if not callable(callback):
            raise InputError(f"callbacks: {shown(callback)}: expected a function `callback(event, state)`")


def shown(value: object) -> str:
    """A value in a message, cut to 100 characters."""
    try:
        return one_line(repr(value), 100)
    except Exception:  # a whole number with more digits than Python prints, an object with a broken `__repr__`
        return f"a {type(value).__name__}"
