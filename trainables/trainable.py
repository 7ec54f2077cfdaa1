"""The one adapter: any task as a Ray Tune trainable. The only file here that imports ray."""

from __future__ import annotations

import dataclasses
import gc
import logging
import math
import pickle
import threading
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import ray
import torch
from ray import tune

from trainables import fused, get_task, training
from trainables.fused import Member
from trainables.leftovers import Footprint, Unclean
from trainables.storage import Storage
from trainables.task import Splits

#: Checkpoints of a group that are on their way to the disk at a time.
WRITERS = 8


class TaskTrainable(tune.Trainable):
    """One trial, or several of one shape as one batched model: a step is an epoch of each, with its checkpoint.

    The config's `trials` hold a `number`, `params`, `seed`, `micro_batches` and `resume_from` each: the checkpoints an
    earlier session left, newest first, with their content in `carried` (object references) where it may be needed.
    A checkpoint is a file with a learner's whole state, the same whether it trained alone or not. An actor is reused
    for many trials; `epoch` is a trial's own counter and, unlike Tune's `training_iteration`, goes on over a resume.
    """

    def setup(
        self, config: dict[str, Any], *, task: str, splits: Splits, epochs: int, resources: dict[str, Any],
        storage: Storage,
    ) -> None:  # fmt: skip
        self._task = get_task(task)
        self._splits, self._epochs, self._resources, self._files = splits, epochs, resources, storage
        self._base: Footprint | None = None
        self._members: dict[int, Member] = {}
        self._begin(config)
        gc.freeze()  # what is there by now stays, and need not be looked through after each trial

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Raises: Unclean, where the trial before left something behind."""
        before = ", ".join(map(str, self._members))
        self._members = {}
        footprint = Footprint.now()
        # The first trial's end is the base: what libraries set up when they are first used is no leak.
        self._base = self._base or footprint
        if left := footprint.beyond(self._base):
            raise Unclean(f"trial {before} left behind: {', '.join(left)}")
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._leaving: set[int] = set()
        self._failure = ""
        try:
            self._members = {trial["number"]: self._member(trial) for trial in config["trials"]}
        except Exception:
            self._failure = _survived()

    def _member(self, trial: dict[str, Any]) -> Member:
        device = training.choose_device(**self._resources)
        storage = self._files
        if not storage.sees_folder:
            carried = {name: ray.get(content) for name, content in trial["carried"].items()}
            storage = dataclasses.replace(storage, carried=carried)
        for checkpoint in trial["resume_from"]:
            learner = self._build(trial, device)
            try:
                with storage.open(checkpoint) as file:
                    training.load(learner, file)
                return Member(learner, training.rng_state())
            except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
                # A torn last checkpoint: the one before it, or the beginning, gives the same results later.
                logging.getLogger(__name__).warning("checkpoint %s cannot be read (%s)", checkpoint, error)
        return Member(self._build(trial, device), training.rng_state())

    def _build(self, trial: dict[str, Any], device: training.Device) -> training.Learner:
        training.seed_everything(trial["seed"])
        learner = self._task.build(trial["params"], self._splits, self._epochs, device)
        learner.micro_batches = trial["micro_batches"]
        return learner

    def drop(self, numbers: Sequence[int]) -> None:
        """These trials are over: they leave before the next step."""
        self._leaving.update(numbers)

    def step(self) -> dict[str, Any]:
        """`trials`: a number, epoch, metrics, divergence and checkpoint each, and the `device`; or, where a trial
        raised, its traceback as `failed`, so that a worker that is sound is not started anew."""
        try:
            return {"failed": self._failure} if self._failure else self._epoch()
        except Exception:
            return {"failed": _survived()}

    def _epoch(self) -> dict[str, Any]:
        for number in self._leaving:
            del self._members[number]
        self._leaving.clear()
        # After a torn checkpoint one may be behind the others, who then wait for it.
        behind = min(member.learner.epoch for member in self._members.values())
        due = {number: one for number, one in self._members.items() if one.learner.epoch == behind}
        outcomes = fused.run_epoch(self._task, list(due.values()), self._splits.train, self._splits.val)
        trials = [
            {"number": number, "epoch": behind + 1, **self._result(outcome)}
            for number, outcome in zip(due, outcomes, strict=True)
        ]
        saved = self._save([trial["number"] for trial in trials if not trial["diverged"]])
        for trial in trials:
            trial["checkpoint"] = saved.get(trial["number"])
        return {"trials": trials, "device": next(iter(due.values())).learner.device.name}

    def _result(self, outcome: dict[str, float] | training.Diverged) -> dict[str, Any]:
        if isinstance(outcome, training.Diverged):
            return {"metrics": {}, "diverged": str(outcome)}
        key = f"val_{self._task.objective.metric}"
        return {"metrics": outcome, "diverged": None if math.isfinite(outcome[key]) else f"{key} is {outcome[key]}"}

    def _save(self, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Not by Tune: there whole or not at all, and known to the driver together with the epoch's result."""
        turn = threading.Lock()  # a checkpoint holds the state of generators that the process has once

        def save(number: int) -> dict[str, Any]:
            member = self._members[number]

            def write(file: IO[bytes]) -> None:
                with turn:
                    training.set_rng_state(member.rng)
                    training.write(member.learner, file)

            return self._files.save(f"checkpoints/trial-{number:04d}/epoch-{member.learner.epoch:04d}.pt", write)

        if len(numbers) == 1:
            return {numbers[0]: save(numbers[0])}
        # Of small files what takes time is to wait until the disk, or the network, has each.
        with ThreadPoolExecutor(WRITERS) as pool:
            return dict(zip(numbers, pool.map(save, numbers), strict=True))


def _survived() -> str:
    """The traceback of what was raised; raised on where a device may have been left unusable by it."""
    if torch.cuda.is_initialized():
        raise
    return traceback.format_exc()
