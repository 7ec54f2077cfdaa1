"""MLflow's client for a store. It leaves MLflow's global settings alone: a script may use MLflow beside a search."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from search.core.store import Store

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

#: MLflow reads these from the environment alone. The journal is the queue that waits for a server, so a request need
#: not wait for minutes itself.
_PATIENCE = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_lock = threading.Lock()
_users = 0
_ours: list[str] = []


def mlflow_client(store: Store) -> MlflowClient:
    """A client of the store's tracking server, or of its sqlite file, which is made if it is missing.

    The file gets write-ahead logging, so that readers never block the writer.
    """
    from mlflow.tracking import MlflowClient
    from mlflow.utils.logging_utils import suppress_logs_in_thread

    uri = store.tracking_uri
    if not store.is_local:
        return MlflowClient(uri, uri)
    if store.database.exists() and not store.is_writable:
        store = _copied(store)
        uri = store.tracking_uri
    store.root.mkdir(parents=True, exist_ok=True)
    # MLflow's tables are made by migrations that break when two processes begin them at once.
    with (store.root / "mlflow.lock").open("w") as lock, suppress_logs_in_thread():
        fcntl.flock(lock, fcntl.LOCK_EX)
        with sqlite3.connect(store.database, timeout=60) as database:
            database.execute("PRAGMA journal_mode=WAL")
        database.close()
        # MLflow sets no busy timeout; the query of the URI is passed to sqlite3.connect.
        uri += f"{'&' if '?' in uri else '?'}timeout=60"
        _make_tables(uri, store)
        client = MlflowClient(uri, uri)
        client.search_experiments(max_results=1)
    return client


@cache
def _copied(store: Store) -> Store:
    """A store with a copy of the database of one that can only be read, as sqlite and MLflow write to what they open.
    The copy lives as long as this process."""
    folder = tempfile.mkdtemp(prefix="search-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = Store(Path(folder))
    for suffix in ("", "-wal"):  # the newest rows may be in the log alone
        if (file := Path(f"{store.database}{suffix}")).exists():
            shutil.copyfile(file, f"{copy.database}{suffix}")
    return copy


def _make_tables(uri: str, store: Store) -> None:
    """Makes MLflow's tables where they are missing.

    MLflow keeps connections to each address for the life of a process, and looks for the tables once. The file may have
    been deleted or replaced since, as in a notebook.
    """
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

    for kind in (Tracking, Registry):
        kind._get_or_create_engine(uri).dispose()
    Tracking(uri, store.artifacts.as_uri())


@contextlib.contextmanager
def quick_and_quiet() -> Iterator[None]:
    """Within, MLflow gives up soon on a server that does not answer, and logs nothing from this thread.

    A setting that the user made stays; the others are removed as the last user of them leaves.
    """
    from mlflow.utils.logging_utils import suppress_logs_in_thread

    global _users
    with _lock:
        if not _users:
            _ours[:] = [name for name in _PATIENCE if name not in os.environ]
            os.environ.update({name: _PATIENCE[name] for name in _ours})
        _users += 1
    try:
        with suppress_logs_in_thread():
            yield
    finally:
        with _lock:
            _users -= 1
            for name in _ours if not _users else ():
                os.environ.pop(name, None)
