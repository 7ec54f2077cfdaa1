"""Ends workers whose trials exceed their time or report nothing."""

from __future__ import annotations

import math
import time

import ray
from ray.tune.experiment import Trial as TuneTrial

from search.core.config import parse_duration
from search.core.decision import is_over_time
from search.runtime.search import Search


def numbers_of(trial: TuneTrial) -> list[int]:
    """The numbers of the search's trials that a trial of Tune trains."""
    return [t["number"] for t in trial.config["trials"]]


class Watchdog:
    """Watches `search.stall_timeout` and `search.trial_timeout` inside epochs.

    Attributes:
        since: the time of the last start or report of each running trial of Tune, by `time.monotonic`.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        #: Trials whose workers start.
        self._expected: list[TuneTrial] = []
        self.since: dict[TuneTrial, float] = {}
        #: Trials of batched models that requests stopped, and that their workers were told to drop.
        self._dropped: set[int] = set()

    def expect(self, trial: TuneTrial) -> None:
        """A trial of Tune waits for a worker. Its time counts from the moment when it has the worker."""
        self._expected.append(trial)

    def heard(self, trial: TuneTrial) -> None:
        """A trial of Tune started or reported."""
        self.since[trial] = time.monotonic()

    def forget(self, trial: TuneTrial) -> None:
        """A trial of Tune ended."""
        self.since.pop(trial, None)

    @property
    def longest_silence(self) -> float:
        """Seconds since the oldest of the last reports of running trials; minus infinity without running trials."""
        return time.monotonic() - min(self.since.values(), default=math.inf)

    def epochs_left(self) -> list[float]:
        """The seconds until each running epoch ends, by `Trial.epoch_seconds`.

        A trial with one epoch is expected to take as long as the slowest trial with several.
        """
        trials, now = self._search.state.trials, time.monotonic()
        longest = max((trial.epoch_seconds for trial in trials.values() if trial.epoch > 1), default=0.0)
        return [
            max(0.0, max(trials[n].epoch_seconds, longest if trials[n].epoch == 1 else 0.0) - (now - since))
            for trial, since in self.since.items()
            for n in numbers_of(trial)
            if trials[n].epoch
        ]

    def check(self) -> None:
        """Ends the workers of trials that exceed their time limit, hang, or are stopped by a request."""
        search, limit = self._search, self._search.config.search.stall_timeout
        for trial in [trial for trial in self._expected if trial.status == TuneTrial.RUNNING]:
            self.heard(trial)
        self._expected = [trial for trial in self._expected if trial.status == TuneTrial.PENDING]
        for trial, since in list(self.since.items()):
            if self._ends_by_request(trial):
                continue
            silent = time.monotonic() - since
            running = [n for n in numbers_of(trial) if not search.state.trials[n].idle]
            late = [
                n for n in running if is_over_time(search.state.trials[n], search.config.search, silent / len(running))
            ]
            stalled = limit is not None and silent > parse_duration(limit)
            if not (late or stalled) or trial.temporary_state.ray_actor is None:
                continue
            search.end_late(late)
            if stalled and limit is not None:
                self._stalled(running, limit)
            self.forget(trial)
            ray.kill(trial.temporary_state.ray_actor)  # Tune reports an error, which reaches `TuneRunner.failed`

    def _ends_by_request(self, trial: TuneTrial) -> bool:
        """Ends the worker of a trial that a request stopped. A worker with further trials only drops it."""
        trials = self._search.state.trials
        stopped = [n for n in numbers_of(trial) if trials[n].stopped_by and n not in self._dropped]
        if not stopped or (actor := trial.temporary_state.ray_actor) is None:
            return False
        over = all(trials[n].idle for n in numbers_of(trial))
        if over:
            self.forget(trial)
            ray.kill(actor)
        else:
            actor.drop.remote(stopped)
        self._dropped.update(stopped)
        return over

    def _stalled(self, numbers: list[int], limit: str) -> None:
        search = self._search
        search.announce({"event": "stalled", "numbers": numbers, "limit": limit})
        for number in numbers:  # after its last epoch a trial fails at once: a retry would train all epochs again
            if search.state.trials[number].epoch >= search.config.search.epochs:
                why = f"it did not come to its end within {limit} (search.stall_timeout) after its last epoch"
                search.fail(number, "mistake", f"TrainingError: {why}")
