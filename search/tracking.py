"""Reads the journal and delivers it to MLflow; with `delivery.py` and `registry.py`, all that writes there.

Delivery runs in one thread behind the search, so a slow or absent tracking server holds no trial up.
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from search.config import SearchConfig
from search.journal import Event
from search.state import SearchState
from search.store import SearchFolder, Store
from trainables.files import replacing
from trainables.task import DataInfo, Objective

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from search.delivery import Delivery

#: Seconds that events are gathered before they are delivered together, at least; and at most, where delivering takes
#: so much of the processor's time that it would hold workers up: fewer requests take less.
LAG, LONGEST_LAG = 2.0, 10.0
#: The same at the start, unless a trial reports before: importing MLflow takes seconds that the first workers need.
FIRST_LAG = 15.0
#: Of a processor's time that delivering may take.
SHARE = 0.1


def mlflow_client(store: Store) -> MlflowClient:
    """A client of the store; a new sqlite file gets write-ahead logging, so that readers never block the writer."""
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
    store.root.mkdir(parents=True, exist_ok=True)
    # MLflow's tables are made by migrations that break when two processes begin them at once.
    with (store.root / "mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with sqlite3.connect(store.database, timeout=60) as database:
            database.execute("PRAGMA journal_mode=WAL")
        database.close()
        # MLflow passes no busy timeout of its own; the query of the URI goes to sqlite3.connect.
        uri = f"{store.tracking_uri}?timeout=60"
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        client = MlflowClient(uri, uri)
        client.search_experiments(max_results=1)
    return client


class Tracker:
    """Delivers one search's journal to MLflow from a thread of its own."""

    def __init__(
        self, store: Store, folder: SearchFolder, config: SearchConfig, description: dict[str, Any],
        info: DataInfo, objective: Objective, warn: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.store, self.folder, self.warn = store, folder, warn
        self._about = store, folder, config, description, info, objective
        self._delivery: Delivery | None = None
        self._queue: queue.Queue[tuple[int, Event] | None] = queue.Queue()
        self._done = folder.delivered_events()
        self._position = 0
        self._failing = False
        self._closing, self._giving_up = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._deliver_all, name="mlflow", daemon=True)

    @property
    def registered(self) -> list[str]:
        """What was done with the final models, a sentence each."""
        return self._delivery.registered if self._delivery else []

    def start(self, events: list[Event], state: SearchState) -> None:
        """Queues what an earlier session did not deliver and starts delivering."""
        self._state = state
        for event in events:
            self(event, state)
        self._thread.start()

    def __call__(self, event: Event, state: SearchState) -> None:
        """A listener of the search."""
        if "time" not in event:
            return
        self._position += 1
        if self._position > self._done:
            self._queue.put((self._position, event))

    def close(self, patience: float) -> int:
        """Waits until all is delivered, at most `patience` seconds without a server; returns what is left."""
        self._queue.put(None)
        self._closing.set()
        waited = 0.0
        while self._thread.is_alive() and waited < patience:
            self._thread.join(0.2)
            waited = waited + 0.2 if self._failing else 0.0
        self._giving_up.set()
        self._thread.join(3 * patience)  # an attempt that is under way may succeed: a model takes its time
        return self._position - self._done

    def _deliver_all(self) -> None:
        pause, last, quiet, lag = 0.5, False, FIRST_LAG, LAG
        delivery: Delivery | None = None
        while not last:
            batch, last = self._next_batch(quiet, lag)
            while batch and not self._giving_up.is_set():
                try:
                    if delivery is None:
                        from search.delivery import Delivery

                        delivery = self._delivery = Delivery(mlflow_client(self.store), *self._about, self._state)
                    begun = time.thread_time()
                    delivery.deliver(event for _, event in batch)
                    self._done, _ = batch[-1]
                    with replacing(self.folder.delivered) as file:
                        file.write(str(self._done).encode())
                    self._failing, pause = False, 0.5
                    quiet = lag = min(max(LAG, (time.thread_time() - begun) / SHARE), LONGEST_LAG)
                    break
                except Exception as error:
                    # Whatever it is (server down, disk full, locked database), training must not stop for it.
                    if not self._failing:
                        first = (str(error).strip() or type(error).__name__).split("\n")[0]
                        self.warn(f"MLflow cannot be written ({first}); kept in the journal, trying again")
                    self._failing = True
                    if self._closing.wait(pause):  # a server that is back should not be missed for a long pause
                        self._giving_up.wait(0.5)
                    pause = min(pause * 2, 15)

    def _next_batch(self, quiet: float, lag: float) -> tuple[list[tuple[int, Event]], bool]:
        """Waits for an event and then for more, for up to `quiet` and from an epoch's end for up to `lag`; and whether
        they are the last."""
        batch: list[tuple[int, Event]] = []
        item = self._queue.get()
        until = time.monotonic() + quiet
        while item is not None:
            batch.append(item)
            if item[1]["event"] not in ("session", "trial"):
                until = min(until, time.monotonic() + lag)
            try:
                item = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return batch, False
        return batch, True
