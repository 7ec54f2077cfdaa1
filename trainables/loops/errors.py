"""Errors of a user's own training function or command."""

from __future__ import annotations

from typing import Any

from trainables.base.errors import SearchError


class TrainingError(SearchError):
    """A training function made a mistake; the message names it and what is expected.

    >>> raise search.TrainingError("the metric 'loss' is 'low': expected a number")
    Traceback (most recent call last):
    trainables.loops.errors.TrainingError: the metric 'loss' is 'low': expected a number
    """


class CommandFailed(Exception):
    """A command failed, possibly without a mistake of its own: the search tries again."""


class Stopped(BaseException):
    """The trial is over. `Trial.report` raises it to end the loop of another library; no code has to catch it."""


def shown(value: Any) -> str:
    """A value of the user in a message; of a long value only its type."""
    text = " ".join(repr(value).split())
    return text if len(text) < 60 else f"a {type(value).__name__}"
