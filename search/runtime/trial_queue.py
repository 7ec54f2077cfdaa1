"""The trials that wait for a worker, and the configuration of the next trial for the worker."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from search.core.state import Checkpoint, Trial
from search.runtime.placement import machines, place
from search.runtime.search import Search
from search.runtime.transfer import pieces
from trainables import Fusable, InputError

#: Seconds between two counts of the machines of the cluster.
RECOUNT = 2.0


class TrialQueue:
    """The trials to train next. Trials of one shape may train together as one batched model (`search.fuse`).

    Attributes:
        live: the ids of Tune's trials that train now.
    """

    def __init__(self, search: Search, concurrency: int) -> None:
        """
        Args:
            concurrency: trials at once, on the machines at the start.
        """
        self._search, self._fits, self._counted = search, concurrency, time.monotonic()
        self._wanted = search.config.search.concurrency
        self.live: set[str] = set()
        self._waiting = search.state.unfinished()
        #: Trials whose group failed. Each now trains alone, which shows the trial at fault.
        self._alone: set[int] = set()
        self._launched = 0

    @property
    def concurrency(self) -> int:
        """Trials at once: `search.concurrency`, or else the number that fits on the present machines of the cluster."""
        config, wanted = self._search.config, self._search.config.search.concurrency
        if wanted != self._wanted or (wanted is None and time.monotonic() - self._counted > RECOUNT):
            self._wanted = wanted
            with suppress(InputError):  # no trial fits now: running trials are lost, and wait for a machine
                self._fits = place(config, machines()).concurrency
            self._counted = time.monotonic()
        return self._fits

    def put_back(self, trials: Sequence[Trial]) -> None:
        """Puts trials that failed and are tried again before the waiting trials."""
        self._waiting = [*trials, *self._waiting]

    def take_apart(self, numbers: Iterable[int]) -> None:
        """Makes these trials train alone from now on."""
        self._alone.update(numbers)

    def next_config(self) -> dict[str, Any] | None:
        """The configuration of the next trial or group for `TaskTrainable`; None if no trial can begin."""
        group = self._next_group()
        if not group:
            return None
        self._launched += 1  # part of the name, as a trial may be launched several times
        name = f"{group[0].number:04d}" + (f"+{len(group) - 1}" if len(group) > 1 else "") + f"-{self._launched}"
        return {"name": name, "trials": [self._config_of(trial) for trial in group]}

    def _config_of(self, trial: Trial) -> dict[str, Any]:
        scheduler, epochs = self._search.study.scheduler, range(1, self._search.config.search.epochs)
        forks = trial.fork is not None and not trial.checkpoints
        checkpoints = self._of_other(trial) if forks else trial.checkpoints
        latest = trial.curve.get(trial.epoch, {})
        return {
            "number": trial.number,
            "params": trial.params,
            "seed": trial.seed,
            "micro_batches": trial.micro_batches,
            "figures": {name: latest.get(name) for name in self._search.config.figures_before},
            "decisions": [epoch for epoch in epochs if scheduler.decides(trial.number, epoch)],
            "resume_from": [(checkpoint.name, checkpoint.digest) for checkpoint in reversed(checkpoints)],
            "forks": forks,
            "carried": pieces(self._search, checkpoints[-1].name) if checkpoints else {},
        }

    def _of_other(self, trial: Trial) -> list[Checkpoint]:
        """The checkpoint of another trial from which this trial starts; empty with a notice if its file is gone."""
        assert trial.fork is not None
        number, epoch = trial.fork
        found = [saved for saved in self._search.state.trials[number].checkpoints if saved.epoch == epoch]
        if not found:
            text = f"the checkpoint of trial {number} is gone; it starts from the beginning"
            self._search.announce({"event": "hint", "number": trial.number, "text": text})
        return found

    def _next_group(self) -> list[Trial]:
        """The next trial, and up to `fuse - 1` more of the same shape."""
        search, fuse = self._search, self._search.config.search.fuse
        search.hold(self._waiting)
        self._waiting = [trial for trial in self._waiting if not trial.idle]
        if search.stopping:
            return []
        while len(self._waiting) < (fuse * self.concurrency if fuse > 1 else 1):
            if (trial := search.propose()) is None:
                break
            self._waiting.append(trial)
        ends = search.state.paused_by or search.state.stopped_by
        able = [trial for trial in self._waiting if trial.owes_epoch] if ends else self._waiting
        if not able:
            return []
        first = able[0]
        group = [first] if fuse == 1 or first.number in self._alone else self._of_one_shape(first, fuse)
        self._waiting = [trial for trial in self._waiting if trial not in group]
        return group

    def _of_one_shape(self, first: Trial, fuse: int) -> list[Trial]:
        """The trial, and waiting trials of its shape."""
        task = self._search.task
        assert isinstance(task, Fusable)  # checked before the search began
        if (shape := task.shape(first.params)) is None:
            return [first]
        able = [trial for trial in self._waiting if trial.number not in self._alone]
        alike = [trial for trial in able if task.shape(trial.params) == shape]
        # The free workers share these trials, so no worker is left without work.
        return alike[: min(fuse, math.ceil(len(alike) / (self.concurrency - len(self.live))))]

    @property
    def exhausted(self) -> bool:
        """Whether no trial trains and no trial is left. A trial that trains may fail and be tried again."""
        study = self._search.study
        if self.live or self._search.stopping:
            return not self.live
        left = self._waiting or study.has_more or study.promote() is not None or study.state.paused_by
        return not (left or study.next_rerun() is not None)
