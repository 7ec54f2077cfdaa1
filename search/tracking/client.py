"""MLflow's client for a store."""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import shutil
import sqlite3
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from search.record.store import Store

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def mlflow_client(store: Store) -> MlflowClient:
    """A client of the store's tracking server, or of its sqlite file, which is made if it is missing.

    The file gets write-ahead logging, so that readers never block the writer.
    """
    import mlflow
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # The journal is the queue that waits for a server, so a request need not wait for minutes itself.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    if not store.is_local:
        mlflow.set_tracking_uri(store.tracking_uri)
        mlflow.set_registry_uri(store.tracking_uri)
        return MlflowClient(store.tracking_uri, store.tracking_uri)
    if store.database.exists() and not store.is_writable:
        store = _copied(store)
    store.root.mkdir(parents=True, exist_ok=True)
    # MLflow's tables are made by migrations that break when two processes begin them at once.
    with (store.root / "mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with sqlite3.connect(store.database, timeout=60) as database:
            database.execute("PRAGMA journal_mode=WAL")
        database.close()
        # MLflow sets no busy timeout; the query of the URI is passed to sqlite3.connect.
        uri = f"{store.tracking_uri}?timeout=60"
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        # MLflow leaves the address there, where a store would take it for a server's that the user named.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
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


def reading(store: Store) -> sqlite3.Connection:
    """A connection that only reads the store's database, on a read-only disk too."""
    there = store if store.is_writable else _copied(store)
    return sqlite3.connect(f"file:{quote(str(there.database))}?mode=ro", uri=True, timeout=60)
