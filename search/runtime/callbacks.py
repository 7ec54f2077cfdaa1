"""Calls the callbacks of users and of installed packages with the events of a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from search.core.events import Event, Notice
from search.core.registry import CALLBACKS
from search.core.state import SearchState
from search.runtime.search import Listener


def callback_listeners(callbacks: Sequence[Listener], say: Callable[[str], None]) -> Iterator[Listener]:
    """A listener for each callback: those of the entry points `search.callbacks`, then the given ones.

    If a callback raises, `say` gets a line with its name and the error, and the callback is not called again. The
    search, which may have run for hours, continues.
    """
    for name in CALLBACKS.names():
        yield _guarded(CALLBACKS.get(name), f"callback {name}", say)
    for callback in callbacks:
        yield _guarded(callback, f"callback {getattr(callback, '__name__', callback)}", say)


def _guarded(callback: Any, name: str, say: Callable[[str], None]) -> Listener:
    failed = False

    def listen(event: Event | Notice, state: SearchState) -> None:
        nonlocal failed
        if failed:
            return
        try:
            callback(event, state)
        except Exception as error:
            failed = True
            say(f"{name}: {type(error).__name__}: {error}; it is not called again")

    return listen
