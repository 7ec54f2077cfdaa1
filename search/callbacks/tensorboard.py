"""Writes the metrics of a search as event files of TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from search.core.events import Event, Notice
from search.core.redaction import redacted
from search.core.state import FinalRun, SearchState, Trial
from trainables import InputError

#: The beginning of the names of the files that TensorBoard reads.
_FILES = "events.out.tfevents.*"


class TensorBoard:
    """A callback that writes a folder `trial-NNNN` for each trial, and `final-NNNN-SEED` for each final training.

    A session that continues a search writes the folders of earlier sessions again, from the journal. So each value is
    there once, whenever the session before was killed.

    >>> board = search.callbacks.TensorBoard("tb")
    """

    __name__ = "tensorboard"

    def __init__(self, folder: str | Path) -> None:
        """
        Args:
            folder: holds the files of one search alone.
        """
        self.folder = Path(folder)
        self._writers: dict[str, SummaryWriter] = {}
        #: The last written epoch by folder.
        self._written: dict[str, int] = {}

    @classmethod
    def of_search(cls, folder: Path, name: str, task: str, key: str) -> TensorBoard:
        """The writer that `search.writers` names, for the search `name` with the id `key`."""
        return cls(folder)

    def __call__(self, event: Event | Notice, state: SearchState) -> None:
        """Writes the metrics of an event; raises InputError if the folder has files of another search."""
        match event["event"]:
            case "session":
                self._begin(state)
            case "result":
                self._write(_trial(event["number"]), event["epoch"], event["metrics"], event.get("time", 0))
                self._end_if_over(state.trials[event["number"]], state)
            case "completed" | "stopped_early" | "timed_out" | "failed" | "paused" | "interrupted" | "infeasible":
                self._end_if_over(state.trials[event["number"]], state)
            case "final_result":
                self._write(
                    _final(event["trial"], event["seed"]), event["epoch"], event["metrics"], event.get("time", 0)
                )
            case "final_finished":
                self._test(state.finals[event["trial"], event["seed"]], event.get("time", 0))
            case "ended":
                for name in list(self._writers):
                    self._close(name)
            case _:
                pass

    def _begin(self, state: SearchState) -> None:
        """Replaces the files of earlier sessions."""
        own = {_trial(number) for number in state.trials} | {_final(*key) for key in state.finals}
        others = {path.parent.name for path in self.folder.glob(f"*/{_FILES}")} - own
        if others:
            raise InputError(f"{self.folder}: has {min(others)} of another search; give each search its own folder")
        for name in own:
            for path in (self.folder / name).glob(_FILES):
                path.unlink()
        for trial in state.trials.values():
            for epoch, metrics in sorted(trial.curve.items()):
                self._write(_trial(trial.number), epoch, metrics, trial.reported)
            self._end_if_over(trial, state)
            self._close(_trial(trial.number))
        for final in state.finals.values():
            for epoch, metrics in sorted(final.curve.items()):
                self._write(_final(final.trial, final.seed), epoch, metrics, 0)
            self._test(final, 0)

    def _write(self, name: str, epoch: int, metrics: Mapping[str, float], time: int) -> None:
        """Writes the metrics of an epoch once: an epoch may be trained again, as its checkpoint was lost.

        Args:
            time: milliseconds since 1970; 0 for now.
        """
        if epoch <= self._written.get(name, 0):
            return
        self._written[name] = epoch
        for metric, number in metrics.items():
            if math.isfinite(number):
                self._writer(name).add_scalar(metric, number, epoch, time / 1000 if time else None)

    def _end_if_over(self, trial: Trial, state: SearchState) -> None:
        """Writes the hyperparameters of a trial that is over, with its best value, and closes its file."""
        if not trial.idle:
            return
        if trial.over and trial.can_win:
            params = {name: _shown(value) for name, value in trial.params.items() if value is not None}
            best = {f"best_{state.objective.key}": trial.best_value}
            self._writer(_trial(trial.number)).add_hparams(params, best, run_name=".")
        self._close(_trial(trial.number))

    def _test(self, final: FinalRun, time: int) -> None:
        """Writes the test figures of a final training, and closes its file."""
        name = _final(final.trial, final.seed)
        for metric, number in (final.test or {}).items():
            if math.isfinite(number):
                self._writer(name).add_scalar(f"test_{metric}", number, final.epochs, time / 1000 if time else None)
        self._close(name)

    def _writer(self, name: str) -> SummaryWriter:
        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self.folder / name))
        return self._writers[name]

    def _close(self, name: str) -> None:
        if writer := self._writers.pop(name, None):
            writer.close()


def _trial(number: int) -> str:
    return f"trial-{number:04d}"


def _final(trial: int, seed: int) -> str:
    return f"final-{trial:04d}-{seed}"


def _shown(value: Any) -> Any:
    """A hyperparameter as TensorBoard takes it: a number, a truth value or a text without secrets."""
    return value if isinstance(value, bool | int | float) else redacted(str(value))
