"""A study: programs of the user ask it for trials, train them, and tell it their metrics. `search.open` returns it.

Several processes use a study at once. Each operation holds the journal's lock alone while it reads the events that
other processes added, decides, and writes its own event. So every decision is a function of the events before it, as in
a search of one process.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from search.arguments import mapping, shown, whole
from search.core.config import SearchConfig, check_config, digest, parse_duration
from search.core.decision import Decision, TrialResult, stop
from search.core.events import Ended, Event, Failed, LimitReached, Moved
from search.core.failures import cut
from search.core.journal import Journal, Reader, read_events
from search.core.overrides import argument
from search.core.program_config import loop_config
from search.core.record import SearchRecord, task_fields
from search.core.replay import open_to_run
from search.core.state import Trial
from search.core.store import SearchFolder, Store
from search.core.study import Study
from search.result import BestTrial, SearchResult, open_result
from trainables import InputError, get_task, plain

if TYPE_CHECKING:
    from trainables.loops.task import LoopTask

#: Seconds that an operation waits for other processes. Each holds the lock for milliseconds; a slow model of a searcher
#: may take seconds.
PATIENCE = 60.0
#: The settings that a study follows. The others are about trainings that this program runs.
SETTINGS = (
    "searcher", "trials", "epochs", "first", "startup_trials", "model_trials", "objective", "preference", "balance",
    "seed", "scheduler", "grace_period", "reduction_factor", "brackets", "epoch_budget", "target", "worth",
    "max_epoch_seconds", "trial_timeout", "stall_timeout", "max_lost_workers",
)  # fmt: skip


@dataclass(frozen=True)
class AskedTrial:
    """A trial that a study gave out.

    Attributes:
        number: the number of the trial, from 0.
        params: its hyperparameters.
        seed: its seed, for the generators of your training.
        folder: a folder for its files, such as checkpoints. It is the same when the trial is asked again.
        epoch: the last epoch that the study has, 0 for a new trial. Train from the next one on.
        of: the number of epochs of a full trial.

    >>> study = search.open(
    ...     "one", "studies", space={"x": search.uniform(1, 2)}, objective="loss min", trials=1, epochs=2
    ... )
    >>> study.ask()
    AskedTrial(number=0, params={'x': ...}, seed=..., folder=PosixPath('...'), epoch=0, of=2)
    """

    number: int
    params: dict[str, Any]
    seed: int
    folder: Path
    epoch: int
    of: int


class SharedStudy:
    """Gives out trials, and decides on them. Several processes may use a study at once; `search.open` returns it.

    >>> study = search.open(
    ...     "all", "studies", space={"x": search.uniform(1, 2)}, objective="loss min", trials=3, epochs=2
    ... )
    >>> while (trial := study.ask()) is not None:
    ...     for epoch in range(trial.epoch + 1, trial.of + 1):
    ...         decision = study.tell(trial, epoch, {"loss": trial.params["x"] / epoch})
    ...         if decision.kind != "continue":
    ...             break
    >>> study.finished, study.best.epoch
    (True, 2)
    """

    def __init__(self, store: Store, folder: SearchFolder) -> None:
        self._store, self._folder = store, folder
        self._one_thread = threading.Lock()
        self._known: _Known | None = None
        self._reader = Reader(folder.journal)
        #: When this process asked for a trial or told its last epoch, by `time.monotonic`.
        self._began: dict[int, float] = {}

    def __enter__(self) -> SharedStudy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.sync()

    def __repr__(self) -> str:
        return f"study {self.name} in {self._store.root}"

    @property
    def name(self) -> str:
        """The name of the study, which is a search of the store with this name."""
        return self._folder.name

    def ask(self) -> AskedTrial | None:
        """The trial to train next; None if no trial can begin now.

        It is the first of these that there is:

        1. a trial that was given back (`give_back`)
        2. a trial without news for `search.stall_timeout` (2 hours): its process has probably died
        3. a paused trial that the scheduler promotes
        4. a new trial

        The first three continue after `trial.epoch`. None does not mean that the study has finished: trials of other
        processes may still pause and be promoted. `finished` tells.

        Raises:
            InputError: another process holds the journal for too long, or the journal is damaged.
        """
        with self._alone() as known:
            while (event := known.next()) is not None:
                known.record(event)
                if event["event"] not in ("failed", "stopped_early"):  # it lost a process too often, or a limit ends it
                    number: int = event["number"]  # type: ignore[typeddict-item]
                    self._began[number] = time.monotonic()
                    return self._asked(known, number)
            known.end_if_over()
            return None

    def tell(self, trial: AskedTrial | int, epoch: int, metrics: Mapping[str, Any]) -> Decision:
        """Records the metrics of an epoch, and returns the decision on the trial.

        The decision is in the journal before this method returns. An epoch that was told before keeps its first
        metrics, and has the same decision. After its last epoch a trial is complete.

        Args:
            trial: the trial, or its number.
            epoch: the number of the epoch, from 1.
            metrics: numbers by name, the objective among them.

        Returns:
            `decision.kind` is `continue`, `pause` or `stop`; `decision.reason` says why. A paused trial may be asked
            again later, so it needs a checkpoint in its folder. Train neither a paused nor a stopped trial further.

        Raises:
            InputError: the trial is over, an epoch before this one is missing, or a metric is no number.
        """
        number, epoch = _number(trial), whole(epoch, "epoch", 1)
        now = time.monotonic()
        with self._alone() as known:
            own = known.trial(number)
            if (number, epoch) in known.decisions:
                return known.decisions[number, epoch]
            if own.idle:
                raise InputError(f"trial {number}: is {own.outcome} since epoch {own.epoch}: it has no epoch {epoch}")
            if epoch != own.epoch + 1:
                raise InputError(f"trial {number}: epoch {epoch}: expected epoch {own.epoch + 1}, which comes next")
            measured, diverged = known.measured(metrics)
            if number in self._began:
                measured.setdefault("epoch_seconds", now - self._began[number])
            events, _ = known.study.report([TrialResult(number, epoch, measured, diverged)], device="")
            known.record(*events)
            self._began[number] = now
            return known.decisions[number, epoch]

    def complete(self, trial: AskedTrial | int) -> None:
        """Ends a trial before its last epoch as complete, such as after your own early stopping.

        Raises:
            InputError: the trial is over, or has no epoch yet.
        """
        with self._alone() as known:
            own = known.open_trial(_number(trial))
            if not own.epoch:
                raise InputError(f"trial {own.number}: has no epoch: tell its metrics first, or call fail")
            events, _ = known.study.report([], ended=[own.number])
            known.record(*events)

    def fail(self, trial: AskedTrial | int, error: BaseException | str) -> None:
        """Ends a trial as failed. Its epochs so far count.

        Raises:
            InputError: the trial is over.
        """
        text = error if isinstance(error, str) else "".join(traceback.format_exception(error))
        with self._alone() as known:
            own = known.open_trial(_number(trial))
            known.record(Failed(event="failed", number=own.number, why="error", traceback=cut(text)))

    def give_back(self, trial: AskedTrial | int) -> None:
        """Gives a trial back that its process cannot train any more. The next `ask` returns it.

        Raises:
            InputError: the trial is over.
        """
        with self._alone() as known:
            own = known.open_trial(_number(trial))
            if own.outcome != "interrupted":
                known.record(Moved(event="interrupted", number=own.number))

    def running(self) -> list[AskedTrial]:
        """The trials that were asked for and are not over, paused or given back.

        After a kill of all processes these are the trials to give back.
        """
        with self._alone() as known:
            return [self._asked(known, t.number) for t in known.study.state.unfinished() if t.outcome is None]

    @property
    def finished(self) -> bool:
        """Whether every trial is over and no trial will begin."""
        with self._alone() as known:
            return known.study.state.status == "finished"

    @property
    def best(self) -> BestTrial:
        """The best trial so far; raises InputError if no trial has a result."""
        return self.result.best

    @property
    def result(self) -> SearchResult:
        """The study as a search, at this moment, with its tables, curves, report and reasons."""
        return open_result(self._store, self.name)

    def sync(self) -> int:
        """Sends to MLflow what it lacks of the study, whichever process told it. Each trial has one run.

        The end of `with search.open(...) as study:` calls it, and so does `python -m search resume NAME`.

        Returns:
            The number of events that MLflow still lacks, as its server does not answer.
        """
        from search.tracking.tracker import deliver_stored

        return deliver_stored(self._store, self._folder, logging.getLogger(__name__).warning)

    @contextmanager
    def _alone(self) -> Iterator[_Known]:
        """Holds the journal, and knows all of its events, while the block runs."""
        if not self._folder.exists:
            self._folder.read(self._store)  # raises InputError: the study was deleted
        try:
            with self._one_thread, Journal(self._folder.journal, self._reader, PATIENCE) as journal:
                version = _version(self._folder)
                if self._known is None or self._known.version != version:  # another process gave the study more trials
                    self._known = _Known(self._store, self._folder, version)
                    journal.events = list(read_events(journal.path))
                for event in journal.events:
                    self._known.apply(event)
                self._known.journal = journal
                yield self._known
        except BaseException as error:
            self._known = None  # its searcher may know a proposal that the journal lacks
            if isinstance(error, OSError):
                raise InputError(f"{self._folder.journal}: {error.strerror}; make room, and call it again") from error
            raise

    def _asked(self, known: _Known, number: int) -> AskedTrial:
        trial, folder = known.study.state.trials[number], self._folder.log(number).parent
        folder.mkdir(parents=True, exist_ok=True)
        of = known.study.config.search.epochs
        return AskedTrial(number, dict(trial.params), trial.seed, folder, trial.epoch, of)


class _Known:
    """What a process knows of a study: a function of the journal's events.

    Attributes:
        version: of `search.json`, whose configuration the decisions follow.
        journal: held by this process while it works.
        decisions: the decision on each epoch, by trial number and epoch.
    """

    journal: Journal

    def __init__(self, store: Store, folder: SearchFolder, version: object) -> None:
        _, record, config = open_to_run(store, folder.name)
        self.version, self.metric = version, record.metric
        self.task = cast("LoopTask", get_task(config.task))
        self.study = Study(config, self.task.objective)
        self.decisions: dict[tuple[int, int], Decision] = {}
        #: The time of the last event of each trial, in milliseconds since 1970.
        self._heard: dict[int, int] = {}

    def apply(self, event: Event) -> None:
        """Takes an event in."""
        if event["event"] == "stopped_early" and not self.trial(event["number"]).idle:
            trial = self.trial(event["number"])
            self.decisions[trial.number, trial.epoch] = stop(event.get("reason", ""))
        self.study.apply(event)
        if isinstance(number := event.get("number"), int):
            self._heard[number] = event["time"]
        if event["event"] == "result":
            self.decisions[event["number"], event["epoch"]] = Decision.of(event)

    def record(self, *events: Event) -> None:
        """Writes events to the journal, then takes them in. Ends the study after its last trial.

        A limit that is reached stops the trials of these events; those of other processes stop when they are told.
        """
        numbers = {event["number"] for event in events if event["event"] == "result"}
        self._append(*events)
        self._append(*self.study.reach_limit())
        if (limit := self.study.limit) is not None:
            running = [number for number in numbers if not self.trial(number).idle]
            self._append(*(self._stopped(number, limit) for number in running))
        self.end_if_over()

    def _append(self, *events: Event) -> None:
        for event in self.journal.append(*events):
            self.apply(event)

    def _stopped(self, number: int, limit: LimitReached) -> Moved:
        return Moved(event="stopped_early", number=number, reason=f"{limit['why']}: {limit['reason']}")

    def end_if_over(self) -> None:
        """Ends the study if no trial is open and none can begin. Trials that are still paused are stopped."""
        study, state = self.study, self.study.state
        if state.status != "finished" and not state.unfinished() and not self._has_next:
            reasons = {number: study.give_up_reason(number) for number in state.paused()}
            self.record(
                *(Moved(event="stopped_early", number=n, reason=reason) for n, reason in reasons.items()),
                Ended(event="ended", status="finished", rungs=study.rungs()),
            )

    @property
    def _has_next(self) -> bool:
        if self.study.is_out_of_epochs or self.study.limit is not None:
            return False
        return self.study.has_more or self.study.promote() is not None

    def next(self) -> Event | None:
        """The event of the trial that `ask` gives out; None if no trial can begin."""
        search, state = self.study.config.search, self.study.state
        if state.status == "finished":
            return None
        running = state.unfinished()
        limit = self.study.limit
        for trial in running:
            if trial.outcome == "interrupted":
                if limit is not None:
                    return self._stopped(trial.number, limit)
                reason = "it was given back, and is trained again from its last epoch"
                return Moved(event="reopened", number=trial.number, reason=reason)
        silence = math.inf if search.stall_timeout is None else parse_duration(search.stall_timeout)
        for trial in running:
            if time.time() - self._heard[trial.number] / 1000 > silence:
                if limit is not None:
                    return self._stopped(trial.number, limit)
                return self.study.fail(trial.number, "lost", f"no news for {search.stall_timeout}")
        return self.study.propose() if self._has_next else None

    def trial(self, number: int) -> Trial:
        """The trial of this number; raises InputError if there is none."""
        trials = self.study.state.trials
        if number not in trials:
            raise InputError(f"trial {number}: no such trial; {len(trials)} were asked for")
        return trials[number]

    def open_trial(self, number: int) -> Trial:
        """The trial, which is not over and not paused; else raises InputError."""
        trial = self.trial(number)
        if trial.idle:
            raise InputError(f"trial {number}: is {trial.outcome} already")
        return trial

    def measured(self, metrics: Mapping[str, Any]) -> tuple[dict[str, float], str | None]:
        """The metrics as the journal has them, and why the trial diverged, or None; raises InputError."""
        given = plain(mapping(metrics, "metrics", f"{{{self.metric!r}: 0.5}}"), "metrics")
        for name, value in given.items():
            if not isinstance(value, int | float):
                raise InputError(f"metrics: {name}: {shown(value)}: expected a number")
        if self.metric not in given:
            raise InputError(f"metrics: no {self.metric!r}, which is the objective; there are {', '.join(given)}")
        measured = self.task.with_objective({name: float(value) for name, value in given.items()})
        value = measured[self.metric]
        return measured, None if math.isfinite(value) else f"{self.metric} is {value}"


def open_study(
    store: Store, name: str, space: Mapping[str, Any], objective: str, flags: Mapping[str, Any]
) -> SharedStudy:
    """Creates a study, or opens it if it exists. It gets more trials if `flags` has more than it had.

    Args:
        flags: settings by dotted key, such as `search.trials`.

    Raises:
        InputError: a setting is wrong, or the study has others.
    """
    for key, value in flags.items():
        if key.partition(".")[2] not in SETTINGS:
            given = argument(key, value)
            raise InputError(f"{given}: you train the trials of a study, so it takes only {', '.join(SETTINGS)}")
    for name_of, example in (("trials", "ask returns None after them"), ("epochs", "1 if a trial is told once")):
        if f"search.{name_of}" not in flags:
            raise InputError(f"{name_of}: missing; give the number of {name_of} ({example})")
    store.check()
    folder = store.search(name)
    # A paused trial needs a checkpoint to continue from; without one its first epochs would be trained again.
    named = {"search.scheduler": "asha", **flags}
    config = loop_config(f"study-{name}", space, objective, named, (), "search.open", argument)
    _check_asked(store, folder)  # a search that runs holds its journal for hours
    with Journal(folder.journal, wait_seconds=PATIENCE) as journal:
        _check_asked(store, folder)
        if folder.exists:
            _join(store, folder, config, flags, journal)
        elif journal.events:
            raise folder.without_record()
        else:
            record = SearchRecord(
                **task_fields(config.task), config=config.raw, place=config.place, id=uuid.uuid4().hex,
                fingerprint=digest(name), retrain=False, created=int(time.time() * 1000), asked=True,
            )  # fmt: skip
            folder.write(record)
        if not journal.events:
            journal.append({"event": "session"})
    return SharedStudy(store, folder)


def _check_asked(store: Store, folder: SearchFolder) -> None:
    """Raises InputError if there is a search of this name that is no study."""
    if folder.exists and not (record := folder.read(store)).asked:
        raise InputError(f"{folder.name}: is a search of {record.task}, which is no study; choose another name")


def _join(
    store: Store, folder: SearchFolder, config: SearchConfig, flags: Mapping[str, Any], journal: Journal
) -> None:  # fmt: skip
    """Gives an existing study more trials; raises InputError if it is another than `config` describes."""
    own = get_task(config.task).objective
    _, record, stored = open_to_run(store, folder.name)
    old, new = stored.raw["search"], config.raw["search"]
    pairs = [("objective", record.objective.mode, own.mode), ("objective", record.objective.key, own.key)]
    pairs += [(f"space: {key}", stored.raw["space"].get(key), config.raw["space"].get(key))
              for key in {**stored.raw["space"], **config.raw["space"]}]  # fmt: skip
    pairs += [(key, old[key], new[key]) for key in new if f"search.{key}" in flags and key != "trials"]
    for what, before, now in pairs:
        if before != now:
            raise InputError(f"{what}: {shown(now)}: the study {folder.name} has {shown(before)}; choose another name")
    if new["trials"] < old["trials"]:
        raise InputError(f"trials={new['trials']}: the study {folder.name} has {old['trials']}; it can only get more")
    if new["trials"] > old["trials"]:
        raw = {**stored.raw, "search": {**old, "trials": new["trials"]}}
        more = Study(check_config(stored.task, raw, stored.place), record.objective, events=journal.events)
        journal.append({"event": "session"}, *more.reopen())
        folder.write(replace(record, config=raw))


def _number(trial: AskedTrial | int) -> int:
    return trial.number if isinstance(trial, AskedTrial) else whole(trial, "trial", 0)


def _version(folder: SearchFolder) -> tuple[int, int]:
    """Changes when `search.json` is written."""
    status = (folder.path / "search.json").stat()
    return status.st_mtime_ns, status.st_ino
