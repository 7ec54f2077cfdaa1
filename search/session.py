"""One session of a search: from the start or the resume until it ends, is interrupted or fails.

`search.runs` imports this module while Ray starts, as the imports take seconds.
"""

from __future__ import annotations

import math
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from search.callbacks import messages
from search.callbacks.messages import Messenger
from search.core.changes import differences
from search.core.config import SearchConfig, parse_duration
from search.core.events import Event, Notice, Requested, SessionBegun, WarmStarted
from search.core.failures import cause, failure_in_a_line
from search.core.journal import Journal
from search.core.record import SearchRecord
from search.core.redaction import redacted
from search.core.registry import WRITERS
from search.core.requests import new_id
from search.core.searchers import searcher_note
from search.core.state import SearchState
from search.core.store import SearchFolder, Store
from search.core.time_plan import TimePlan, TrialsSoFar
from search.final.audit import audit_stopped_trials
from search.final.retrain import train_final_models
from search.final.variants import compare_variants
from search.guard import Guard
from search.observer import Observer
from search.outcome import SearchOutcome, command_line
from search.reports.report import write_report
from search.reports.summary import counted, trials_of
from search.runtime.budget import Budget
from search.runtime.callbacks import callback_listeners
from search.runtime.checkpoint_cleanup import prune
from search.runtime.cluster import Cluster, disconnect
from search.runtime.interrupts import Interrupts
from search.runtime.pace import plan_final
from search.runtime.search import Listener, Search
from search.runtime.trials import run_trials
from search.tracking.tracker import PATIENCE, Tracker
from trainables import Fusable, InputError, Mergeable, SelfTrained, Splits
from trainables.base.errors import first_line


@dataclass(frozen=True)
class FinalTrainings:
    """The final trainings of a session: the `finalists` best trials with `seeds` seeds each.

    Attributes:
        merged: whether the model is trained again on train and validation; False: the model of the best trial is used.
        epochs: the number of epochs, if the time budget sets it; None: the best number of epochs in the search.
    """

    seeds: int
    finalists: int = 1
    merged: bool = True
    epochs: int | None = None


@dataclass(frozen=True)
class PreparedSearch:
    """A search that is ready to train: its data is read and Ray is connected.

    Attributes:
        journal: the caller holds it until the session has delivered everything.
        warm_start: the trials of an earlier search, for the searcher.
        final_trainings: if given, only these trainings run.
        listeners: they receive each event of the session.
        notify: the addresses of `search.notify` with their secrets.
    """

    store: Store
    folder: SearchFolder
    config: SearchConfig
    record: SearchRecord
    splits: Splits
    cluster: Cluster
    journal: Journal
    warm_start: WarmStarted | None = None
    final_trainings: FinalTrainings | None = None
    listeners: Sequence[Listener] = ()
    notify: Sequence[str] = ()


