"""Makes the MLflow client of a store. MLflow's global settings stay as they are: a script may use MLflow too."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import lock_descriptor

from search.core.store import Store
from trainables import InputError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

#: Settings that MLflow reads only from the environment. Requests give up soon: the journal keeps the events until the
#: server answers.
_PATIENCE = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
#: What SQLite says of a file that it cannot read.
_DAMAGE = re.compile("file is not a database|database disk image is malformed")
_lock = threading.Lock()
_users = 0
_ours: list[str] = []


def mlflow_client(store: Store) -> MlflowClient:
    """The client of the tracking server, or of the SQLite file of the store, which is created if it is missing.

    The file uses write-ahead logging: readers never block the writer. For a read-only store the client opens a copy of
    the file.

    Raises:
        InputError: the file is no SQLite database, or only a part of one.
    """
    from mlflow.tracking import MlflowClient

    uri = store.tracking_uri
    if not store.is_local:
        return MlflowClient(uri, uri)
    if store.database.exists() and not store.is_writable:
        store = _copied(store)
        uri = store.tracking_uri
    store.root.mkdir(parents=True, exist_ok=True)
    try:
        return _opened(store, uri)
    except Exception as error:
        raise damage_of(store, error) or error from error


def _opened(store: Store, uri: str) -> MlflowClient:
    """The client of the SQLite file; makes the tables that are missing."""
    from mlflow.tracking import MlflowClient
    from mlflow.utils.logging_utils import suppress_logs_in_thread

    # MLflow creates its tables by migrations, which break when two processes start them at once.
    with (store.root / "mlflow.lock").open("w") as lock, suppress_logs_in_thread():
        lock_descriptor(lock.fileno())
        with sqlite3.connect(store.database, timeout=60) as database:
            database.execute("PRAGMA journal_mode=WAL")
        database.close()
        # MLflow sets no busy timeout; SQLAlchemy passes the query of the URI to sqlite3.connect.
        uri += f"{'&' if '?' in uri else '?'}timeout=60"
        _make_tables(uri, store)
        client = MlflowClient(uri, uri)
        client.search_experiments(max_results=1)
    return client


def damage_of(store: Store, error: Exception) -> InputError | None:
    """The error for a person if SQLite cannot read the store's file; None for any other error, such as a lock.

    MLflow passes on only the text of SQLite's error.
    """
    if not store.is_local or not (sign := _DAMAGE.search(str(error))):
        return None
    return InputError(
        f"{store.database}: is damaged ({sign[0]}); move {store.database.name}* in {store.root} away: the journals "
        "have everything, and `python -m search resume NAME` sends a search to a new file"
    )


@cache
def _copied(store: Store) -> Store:
    """A temporary store with a copy of the database: SQLite and MLflow write to every database that they open.

    The copy is deleted when this process ends.
    """
    folder = tempfile.mkdtemp(prefix="search-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = Store(Path(folder))
    for suffix in ("", "-wal"):  # the newest rows may be only in the log
        if (file := Path(f"{store.database}{suffix}")).exists():
            shutil.copyfile(file, f"{copy.database}{suffix}")
    return copy


def _make_tables(uri: str, store: Store) -> None:
    """Creates the tables of MLflow that are missing.

    MLflow checks the tables of an address once and then keeps its connections. In a notebook the file may have been
    deleted or replaced since, so the connections are closed first.
    """
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

    for kind in (Tracking, Registry):
        kind._get_or_create_engine(uri).dispose()
    Tracking(uri, store.artifacts.as_uri())


def every_page(search: Callable[..., Any], *arguments: Any, **more: Any) -> Iterator[Any]:
    """The items of all pages of a search of `MlflowClient`, such as `client.search_runs`."""
    token = None
    while True:
        page = search(*arguments, **more, page_token=token)
        yield from page
        if not (token := page.token):
            return


def find_runs(client: MlflowClient, query: str, *view: int) -> Iterator[Run]:
    """The runs of all experiments that match a query.

    Args:
        view: a value of MLflow's `ViewType`; by default deleted runs are left out.
    """
    if experiments := [experiment.experiment_id for experiment in every_page(client.search_experiments)]:
        yield from every_page(client.search_runs, experiments, query, *view)


@contextlib.contextmanager
def quick_and_quiet() -> Iterator[None]:
    """In the block, MLflow gives up soon if a server does not answer, and logs nothing from this thread.

    Variables that the user set stay. The others are removed when the last block ends that needs them.
    """
    from mlflow.utils.logging_utils import suppress_logs_in_thread

    global _users
    with _lock:
        if _users == 0:
            _ours[:] = [name for name in _PATIENCE if name not in os.environ]
            os.environ.update({name: _PATIENCE[name] for name in _ours})
        _users += 1
    try:
        with suppress_logs_in_thread():
            yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                for name in _ours:
                    os.environ.pop(name, None)
