"""The state that Ray Tune's searcher, scheduler and stopper share while the trials of a search run."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ray.tune.experiment import Trial as TuneTrial

from search.core.failures import cause, cut
from search.core.race import RACERS
from search.core.redaction import redacted
from search.core.time_plan import TimePlan, TrialsSoFar
from search.runtime import checkpoint_cleanup
from search.runtime.budget import Budget
from search.runtime.progress import EpochProgress
from search.runtime.search import LIMITS, Search
from search.runtime.trial_queue import TrialQueue
from search.runtime.watchdog import Watchdog, numbers_of
from trainables import InputError


class TuneRunner:
    """Runs the trials of a search on Tune. The classes in `trials.py` that Tune calls call this class.

    Attributes:
        queue: the trials that train next.
        watchdog: ends workers that hang, and trials that exceed their time.
        board: the name of the actor to which workers write the progress of long epochs.
        refused: a mistake in the configuration that the first results showed.
    """

    def __init__(self, search: Search, concurrency: int, budget: Budget, plan: TimePlan) -> None:
        self.search, self._budget, self._plan = search, budget, plan
        self.queue, self.watchdog = TrialQueue(search, concurrency), Watchdog(search)
        self.board = f"progress-{uuid.uuid4().hex}"
        self._progress = EpochProgress(self.board, search.announce)
        #: Trials that ended an epoch during this step of Tune's loop.
        self._reported: set[int] = set()
        #: Hints that the user saw.
        self._hints: set[str] = set()
        self.refused: InputError | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its tuner to restore it, which this program never does: the journal is the state.
        return (object, ())

    def reported(self, trial: TuneTrial) -> None:
        """A trial of Tune ended an epoch."""
        self._reported.update(numbers_of(trial))

    def failed(self, trial: TuneTrial, traceback: str) -> None:
        """Records that a trial of Tune failed.

        A single trial is tried again or has failed for good. The trials of a group train alone from now on.
        """
        self.watchdog.forget(trial)
        why, shown = cause(traceback), redacted(cut(traceback))
        search, numbers = self.search, numbers_of(trial)
        running = [search.state.trials[n] for n in numbers if not search.state.trials[n].idle]
        if why == "disk":
            search.stop("disk full")  # a resume trains again what could not be saved
        elif why == "unclean":
            search.announce({"event": "unclean", "traceback": shown})
            self.queue.put_back(running)
        elif len(numbers) > 1:
            search.announce({"event": "apart", "numbers": numbers, "traceback": shown})
            self.queue.take_apart(numbers)
            self.queue.put_back(running)
        elif running and search.fail(numbers[0], why, shown):
            self.queue.put_back(running)

    def hint(self, hints: Sequence[tuple[int, str]]) -> None:
        """Shows hints (trial number, text) to the user, each text only for the first trial with it."""
        for number, text in hints:
            if text not in self._hints:
                self._hints.add(text)
                self.search.announce({"event": "hint", "number": number, "text": text})

    def is_over(self, trial: TuneTrial) -> bool:
        """Whether a trial of Tune stops after the epoch that it reported.

        At a limit (`LIMITS`) a trial with its own loop still ends by itself after its last epoch.
        """
        search = self.search
        running = [search.state.trials[n] for n in numbers_of(trial) if not search.state.trials[n].idle]
        if search.stopping in LIMITS:
            return not any(own.epoch >= search.config.search.epochs for own in running)
        return bool(search.stopping) or all(search.study.is_ending(own.number) for own in running)

    def settle(self) -> None:
        """Does the work after each step of Tune's loop, while the trials that reported are training again."""
        self.search.take_requests()
        if self._reported:
            checkpoint_cleanup.limit(self.search, self._reported)
            self._reported = set()
        self.watchdog.check()
        self._keep_time()
        self._progress.ask(self.watchdog.longest_silence)

    @property
    def _may_race(self) -> bool:
        """Whether the values of the trials can be compared over seeds."""
        config = self.search.config
        return len(config.objectives) < 2 and len(config.balanced) < 2 and config.search.fuse == 1

    def _keep_time(self) -> None:
        """Stops the trials, or the start of new trials, by the time plan."""
        search, plan = self.search, replace(self._plan, budget_seconds=self._budget.seconds)
        if math.isinf(self._budget.seconds) or search.stopping:
            search.study.closed = search.study.closed and bool(search.stopping)
            search.study.races = False
            return
        left = self._budget.left
        trials = TrialsSoFar.from_state(search.config, search.state) if plan.retrain else None
        reserved = search.reserved_seconds = plan.after_trials(trials, left).seconds
        if plan.must_stop_trials(left, reserved, self.watchdog.epochs_left()):
            search.stop("time budget")
        elif (best := search.state.best()) is not None:
            runs = RACERS + 1 if self._may_race else 0
            trainings = plan.next_trainings(left, reserved, best.epoch_seconds, runs)
            search.study.closed, search.study.races = trainings != "trials", trainings == "race"
