"""A running search: a `Study` with its journal, its files and its listeners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, get_args

from search.core.changes import with_changes
from search.core.config import SearchConfig
from search.core.decision import TrialResult, timeout_reason
from search.core.events import Event, Limit, Moved, Notice, Requested
from search.core.failures import Failure
from search.core.journal import Journal
from search.core.requests import ChangeSettings, Mailbox, in_words, kind_of, settle
from search.core.state import SearchState, Trial
from search.core.store import SearchFolder
from search.core.study import Study
from search.runtime.interrupts import recording
from search.runtime.placement import machines, place
from trainables import InputError, Limited, SelfTrained, get_task
from trainables.base.storage import files_at

#: Why a search stops before its last trial.
Stop = Limit | Literal["interrupted", "time budget", "epoch budget", "request", "disk full", "failures"]
#: At these a trial with its own loop still comes to its end after its last epoch.
LIMITS = ("epoch budget", *get_args(Limit))
#: Called with every event after it is in the journal and the state, and with every notice.
Listener = Callable[[Event | Notice, SearchState], None]


class Search:
    """One search in this process. `Study` decides; this class writes each decision to the journal before it acts.

    Attributes:
        study: the decisions, as a function of the journal's events.
        files: where checkpoints are kept.
        stopping: why no trial begins any more; None while the search runs.
        reserves: whether a final training follows, for which a cost budget keeps a part.
        reserved_seconds: the part of the time budget that is kept for the trainings after the trials; None where no
            time budget ends the trials.
    """

    def __init__(self, config: SearchConfig, folder: SearchFolder, journal: Journal | None = None) -> None:
        """Replays the journal.

        Args:
            journal: the journal if the command has opened it already; None: it is opened here, and `end` closes it.

        Raises:
            InputError: as `Journal`.
        """
        self.folder = folder
        self.task = get_task(config.task)
        self.objective = self.task.objective
        self.mail = Mailbox.of(folder)
        self.files = files_at(config.search.storage or str(folder.path))
        self.journal = journal or Journal(folder.journal)
        self._holds = journal is None
        self.listeners: list[Listener] = []
        self.stopping: Stop | None = None
        self.reserves = True
        self.reserved_seconds: float | None = None
        self.study = Study(
            config, self.objective, ends_itself=isinstance(self.task, SelfTrained), events=self.journal.events
        )

    @property
    def config(self) -> SearchConfig:
        """The configuration, with the changes that requests made."""
        return self.study.config

    @property
    def state(self) -> SearchState:
        """The trials and the final trainings, as the events made them."""
        return self.study.state

    @property
    def total(self) -> float:
        """The number of trials; infinity if only a budget ends the search."""
        return self.study.total

    def record(self, *events: Event) -> None:
        """Writes events to the journal, applies them to the study, and passes them to the listeners."""
        with recording():
            for event in self.journal.append(*events):
                self.study.apply(event)
                self.announce(event)

    def reopen(self) -> None:
        """Reopens trials of a search that was given more trials or epochs; see `Study.reopen`."""
        self.record(*self.study.reopen())

    def propose(self) -> Trial | None:
        """The trial to train next; None if no trial can begin now, or the search is stopping."""
        if self.stopping or (event := self.study.propose()) is None:
            return None
        self.record(event)
        return self.state.trials[event["number"]]  # type: ignore[typeddict-item]

    def begin(self, figures: dict[int, dict[str, float]]) -> set[int]:
        """Records which trials end before their first epoch; see `Study.begin`. Returns their numbers."""
        self.record(*self.study.begin(figures))
        return {number for number in figures if self.state.trials[number].idle}

    def report(self, results: list[dict[str, Any]], device: str, ended: Sequence[int] = ()) -> set[int]:
        """Records epochs that trials report together, with the decision on each trial; see `Study.report`.

        Args:
            results: in the order of the epochs, each with the fields of `TrialResult`.
            device: the name of the device that trained them.
            ended: trials whose own loop ended after these epochs.

        Returns:
            The numbers of the trials that stop or pause now.

        Raises:
            InputError: the search has an objective that the epochs do not measure.
        """
        events, _ = self.study.report([TrialResult(**r) for r in results], device, ended)
        self.record(*events)
        if self.study.is_out_of_epochs:
            self.stop("epoch budget")
        self.end_at_limit()
        self._end_as_asked()
        trials = self.state.trials
        current = [r["number"] for r in results if r["epoch"] >= trials[r["number"]].epoch]
        return {number for number in current if trials[number].idle} | set(ended)

    def fail(self, number: int, cause: Failure, traceback: str) -> bool:
        """Records that a trial, which trained by itself, ended with an error.

        Returns:
            Whether the trial is tried again.
        """
        event = self.study.fail(number, cause, traceback)
        self.record(event)
        if event["event"] == "retry":
            return True
        if not self.stopping and self.study.is_hopeless(event):
            self.stop("failures")
        return False

    def end_late(self, numbers: Sequence[int]) -> None:
        """Ends trials that exceed `search.trial_timeout` inside an epoch."""
        self.record(*(Moved(event="timed_out", number=n, reason=timeout_reason(self.config.search)) for n in numbers))

    def give_up(self, *numbers: int, reason: str | None = None) -> None:
        """Ends these paused trials.

        Args:
            reason: by default the numbers of trials that continued and that started.
        """
        reasons = {number: reason or self.study.give_up_reason(number) for number in numbers}
        self.record(*(Moved(event="stopped_early", number=number, reason=text) for number, text in reasons.items()))

    def take_requests(self) -> None:
        """Takes up the requests that wait: each is in the journal before it takes effect, and then answered.

        A request that a kill left without an answer is in the journal already, and is not applied again.
        """
        self._end_as_asked()  # a trial that failed finishes no epoch
        for name in self.mail.waiting():
            try:
                if name not in self.state.requests:
                    self.record(self._settled(name))
                self.carry_out()
                self.end_at_limit()
                answer = False, in_words(self.state.requests[name])
            except InputError as error:
                answer = True, str(error)
            with suppress(OSError):  # the request stays, and is answered later
                self.mail.answer(name, *answer)

    def _settled(self, name: str) -> Requested:
        """The event of a request; raises InputError if it is wrong or not possible now."""
        request = self.mail.read(name)
        allowed = self.task.allowed if isinstance(self.task, Limited) else {}
        content = settle(request, self.config, self.state, allowed)
        if isinstance(request, ChangeSettings) and content.get("search", {}).get("concurrency") is not None:
            place(with_changes(self.config, content), machines())
        return Requested(event="request", id=name, kind=kind_of(request), content=content)

    def carry_out(self) -> None:
        """Does what the requests in the journal ask for and what is not done yet."""
        if stops := self.study.stops():
            self.record(*stops)
        self._end_as_asked()
        if any(request["kind"] == "set" for request in self.state.requests.values()):
            record = self.folder.read()
            if record.config != self.config.raw:  # who only reads the search need not replay it
                self.folder.write(replace(record, config=self.config.raw))

    def end_at_limit(self) -> None:
        """Stops the search if its results have reached a limit. The limit is in the journal before it takes effect."""
        self.record(*self.study.reach_limit(self.reserves))
        if not self.stopping and (limit := self.study.limit) is not None:
            self.stop(limit["why"], limit["reason"])

    def _end_as_asked(self) -> None:
        """Stops the search if a request ends it and no trial is within an epoch; without a final training at once."""
        ends = self.state.requests.get(self.state.stopped_by or "")
        if ends is None or self.stopping:
            return
        if not ends["content"]["retrain"]:
            self.stop("interrupted")
        elif self.study.ends_now:
            self.stop("request")

    def hold(self, waiting: Sequence[Trial]) -> None:
        """Pauses the trials among `waiting`, which no worker trains, that a request keeps paused."""
        if pauses := self.study.pauses(waiting):
            self.record(*pauses)

    def stop(self, why: Stop, reason: str = "") -> None:
        """Stops the search: no new trials begin, and running trials finish their epoch.

        Args:
            reason: words and figures for a person.
        """
        if self.stopping != "interrupted":
            self.stopping = why
            self.announce({"event": "stopping", "why": why, "reason": reason})

    @property
    def cut_off(self) -> bool:
        """Whether the search was stopped for a reason other than a budget. No final training follows then."""
        return self.stopping in ("interrupted", "disk full", "failures")

    def announce(self, event: Event | Notice) -> None:
        """Passes an event that is recorded, or a notice, to the listeners."""
        for listener in self.listeners:
            listener(event, self.state)

    def end(self, status: str) -> None:
        """Ends the session.

        It records running trials as interrupted, and the rungs. It closes the journal if this object opened it.
        """
        if not self.journal.refused:
            running = [trial.number for trial in self.state.unfinished() if trial.outcome is None]
            with suppress(OSError):  # `Journal.refused` has the error, which the session shows to the user
                self.record(
                    *(Moved(event="interrupted", number=number) for number in running),
                    {"event": "ended", "status": status, "rungs": self.study.rungs()},
                )
        if self._holds:
            self.journal.close()
