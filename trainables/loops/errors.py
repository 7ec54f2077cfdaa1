"""How a training of somebody's own ends otherwise than well."""

from __future__ import annotations

from trainables.base.errors import SearchError


class TrainingError(SearchError):
    """A training function did what the search cannot go on with; the message says what, and what is expected.

    >>> raise search.TrainingError("the metric 'loss' is 'low': expected a number")
    Traceback (most recent call last):
    trainables.loops.errors.TrainingError: the metric 'loss' is 'low': expected a number
    """


class CommandFailed(Exception):
    """A command ended as it should not, which may not be its own mistake."""


class Stopped(BaseException):
    """The trial is over. `Trial.report` raises it to end a loop that is not the user's own; nothing has to catch it."""
