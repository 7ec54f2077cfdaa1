"""Delivers the journal of a running search to MLflow from a thread, so that a slow server delays no trial.

`events_to_runs.py` writes the events.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from search.core.config import SearchConfig
from search.core.events import Event, Notice
from search.core.locks import Lock
from search.core.record import SearchRecord
from search.core.replay import open_search, replay
from search.core.state import SearchState
from search.core.store import SearchFolder, Store
from search.tracking.client import damage_of, mlflow_client, quick_and_quiet
from trainables import DataInfo, Objective

if TYPE_CHECKING:
    from search.tracking.events_to_runs import Delivery

#: Events are gathered for LAG to LONGEST_LAG seconds and then delivered together. The time grows until deliveries take
#: at most `SHARE` of a processor: fewer, larger requests take less time.
LAG, LONGEST_LAG = 2.0, 10.0
#: Seconds before the first delivery, unless a trial reports earlier: importing MLflow slows down the starting workers.
FIRST_LAG = 15.0
#: Largest share of the time of a processor for the delivery.
SHARE = 0.1
#: The seconds that the end of a command waits for a tracking server that does not answer.
PATIENCE = 10.0


class Tracker:
    """Delivers the journal of one search to MLflow from a thread; a listener of the search."""

    def __init__(
        self, store: Store, folder: SearchFolder, config: SearchConfig, record: SearchRecord,
        info: DataInfo, objective: Objective, warn: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.store, self.folder, self.warn = store, folder, warn
        self._about = store, folder, config, record, info, objective, self._warn_once
        self._delivery: Delivery | None = None
        self._database: tuple[int, int] | None = None
        #: The events of the journal.
        self._events: list[Event] = []
        #: The number of events that MLflow has, which only the thread changes; and those of earlier sessions.
        self._done = self._earlier = 0
        self._warned: set[str] = set()
        #: A sentence for each final model that was registered.
        self.registered: list[str] = []
        #: The addresses of the search in MLflow's page; none before the first delivery.
        self.pages: list[str] = []
        self._failing = False
        self._news = threading.Event()
        self._closing, self._giving_up = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)

    def start(self, events: list[Event]) -> None:
        """Takes the events of earlier sessions and starts the thread, which delivers the events that MLflow lacks."""
        self._events += events
        self._earlier = len(events)
        self._thread.start()

    def __call__(self, event: Event | Notice, state: SearchState) -> None:
        """Takes an event of the journal. Notices are ignored, because the journal does not have them."""
        match event["event"]:
            case "stopping" | "stalled" | "hint" | "unclean" | "apart" | "damaged" | "progress":
                pass
            case _:
                self._events.append(event)
                self._news.set()

    def close(self, patience: float) -> int:
        """Waits until all events are delivered, or until the server has not answered for `patience` seconds.

        Returns:
            The number of events that MLflow lacks and that can be delivered later.
        """
        self._closing.set()
        self._news.set()
        waited = 0.0
        while self._thread.is_alive() and waited < patience:
            self._thread.join(0.2)
            waited = waited + 0.2 if self._failing else 0.0
        self._giving_up.set()
        self._thread.join(3 * patience)  # a running attempt may still succeed: uploading a model takes long
        return len(self._events) - self._done

    def _warn_once(self, message: str) -> None:
        """Gives each warning to the user once."""
        if message not in self._warned:
            self._warned.add(message)
            self.warn(message)

    def _run(self) -> None:
        if self._wait(FIRST_LAG, LAG):
            with quick_and_quiet():
                self._deliver_all()

    def _deliver_all(self) -> None:
        from search.tracking.runs import is_refusal, reason_of

        pause, lag, anew = 0.5, LAG, False
        while not self._giving_up.is_set():
            events, begun = self._events[:], time.thread_time()
            try:
                anew = self._attempt(events, anew)
            except Exception as raised:
                error = damage_of(self.store, raised) or raised
                self._delivery = None  # the next attempt asks MLflow how many events it has
                if is_refusal(error):
                    self._warn_once(
                        f"MLflow takes nothing of {self.folder.name} ({reason_of(error)}); it stands in the journal"
                    )
                    self._done = len(events)
                else:
                    # Whatever the error (server down, disk full, locked database), training goes on.
                    if not self._failing:
                        self.warn(f"MLflow cannot be written ({reason_of(error)}); kept in the journal, trying again")
                    self._failing = True
                    if self._closing.wait(pause):  # when the command ends, pauses are short
                        self._giving_up.wait(0.5)
                    pause = min(pause * 2, 15)
                    continue
            if not anew:
                self._failing, pause, self._done = False, 0.5, len(events)
                lag = min(max(LAG, (time.thread_time() - begun) / SHARE), LONGEST_LAG)
                if not self._wait(lag, lag):
                    return

    def _attempt(self, events: list[Event], anew: bool) -> bool:
        """Delivers the events that MLflow lacks, or all of them if `anew`.

        Returns:
            Whether all events have to be delivered again, because MLflow lost a run.
        """
        from search.tracking.events_to_runs import Delivery
        from search.tracking.runs import MissingRun

        database = _identity(self.store)
        if self._delivery is None or database != self._database:
            self._delivery, self._database = Delivery(mlflow_client(self.store), *self._about), _identity(self.store)
            self._delivery.registered, self.pages = self.registered, self._delivery.pages
        if anew:
            self._delivery.runs.delivered = 0
        try:
            self._delivery.deliver(events)
        except MissingRun:
            self._delivery = None
            return True
        return False

    def _wait(self, quiet: float, lag: float) -> bool:
        """Waits for an event, then gathers more for `quiet` seconds, or for `lag` seconds once a trial reported.

        Returns:
            Whether there are events that MLflow lacks.
        """
        while len(self._events) == self._done:
            if self._closing.is_set():
                return False
            self._news.wait()
            self._news.clear()
        until, seen = time.monotonic() + quiet, max(self._done, self._earlier)
        while not self._closing.is_set() and (left := until - time.monotonic()) > 0:
            new = self._events[seen:]
            seen += len(new)
            if any(event["event"] not in ("session", "trial") for event in new):
                until = min(until, time.monotonic() + lag)
            self._news.wait(left)
            self._news.clear()
        return True


def deliver_stored(store: Store, folder: SearchFolder, warn: Callable[[str], None]) -> int:
    """Sends the events that MLflow lacks of a search that no driver runs. Several processes may do so: one at a time.

    Returns:
        The number of events that MLflow still lacks because its server does not answer.
    """
    _, record, config = open_search(store, folder.name)
    with Lock(folder.path / "mlflow.lock", math.inf):
        state, events = replay(folder)
        digest = record.fingerprint
        source = f"imported from {record.imported}" if record.imported else f"study {folder.name}"
        tracker = Tracker(store, folder, config, record, DataInfo(source, digest, digest, {}), state.objective, warn)
        tracker.start(events)
        return tracker.close(PATIENCE)


def _identity(store: Store) -> tuple[int, int] | None:
    """The device and inode of the store's SQLite file; None if the store has no such file."""
    if not store.is_local or not store.database.exists():
        return None
    status = store.database.stat()
    return status.st_dev, status.st_ino
