"""The outcome of a command that ran, resumed or retrained a search."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from search.core.config import SearchConfig
from search.core.events import Event
from search.core.record import SearchRecord
from search.core.state import SearchState
from search.core.store import SearchFolder, Store
from trainables import Task

if TYPE_CHECKING:
    from search.runtime.search import Stop


@dataclass(frozen=True)
class SearchOutcome:
    """How a command left a search.

    Attributes:
        state, events: of the journal. `state.status` is `finished`, `interrupted` or `failed`.
        stopping: the reason for a stop before the last trial; None without a stop.
        trained: whether a session ran; False if the search was already finished.
        note: a line on a search that was already finished; else empty.
        continue_with: the command that continues an interrupted search, such as `resume mine`.
        registered: a sentence for each model that was registered.
        undelivered: the number of events that MLflow lacks. A later `resume` sends them.
        pages: the addresses of the search in MLflow's page.
    """

    store: Store
    folder: SearchFolder
    config: SearchConfig
    record: SearchRecord
    task: Task
    state: SearchState
    events: Sequence[Event]
    continue_with: str
    stopping: Stop | None = None
    trained: bool = True
    note: str = ""
    registered: tuple[str, ...] = ()
    undelivered: int = 0
    pages: tuple[str, ...] = ()


def command_line(command: str, store: Store) -> str:
    """A command as a person types it: `python -m search resume mine`, with `--store` unless it is the default store."""
    default = store.root == Path("mlruns").resolve() or os.environ.get("SEARCH_STORE")
    return f"python -m search {command}" + ("" if default else f" --store {store.root}")