class Session:
    """Runs the trials, the comparison of balanced values, the audit and the final training of a search."""

    def __init__(self, prepared: PreparedSearch, observer: Observer) -> None:
        """Replays the journal, and prepares the delivery to MLflow."""
        self.prepared, self.observer = prepared, observer
        config, name = prepared.config, prepared.folder.name
        self.search = Search(config, prepared.folder, prepared.journal)
        self.search.reserves = prepared.record.retrain
        limit = config.search.time_budget if prepared.final_trainings is None else None
        self.budget = Budget(math.inf if limit is None else parse_duration(limit))
        record = prepared.record
        self._plan = TimePlan.from_config(
            config, prepared.splits.info.sizes, prepared.cluster.placement.concurrency, self.budget.seconds,
            most_final_epochs=record.most_epochs, alone_ratio=record.alone, worker_start_seconds=record.worker_start,
            own_epoch_seconds=record.own_epoch,
            retrain=record.retrain, fused=isinstance(self.search.task, Fusable),
        )  # fmt: skip
        self.tracker = Tracker(
            prepared.store, prepared.folder, config, prepared.record, prepared.splits.info, self.search.objective,
            observer.say,
        )  # fmt: skip
        self.messenger = Messenger(name, config.task, prepared.notify, observer.say)
        writers = [
            WRITERS.get(writer).of_search(prepared.folder.path / writer, name, config.task, record.id)
            for writer in config.search.writers
        ]
        callbacks = callback_listeners([self.messenger, *writers, *prepared.listeners], observer.say)
        self.search.listeners += [self._follow_budget, self.tracker, *callbacks]
        #: How the session ended; `failed` until it ends.
        self.status = "failed"
        self.command = f"resume {name}"
        if (final := prepared.final_trainings) is not None:
            self.command = f"retrain {name} --finalists {final.finalists} --seeds {final.seeds}"

    @property
    def plan(self) -> TimePlan:
        """The plan for the time budget, which a request may have changed."""
        return replace(self._plan, budget_seconds=self.budget.seconds)

    def _follow_budget(self, event: Event | Notice, state: SearchState) -> None:
        """Changes the clock when a request changes the time budget of the trials."""
        if event["event"] == "request" and "time_budget" in event["content"].get("search", {}):
            limit = self.search.config.search.time_budget
            if self.prepared.final_trainings is None:
                self.budget.seconds = math.inf if limit is None else parse_duration(limit)

    def run(self) -> SearchOutcome:
        """Runs the session. However it ends, the journal and MLflow record it.

        Raises:
            InputError: the journal could not be written.
        """
        store, folder = self.prepared.store, self.prepared.folder
        with Guard(command_line(self.command, store), store, folder, self.prepared.record.id):
            for line in self._greeting():
                self.observer.say(redacted(line))
            self.tracker.start(self.search.journal.events)
            status = "failed"
            try:
                with self.observer.watch(self.search, self.budget.began), Interrupts(self.search.stop):
                    self.train()
                status = self._status()
            except KeyboardInterrupt:
                status = "interrupted"
            except Exception:
                if cause(traceback.format_exc()) != "disk":
                    raise
                self.search.stop("disk full")
                status = "interrupted"
            finally:
                undelivered = self.close(status)
            self._write_report()
            return self._outcome(undelivered)

    def train(self) -> None:
        """Runs the requested final trainings, or the whole search."""
        warm = self.prepared.warm_start
        begun: SessionBegun = {"event": "session"}
        if not math.isinf(self.budget.seconds):
            began = time.time() - (time.monotonic() - self.budget.began)
            begun |= {"plan": self.plan.fields(), "began": int(began * 1000)}
        # Requests have changed what the command that began this session changes: the later change counts.
        changes = differences(self.search.config, self.prepared.config)
        changed = [Requested(event="request", id=new_id(), kind="set", content=changes)] if changes else []
        self.search.record(*changed, begun, *([warm] if warm else []))
        self.search.carry_out()
        self.search.take_requests()
        final = self.prepared.final_trainings
        if final is None:
            self.run_trials()
            self.compare()
            self.audit()
            final = self.plan_final_training()
        if final is not None:
            self.train_final(final)

    def run_trials(self) -> None:
        """Trains trials until none is left, or a limit ends them. A limit of an earlier session still holds."""
        if not self.search.study.is_ending_itself:
            self.search.end_at_limit()
        if self.search.stopping:
            return
        self.search.reopen()
        run_trials(self.search, self.prepared.splits, self.prepared.cluster.placement, self.budget, self.plan)

    def compare(self) -> None:
        """Compares the balanced values of the search, with several seeds each."""
        prepared = self.prepared
        if prepared.record.retrain and not self.search.cut_off:
            trials = TrialsSoFar.from_state(prepared.config, self.search.state)
            seeds = self.plan.after_trials(trials, self.budget.left).comparison_seeds
            compare_variants(self.search, prepared.splits, prepared.cluster.placement, seeds)

    def audit(self) -> None:
        """Trains some stopped trials to the end, to measure what stopping cost."""
        if not self.search.cut_off:
            audit_stopped_trials(self.search, self.prepared.splits, self.prepared.cluster.placement)

    def plan_final_training(self) -> FinalTrainings | None:
        """The final training that fits the time budget; None if the search has no final training."""
        if not self.prepared.record.retrain or self.search.cut_off:
            return None
        prepared = self.prepared
        final = plan_final(self.plan, self.search, prepared.splits, prepared.cluster.placement, self.budget)
        task = self.search.task
        if not final.retrain and isinstance(task, SelfTrained) and not task.keeps_model:
            again = command_line(f"retrain {prepared.folder.name}", prepared.store)
            self.observer.say(f"the time budget holds no final training, so nothing is tested; train and test: {again}")
            return None
        return FinalTrainings(prepared.config.search.retrain_seeds, 1, final.retrain, final.epochs)

    def train_final(self, final: FinalTrainings) -> None:
        """Runs the final trainings, if a trial has a result and the search was not cut off."""
        if self.search.cut_off or self.search.state.best() is None:
            return
        if final.merged and not isinstance(self.search.task, Mergeable):
            name = self.prepared.config.task
            self.observer.say(f"the final training is on train alone, as {name} has no `merge`")
        try:
            train_final_models(
                self.search, self.prepared.splits, self.prepared.cluster.placement, final.seeds, final.finalists,
                final.merged, final.epochs,
            )  # fmt: skip
        except Exception as error:
            if isinstance(error, InputError) or not isinstance(self.search.task, SelfTrained):
                raise
            raise self._own_mistake(error) from error

    def _own_mistake(self, error: Exception) -> Exception:
        """An error of the user's own code after the trials as one line. The error itself if the disk is full."""
        # The text of Ray's error is the traceback on the worker; an error's notes would follow the message.
        remote = hasattr(error, "cause")
        text = str(error) if remote else "".join(traceback.format_exception(error)).partition("\nthis ended ")[0]
        if cause(text) == "disk":
            return error
        return InputError(f"{self.prepared.folder.name}: the final training failed: {failure_in_a_line(text)}")

    def close(self, status: str) -> int:
        """Records the end of the session, leaves the cluster, and waits for MLflow.

        Returns:
            The number of events that MLflow lacks.

        Raises:
            InputError: the journal could not be written.
        """
        self.search.end(status)
        self.status = status
        self.messenger.end(status, self.search.state)
        with self.observer.progress("sending the results to MLflow"):
            disconnect()  # while MLflow catches up
            undelivered = self.tracker.close(PATIENCE)
            self.messenger.close(messages.PATIENCE)
        if self.search.journal.refused:
            reason, again = self.search.journal.refused.strerror, command_line(self.command, self.prepared.store)
            raise InputError(f"{self.prepared.folder.journal}: {reason}; make room and go on with: {again}")
        return undelivered

    def _write_report(self) -> None:
        """Writes the page of the search into its folder. The search is over: a mistake here does not fail it."""
        if not any(trial.curve for trial in self.search.state.trials.values()):
            return
        prepared = self.prepared
        try:
            path = write_report(prepared.folder, prepared.record, prepared.config)
        except Exception as error:
            self.observer.say(f"no report was written: {first_line(error)}")
        else:
            self.observer.say(f"report: {path}")

    def _status(self) -> str:
        """The status after the last training. A finished search loses the checkpoints that nothing needs."""
        if self.search.stopping in ("interrupted", "disk full"):
            return "interrupted"
        state = self.search.state
        if self.search.cut_off or (state.best() is None and not state.none_is_feasible):
            return "failed"
        with self.observer.progress("deleting checkpoints that nothing needs"):
            prune(self.search)
        return "finished"

    def _outcome(self, undelivered: int) -> SearchOutcome:
        prepared, search = self.prepared, self.search
        return SearchOutcome(
            prepared.store, prepared.folder, prepared.config, prepared.record, search.task, search.state,
            search.journal.events, self.command, search.stopping, registered=tuple(self.tracker.registered),
            undelivered=undelivered, pages=tuple(self.tracker.pages),
        )  # fmt: skip

    def _greeting(self) -> Iterator[str]:
        """Lines on the search and its data, and the addresses of its pages."""
        prepared, search, config = self.prepared, self.search, self.prepared.config
        info, cluster = prepared.splits.info, prepared.cluster
        yield (
            f"search {prepared.folder.name}: task {config.task}, {trials_of(search.total, config.search)} of up to "
            f"{config.search.unit.count(config.search.epochs)}, {config.search.searcher} + {config.search.scheduler}, "
            f"{cluster.placement.describe()}"
        )
        sizes = ", ".join(f"{count} {name}" for name, count in info.sizes.items())
        yield f"data: {f'{info.source} ({sizes})' if sizes else info.source}, fingerprint {info.fingerprint}"
        yield from (f"note: {note}" for note in (*info.notes, searcher_note(config)) if note)
        if cluster.dashboard:
            starts_ray = not (prepared.record.address or os.environ.get("RAY_ADDRESS"))
            until = ", and is there only while this command runs" if starts_ray else ""
            yield f"Ray dashboard: {cluster.dashboard}"
            yield f"  its page asks for a token, which `ray get-auth-token` prints{until}"
        yield f"MLflow: {prepared.store.tracking_uri} (open with `{command_line('ui', prepared.store)}`)"
        if trials := search.state.trials.values():
            yield _resumed(sum(t.over for t in trials), len(search.state.unfinished()), len(search.state.paused()))


def _resumed(ended: int, unfinished: int, paused: int) -> str:
    """The line on the trials of a resumed search.

    >>> _resumed(6, 0, 0)
    'resumed: 6 trials have ended; none has to continue'
    >>> _resumed(1, 2, 3)
    'resumed: 1 trial has ended; 2 continue from their last epoch; 3 are paused'
    """
    more = {0: "none has to continue", 1: "1 continues from its last epoch"}
    waiting = f"; {paused} {'is' if paused == 1 else 'are'} paused" if paused else ""
    has = "has" if ended == 1 else "have"
    return (
        f"resumed: {counted(ended, 'trial')} {has} ended; "
        f"{more.get(unfinished, f'{unfinished} continue from their last epoch')}{waiting}"
    )
