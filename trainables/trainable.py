"""The one adapter: any task as a Ray Tune trainable. The only file here that imports ray."""

from __future__ import annotations

import logging
import math
import pickle
from pathlib import Path
from typing import Any

from ray import tune

from trainables import get_task, training
from trainables.task import Splits

CHECKPOINT_FILE = "learner.pt"


class TaskTrainable(tune.Trainable):
    """One trial: each step is an epoch, each checkpoint the learner's whole state.

    The trial's config holds `number`, `params`, `seed` and `resume_from`, the checkpoint folders an earlier
    session left, newest first. An actor is reused for many trials; `epoch` is the trial's own counter and, unlike
    Tune's `training_iteration`, goes on over a resume.
    """

    def setup(
        self, config: dict[str, Any], *, task: str, splits: Splits, epochs: int, resources: dict[str, Any]
    ) -> None:
        self._task = get_task(task)
        self._splits, self._epochs, self._resources = splits, epochs, resources
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._start(new_config)
        return True

    def _start(self, config: dict[str, Any]) -> None:
        device = training.choose_device(**self._resources)
        for folder in [*config["resume_from"], None]:
            training.seed_everything(config["seed"])
            self._learner = self._task.build(config["params"], self._splits, self._epochs, device)
            if folder is None:
                return
            try:
                training.load(self._learner, Path(folder) / CHECKPOINT_FILE)
                return
            except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
                # A torn last checkpoint: the one before it, or the beginning, gives the same results later.
                logging.getLogger(__name__).warning("checkpoint %s cannot be read (%s)", folder, error)

    def step(self) -> dict[str, Any]:
        learner, splits = self._learner, self._splits
        try:
            metrics = training.run_epoch(self._task, learner, splits.train, splits.val)
        except training.Diverged as error:
            return {"epoch": learner.epoch, "diverged": str(error), "metrics": {}, "device": learner.device.name}
        objective = metrics[f"val_{self._task.objective.metric}"]
        diverged = None if math.isfinite(objective) else f"val_{self._task.objective.metric} is {objective}"
        return {"epoch": learner.epoch, "diverged": diverged, "metrics": metrics, "device": learner.device.name}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        training.save(self._learner, Path(checkpoint_dir) / CHECKPOINT_FILE)

    def load_checkpoint(self, checkpoint: dict[str, Any] | str | None) -> None:
        training.load(self._learner, Path(str(checkpoint)) / CHECKPOINT_FILE)
