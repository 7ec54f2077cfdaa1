"""The interface between the library, which never prints, and a program that shows a search to a person."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.runtime.search import Search

#: `progress(done, total, text)`: `done` of `total` steps of the work that `text` names are done. A `total` of 1
#: names work without steps that can be counted.
Progress = Callable[[int, int, str], None]


class Observer:
    """Receives what a person may want to see of a search.

    The methods of this class do nothing, so that `search.Observer()` is the silent observer. An observer of your own
    overrides the methods that it needs. `search.live.observer.ConsoleObserver` prints.

    >>> class Lines(search.Observer):
    ...     def __init__(self):
    ...         self.lines = []
    ...     def say(self, line):
    ...         self.lines.append(line)
    """

    def say(self, line: str) -> None:
        """Shows a line: a decision, a warning, a file that was written. The line may hold text of the user's data."""

    def progress(self, text: str) -> AbstractContextManager[Progress]:
        """Shows the progress of the work that `text` names, such as reading the data, while the block runs."""
        return nullcontext(lambda done, total, text: None)

    def watch(self, search: Search, began: float) -> AbstractContextManager[None]:
        """Shows the trials of a running search while the block runs.

        Args:
            search: its state changes while the block runs; `search.listeners` receive each event.
            began: the start of the command, by `time.monotonic`.
        """
        return nullcontext()
