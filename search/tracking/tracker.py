"""Delivers the journal of a running search to MLflow, in a thread of its own.

A slow or absent tracking server delays no trial. What an event becomes in MLflow is in `events_to_runs.py`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from search.config.load import SearchConfig
from search.record.events import Event, Notice
from search.record.state import SearchState
from search.record.store import SearchFolder, Store
from search.tracking.client import mlflow_client
from trainables import DataInfo, Objective
from trainables.base.files import replacing

if TYPE_CHECKING:
    from search.tracking.events_to_runs import Delivery

#: Seconds for which events are gathered and then delivered together: at least, and at most. The time grows where
#: delivery takes so much processor time that workers would wait; fewer requests take less.
LAG, LONGEST_LAG = 2.0, 10.0
#: Seconds before the first delivery, unless a trial reports earlier: importing MLflow takes time that workers need.
FIRST_LAG = 15.0
#: Share of a processor's time that delivery may take.
SHARE = 0.1


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
        """A sentence for each final model that was registered."""
        return self._delivery.registered if self._delivery else []

    @property
    def pages(self) -> list[str]:
        """The addresses of the search in MLflow's page; none before the first delivery."""
        return self._delivery.pages if self._delivery else []

    def start(self, events: list[Event], state: SearchState) -> None:
        """Queues the events that earlier sessions did not deliver, and starts the thread."""
        self._state = state
        for event in events:
            self(event, state)
        self._thread.start()

    def __call__(self, event: Event | Notice, state: SearchState) -> None:
        """Listens to the search: queues what stands in the journal."""
        match event["event"]:
            case "stopping" | "stalled" | "hint" | "unclean" | "apart" | "damaged" | "progress":
                return
            case _:
                self._position += 1
                if self._position > self._done:
                    self._queue.put((self._position, event))

    def close(self, patience: float) -> int:
        """Waits until everything is delivered, at most `patience` seconds while no server answers.

        Returns:
            The number of events that MLflow lacks.
        """
        self._queue.put(None)
        self._closing.set()
        waited = 0.0
        while self._thread.is_alive() and waited < patience:
            self._thread.join(0.2)
            waited = waited + 0.2 if self._failing else 0.0
        self._giving_up.set()
        self._thread.join(3 * patience)  # a running attempt may still succeed; uploading a model takes its time
        return self._position - self._done

    def _deliver_all(self) -> None:
        pause, last, quiet, lag = 0.5, False, FIRST_LAG, LAG
        delivery: Delivery | None = None
        while not last:
            batch, last = self._next_batch(quiet, lag)
            while batch and not self._giving_up.is_set():
                try:
                    if delivery is None:
                        from search.tracking.events_to_runs import Delivery

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
                    # Whatever the error (server down, disk full, locked database), training goes on.
                    if not self._failing:
                        first = (str(error).strip() or type(error).__name__).split("\n")[0]
                        self.warn(f"MLflow cannot be written ({first}); kept in the journal, trying again")
                    self._failing = True
                    if self._closing.wait(pause):  # at the end pauses are short, so as not to miss the server
                        self._giving_up.wait(0.5)
                    pause = min(pause * 2, 15)

    def _next_batch(self, quiet: float, lag: float) -> tuple[list[tuple[int, Event]], bool]:
        """Waits for an event, then gathers more for `quiet` seconds, or for `lag` seconds once a trial reported.

        Returns:
            The events with their positions, and whether they are the last.
        """
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
