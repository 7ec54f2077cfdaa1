"""The searches of a store with their status and their best figures."""

from __future__ import annotations

import math
from dataclasses import dataclass

from search.core.journal import is_held
from search.core.replay import replay
from search.core.store import SearchFolder, Store
from search.housekeeping.sizes import tree_bytes
from trainables import InputError


@dataclass(frozen=True)
class ListedSearch:
    """A search of the store.

    Attributes:
        status: `running`, `paused` (by a request), `finished`, `failed`, `interrupted` (stopped or killed), or
            `damaged`.
        trials: the number of trials that began.
        metric: the name of the objective; empty for a damaged search.
        best: the best value of the objective on validation; NaN without a result.
        test: the objective of the final model on test; NaN if none was tested.
        created: the time of the start, in milliseconds since 1970.
        bytes: the size of its folder.
        damage: the reason why a damaged search cannot be read; else empty.
    """

    name: str
    task: str
    status: str
    trials: int
    metric: str
    best: float
    test: float
    created: int
    bytes: int
    damage: str = ""


def list_searches(store: Store) -> list[ListedSearch]:
    """The searches of the store, the newest first. A search that cannot be read has the status `damaged`."""
    found = [_listed(store, SearchFolder(store.root / "searches" / name)) for name in store.names()]
    return sorted(found, key=lambda search: -search.created)


def _listed(store: Store, folder: SearchFolder) -> ListedSearch:
    size = tree_bytes(folder.path)
    try:
        record = folder.read(store)
        state, _ = replay(folder)
    except InputError as error:
        created = int(folder.path.stat().st_mtime * 1000)
        return ListedSearch(folder.name, "", "damaged", 0, "", math.nan, math.nan, created, size, str(error))
    best = state.best()
    test = state.final.test if state.final else None
    status = "interrupted" if state.status == "searching" else state.status
    if is_held(folder.journal):
        status = "paused" if state.is_paused else "running"
    return ListedSearch(
        folder.name, record.task, status, len(state.trials), record.metric,
        math.nan if best is None else best.best_value, (test or {}).get(state.objective.metric, math.nan),
        record.created, size,
    )  # fmt: skip
