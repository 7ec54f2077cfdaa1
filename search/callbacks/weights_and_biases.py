"""Sends the metrics of a search to Weights & Biases: a run for each trial, in a group with the name of the search."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from search.callbacks.values import plain
from search.core.events import Event, Notice
from search.core.state import SearchState

#: Seconds that the end of a search waits until everything is sent.
PATIENCE = 30.0


class WeightsAndBiases:
    """A callback that logs to W&B from a thread, so that no trial waits for it.

    The login, the project's owner and the mode (`WANDB_MODE=offline`) are those of W&B: its environment variables and
    files. An epoch is logged once. W&B may lack the last epochs before a kill; the journal has them.

    >>> search.callbacks.WeightsAndBiases  # doctest: +SKIP
    """

    __name__ = "wandb"

    def __init__(
        self, name: str, *, project: str = "search", folder: str | Path | None = None, key: str | None = None
    ) -> None:
        """
        Args:
            name: the group of the runs, and the beginning of their names.
            folder: for W&B's own files; by default the current folder.
            key: the beginning of the ids of the runs, the same in each session of a search; by default `name`.
        """
        self._name, self._project, self._key = name, project, key or name
        self._folder = None if folder is None else Path(folder)
        #: The last epoch of each trial that W&B has.
        self._had: dict[int, int] = {}
        self._queue: queue.SimpleQueue[tuple[str, int, Mapping[str, Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    @classmethod
    def of_search(cls, folder: Path, name: str, task: str, key: str) -> WeightsAndBiases:
        """The writer that `search.writers` names, for the search `name` with the id `key`."""
        return cls(name, project=task, folder=folder, key=key[:12])

    def __call__(self, event: Event | Notice, state: SearchState) -> None:
        """Queues the metrics of an event; raises the error of W&B that ended the thread."""
        if self._error is not None:
            raise self._error
        match event["event"]:
            case "session":
                self._had = {trial.number: trial.epoch for trial in state.trials.values()}
            case "result":
                self._result(event["number"], event["epoch"], event["metrics"], state)
            case "completed" | "stopped_early" | "timed_out" | "failed" | "paused" | "interrupted" | "infeasible":
                self._end_if_idle(event["number"], state)
            case "ended":
                self._close()
            case _:
                pass

    def _result(self, number: int, epoch: int, metrics: Mapping[str, float], state: SearchState) -> None:
        if epoch > self._had.get(number, 0):  # an epoch may be trained again, as its checkpoint was lost
            self._had[number] = epoch
            params = plain(dict(state.trials[number].params))
            self._put("log", number, {"params": params, "epoch": epoch, "metrics": dict(metrics)})
        self._end_if_idle(number, state)

    def _end_if_idle(self, number: int, state: SearchState) -> None:
        trial = state.trials[number]
        if trial.idle or trial.outcome == "interrupted":
            best = {f"best_{state.objective.key}": trial.best_value} if trial.can_win else {}
            self._put("finish", number, {"outcome": trial.outcome, **best})

    def _put(self, what: str, number: int, about: Mapping[str, Any]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
            self._thread.start()
        self._queue.put((what, number, about))

    def _close(self) -> None:
        if self._thread is None:
            return
        self._queue.put(None)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            raise TimeoutError(f"W&B did not take everything within {PATIENCE:.0f} s")
        self._thread = None
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        runs: dict[int, Any] = {}
        try:
            while (item := self._queue.get()) is not None:
                what, number, about = item
                if what == "log":
                    if number not in runs:
                        runs[number] = self._begin(number, about["params"])
                    runs[number].log({**about["metrics"], "epoch": about["epoch"]}, step=about["epoch"])
                elif (run := runs.pop(number, None)) is not None:
                    run.summary.update(about)
                    run.finish()
            for run in runs.values():
                run.finish()
        except Exception as error:
            self._error = error

    def _begin(self, number: int, params: Mapping[str, Any]) -> Any:
        """The run of a trial. A trial that continues has the same run."""
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True)
        return wandb.init(
            project=self._project, group=self._name, name=f"{self._name}-trial-{number:04d}",
            id=f"{self._key}-{number}", config=dict(params), dir=self._folder, resume="allow", reinit="create_new",
            settings=settings,
        )  # fmt: skip
