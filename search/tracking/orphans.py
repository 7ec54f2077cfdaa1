"""Ends the MLflow runs of a driver that died."""

from __future__ import annotations

import time

from search.core.store import SearchFolder, Store
from search.tracking.client import find_runs, mlflow_client, quick_and_quiet


def end_orphans(store: Store, folder: SearchFolder, search_id: str) -> None:
    """Marks the running runs of a search as killed, unless another session resumed the search.

    A resume marks each run that continues as running again.
    """
    if store.is_local and not store.database.exists():  # the driver died before it created the database
        return
    recorded = _size(folder)
    with quick_and_quiet():
        client = mlflow_client(store)
        query = f"tags.`search.id` = '{search_id}' AND attributes.status = 'RUNNING'"
        for run in list(find_runs(client, query)):  # the loop changes which runs match
            if _size(folder) != recorded:  # another session resumed the search
                return
            client.set_tag(run.info.run_id, "outcome", "interrupted")
            client.set_terminated(run.info.run_id, "KILLED", int(time.time() * 1000))


def _size(folder: SearchFolder) -> int:
    return folder.journal.stat().st_size if folder.journal.exists() else 0
