"""A search as its journal shows it so far, read without a lock: for the page of a running or a finished search."""

from __future__ import annotations

import time
from typing import Any

from search.core.config import SearchConfig, parse_duration
from search.core.events import Event
from search.core.journal import Tail, is_held
from search.core.record import SearchRecord
from search.core.replay import open_search
from search.core.searchers.base import RecordedSearcher
from search.core.state import SearchState
from search.core.store import SearchFolder, Store
from search.core.study import Study
from search.core.time_plan import TimePlan, TrialsSoFar


class View:
    """A search in memory. `read` takes in the events that the driver wrote since the last call.

    Attributes:
        events: all events so far.
        study: the state, and the rungs.
    """

    def __init__(self, folder: SearchFolder, record: SearchRecord, config: SearchConfig) -> None:
        self.folder, self.record, self._config = folder, record, config
        self._tail = Tail(folder.journal)
        self._begin()

    @classmethod
    def open(cls, store: Store, name: str) -> View:
        """The view of a search; raises InputError as `open_search`."""
        return cls(*open_search(store, name))

    def _begin(self) -> None:
        self.events: list[Event] = []
        self.study = Study(self._config, self.record.objective, searcher=RecordedSearcher())

    @property
    def config(self) -> SearchConfig:
        """The configuration, with the changes that requests made so far."""
        return self.study.config

    @property
    def state(self) -> SearchState:
        """The trials and the trainings after them."""
        return self.study.state

    @property
    def is_running(self) -> bool:
        """Whether the driver runs the search now."""
        return self.state.status == "searching" and is_held(self.folder.journal)

    def read(self) -> bool:
        """Takes in new events; returns whether there were any. Raises InputError if a line is damaged."""
        events, is_whole = self._tail.read()
        if is_whole and self.events:
            self._begin()
        for event in events:
            self.study.apply(event)
        self.events += events
        return bool(events)

    def time_budget(self) -> dict[str, Any] | None:
        """The clock of the last session with a time budget: seconds `of` the budget, `used`, and `reserved`.

        `reserved` is for the trainings after the trials, as `TimePlan` plans them now; 0 once these have begun. None if
        the search has no time budget, or if its journal is older than this figure.
        """
        begun = [event for event in self.events if event["event"] == "session"]
        limit = self.config.search.time_budget
        if limit is None or not begun or "plan" not in begun[-1]:
            return None
        plan = TimePlan(**begun[-1]["plan"] | {"budget_seconds": parse_duration(limit)})
        ended = self.state.status != "searching"
        now = self.events[-1].get("time", 0) if ended else time.time() * 1000
        used = max(0.0, (now - begun[-1].get("began", now)) / 1000)
        after = ended or bool(self.state.repeats or self.state.finals)
        trials = TrialsSoFar.from_state(self.config, self.state)
        reserved = 0.0 if after else plan.after_trials(trials, plan.budget_seconds - used).seconds
        return {"of": plan.budget_seconds, "used": used, "reserved": max(0.0, reserved)}
