"""The one adapter: any task as a Ray Tune trainable. The only file here that imports ray."""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune

from trainables import fused, get_task, training
from trainables.fused import Member
from trainables.task import Splits


class TaskTrainable(tune.Trainable):
    """One trial, or several of one shape as one batched model: a step is an epoch of each.

    The config's `trials` hold a `number`, `params`, `seed` and `resume_from` each: the checkpoints an earlier session
    left, newest first. A checkpoint has a file for each trial, `NNNN.pt`, with the learner's whole state, the same
    whether it trained alone or not. An actor is reused for many trials; `epoch` is a trial's own counter and, unlike
    Tune's `training_iteration`, goes on over a resume.
    """

    def setup(
        self, config: dict[str, Any], *, task: str, splits: Splits, epochs: int, resources: dict[str, Any]
    ) -> None:
        self._task = get_task(task)
        self._splits, self._epochs, self._resources = splits, epochs, resources
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._members = {trial["number"]: self._begin(trial) for trial in new_config["trials"]}
        self._reported: list[int] = []
        self._leaving: set[int] = set()
        return True

    def _begin(self, trial: dict[str, Any]) -> Member:
        device = training.choose_device(**self._resources)
        for checkpoint in trial["resume_from"]:
            learner = self._build(trial, device)
            try:
                training.load(learner, Path(checkpoint))
                return Member(learner, training.rng_state())
            except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
                # A torn last checkpoint: the one before it, or the beginning, gives the same results later.
                logging.getLogger(__name__).warning("checkpoint %s cannot be read (%s)", checkpoint, error)
        return Member(self._build(trial, device), training.rng_state())

    def _build(self, trial: dict[str, Any], device: training.Device) -> training.Learner:
        training.seed_everything(trial["seed"])
        return self._task.build(trial["params"], self._splits, self._epochs, device)

    def drop(self, numbers: Sequence[int]) -> None:
        """These trials are over: they leave before the next step, and are still part of a checkpoint due now."""
        self._leaving.update(numbers)

    def step(self) -> dict[str, Any]:
        for number in self._leaving:
            del self._members[number]
        self._leaving.clear()
        # After a torn checkpoint one may be behind the others, who then wait for it.
        behind = min(member.learner.epoch for member in self._members.values())
        due = {number: one for number, one in self._members.items() if one.learner.epoch == behind}
        self._reported = list(due)
        outcomes = fused.run_epoch(self._task, list(due.values()), self._splits.train, self._splits.val)
        trials = [
            {"number": number, "epoch": behind + 1, **self._result(outcome)}
            for number, outcome in zip(due, outcomes, strict=True)
        ]
        return {"trials": trials, "device": next(iter(due.values())).learner.device.name}

    def _result(self, outcome: dict[str, float] | training.Diverged) -> dict[str, Any]:
        if isinstance(outcome, training.Diverged):
            return {"metrics": {}, "diverged": str(outcome)}
        key = f"val_{self._task.objective.metric}"
        return {"metrics": outcome, "diverged": None if math.isfinite(outcome[key]) else f"{key} is {outcome[key]}"}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        for number in self._reported:
            member = self._members[number]
            training.set_rng_state(member.rng)
            training.save(member.learner, Path(checkpoint_dir) / f"{number:04d}.pt")
