"""Between a search and Ray Tune: the trials that are live, the next ones, failures, limits."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.tune.experiment import Trial as TuneTrial

from search.core.config import parse_duration
from search.core.failures import cause, cut
from search.core.redaction import redacted
from search.core.state import Trial
from search.core.time_plan import TimePlan, TrialsSoFar
from search.runtime import checkpoints
from search.runtime.budget import Budget
from search.runtime.placement import machines, place
from search.runtime.progress import EpochProgress
from search.runtime.search import Search
from search.runtime.transfer import content
from trainables import Fusable, InputError

#: Seconds between two counts of the machines that are there.
RECOUNT = 2.0


class Bridge:
    """What the adapters to Tune (searcher, scheduler, callback) share: live trials, and the queue of those to come."""

    def __init__(self, search: Search, concurrency: int, budget: Budget, plan: TimePlan) -> None:
        self.search, self._fits, self._counted = search, concurrency, time.monotonic()
        self._budget, self._plan = budget, plan
        self.board = f"progress-{uuid.uuid4().hex}"
        self._progress = EpochProgress(self.board, search.announce)
        self.live: set[str] = set()
        #: When each running trial of Tune last began or ended an epoch.
        self.silent_since: dict[TuneTrial, float] = {}
        #: Trials that ended an epoch during this step of Tune's loop.
        self.reported: set[int] = set()
        self.waiting = search.state.unfinished()
        #: Trials whose group failed. Each now runs alone, which shows the one at fault.
        self.alone: set[int] = set()
        #: Hints that the user has seen; each is shown for the first trial that it is on.
        self._hints: set[str] = set()
        self._launched = 0
        #: A mistake in the configuration that only the first results showed.
        self.refused: InputError | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its tuner for its own restore, which is never used: the journal is the state.
        return (object, ())

    @property
    def concurrency(self) -> int:
        """Trials at once: the configured number, else as many as fit on the machines that are there now."""
        config = self.search.config
        if config.search.concurrency is None and time.monotonic() - self._counted > RECOUNT:
            with suppress(InputError):  # none fits now: running trials will be lost, and wait for a machine
                self._fits = place(config, machines()).concurrency
            self._counted = time.monotonic()
        return self._fits

    def next_config(self) -> dict[str, Any] | None:
        """The configuration of the next trial or group, as `TaskTrainable` reads it; None where there is none now."""
        group = self._next_group()
        if not group:
            return None
        self._launched += 1  # part of the name, as a trial may be launched several times
        name = f"{group[0].number:04d}" + (f"+{len(group) - 1}" if len(group) > 1 else "") + f"-{self._launched}"
        search = self.search
        epochs = range(1, search.config.search.epochs)
        return {
            "name": name,
            "trials": [
                {
                    "number": trial.number,
                    "params": trial.params,
                    "seed": trial.seed,
                    "micro_batches": trial.micro_batches,
                    "decisions": [epoch for epoch in epochs if search.study.scheduler.decides(trial.number, epoch)],
                    "resume_from": [(one.name, one.digest) for one in reversed(trial.checkpoints)],
                    "carried": {
                        name: ray.put(one)
                        for name, one in content(search, [c.name for c in trial.checkpoints[-1:]]).items()
                    },
                }
                for trial in group
            ],
        }

    def _next_group(self) -> list[Trial]:
        """The trial whose turn it is, and up to `fuse - 1` more of its shape."""
        search, fuse = self.search, self.search.config.search.fuse
        if search.stopping:
            return []
        while len(self.waiting) < (fuse * self.concurrency if fuse > 1 else 1):
            if (trial := search.propose()) is None:
                break
            self.waiting.append(trial)
        if not self.waiting:
            return []
        first = self.waiting[0]
        task, group = search.task, [first]
        if fuse > 1 and first.number not in self.alone:
            assert isinstance(task, Fusable)  # checked before the search began
            shape = task.shape(first.params)
            able = [t for t in self.waiting if t.number not in self.alone]
            alike = [t for t in able if task.shape(t.params) == shape] if shape is not None else group
            # Not so many that another worker would be left without work.
            group = alike[: min(fuse, math.ceil(len(alike) / (self.concurrency - len(self.live))))]
        self.waiting = [t for t in self.waiting if t not in group]
        return group

    def failed(self, trial: TuneTrial, told: str) -> None:
        """Takes in that a trial of Tune failed. A single trial is retried or has failed for good; a group is taken
        apart.

        Args:
            told: the traceback.
        """
        self.silent_since.pop(trial, None)
        why, shown = cause(told), redacted(cut(told))
        search, numbers = self.search, numbers_of(trial)
        left = [search.state.trials[n] for n in numbers if not search.state.trials[n].idle]
        if why == "disk":
            search.stop("disk full")  # a resume trains again what could not be saved
        elif why == "unclean":
            search.announce({"event": "unclean", "traceback": shown})
            self.waiting = left + self.waiting
        elif len(numbers) > 1:
            search.announce({"event": "apart", "numbers": numbers, "traceback": shown})
            self.alone.update(numbers)
            self.waiting = left + self.waiting
        elif left and search.fail(numbers[0], why, shown):
            self.waiting = left + self.waiting

    def hint(self, said: Sequence[tuple[int, str]]) -> None:
        """Shows what trials have to say to the user, each line once."""
        for number, text in said:
            if text not in self._hints:
                self._hints.add(text)
                self.search.announce({"event": "hint", "number": number, "text": text})

    def is_over(self, trial: TuneTrial) -> bool:
        """Whether a trial of Tune stops after the epoch that it reported.

        A trial that has had its last epoch comes to its own end even when the epoch budget is used up.
        """
        search = self.search
        left = [search.state.trials[number] for number in numbers_of(trial) if not search.state.trials[number].idle]
        if search.stopping == "epoch budget":
            return not any(one.epoch >= search.config.search.epochs for one in left)
        return not left or bool(search.stopping)

    def settle(self) -> None:
        """Work after each step of Tune's loop, while the trials that reported train again already."""
        if self.reported:
            checkpoints.limit(self.search, self.reported)
            self.reported = set()
        self._watch()
        self._keep_time()
        self._progress.ask(time.monotonic() - min(self.silent_since.values(), default=math.inf))

    def _keep_time(self) -> None:
        """Stops the trials, or starts no new one, when the time plan says so."""
        search, plan = self.search, self._plan
        if math.isinf(self._budget.seconds) or search.stopping:
            return
        trials, left, now = search.state.trials, self._budget.left, time.monotonic()
        seen = TrialsSoFar.from_state(search.config, search.state) if plan.retrain else None
        reserved = plan.after_trials(seen, left).seconds
        running = [
            max(0.0, trials[n].seconds / trials[n].epoch - (now - since))
            for trial, since in self.silent_since.items()
            for n in numbers_of(trial)
            if trials[n].epoch
        ]
        if plan.must_stop_trials(left, reserved, running):
            search.stop("time budget")
        elif (best := search.state.best()) is not None:
            search.study.closed = not plan.may_start_trial(left, reserved, best.seconds / best.epoch)

    def _watch(self) -> None:
        """Ends the workers of trials that are over their time limit, or hang."""
        search, limit = self.search, self.search.config.search.stall_timeout
        for trial, since in list(self.silent_since.items()):
            silent = time.monotonic() - since
            running = [n for n in numbers_of(trial) if not search.state.trials[n].idle]
            late = [n for n in running if search.study.is_over_time(n, silent / len(running))]
            stalled = limit is not None and silent > parse_duration(limit)
            if not (late or stalled) or trial.temporary_state.ray_actor is None:
                continue
            search.end_late(late)
            if stalled and limit is not None:
                search.announce({"event": "stalled", "numbers": running, "limit": limit})
                for number in running:  # what hangs after its epochs would have to train them again
                    if search.state.trials[number].epoch >= search.config.search.epochs:
                        said = f"it did not come to its end within {limit} (search.stall_timeout) after its last epoch"
                        search.fail(number, "mistake", f"TrainingError: {said}")
            del self.silent_since[trial]
            ray.kill(trial.temporary_state.ray_actor)  # Tune reports an error, which reaches `failed`

    @property
    def exhausted(self) -> bool:
        """Whether nothing runs and nothing is left to run. (What runs may still fail and be taken up again.)"""
        search = self.search
        return not self.live and (
            bool(search.stopping) or not (self.waiting or search.study.has_more or search.study.promote() is not None)
        )


def numbers_of(trial: TuneTrial) -> list[int]:
    """The numbers of the search's trials that a trial of Tune trains."""
    return [t["number"] for t in trial.config["trials"]]
