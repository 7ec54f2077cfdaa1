"""The adapter that makes any task a Ray Tune trainable."""

from __future__ import annotations

import dataclasses
import gc
import io
import math
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import ray
import torch
from ray import tune

from trainables import get_task
from trainables.base import checkpoint_files, fused, training
from trainables.base.checkpoints import Storage
from trainables.base.device import Device, choose_device
from trainables.base.fused import Member
from trainables.base.hub import limit_waiting
from trainables.base.latency import latency_ms
from trainables.base.leftovers import Footprint, Unclean
from trainables.base.task import SelfTrained, Splits, Timed

#: The number of checkpoints that are written at the same time. Of an epoch of 32 batched trials, checkpoints take 12 %
#: of the time; one after the other they took 18 % (benchmarks/tried.md).
WRITERS = 8
#: The bytes of a piece of a file that travels between machines.
PIECE = 64 * 2**20
#: Seconds between two progress messages of an epoch.
PROGRESS_EVERY = 5.0


class TaskTrainable(tune.Trainable):
    """A worker that trains one trial, or several trials of one shape as one batched model.

    A step trains one epoch of each trial, or several short epochs, and writes checkpoints. Each of the config's
    `trials` has these keys:

        number, params, seed, micro_batches: of the trial.
        figures: by name the figures of the configuration that the driver needs before the first epoch. None: they are
            measured. A trial that continues has them already.
        decisions: the epochs after which the driver may stop or pause the trial.
        resume_from: names and digests of the trial's checkpoints, the newest first.
        forks: whether these checkpoints are of another trial, from which this one starts; False if it is missing.
        carried: the files of the newest checkpoint by name, as `pieces_of` returns them, for a machine that does not
            see them.

    A checkpoint holds a learner's whole state, whether it trained alone or in a stack. A worker is reused for many
    trials. `epoch` counts a trial's epochs; unlike Tune's `training_iteration` it continues after a resume.
    """

    def setup(
        self, config: dict[str, Any], *, task: str, splits: Splits, epochs: int, gather: float,
        resources: dict[str, Any], storage: Storage, board: str,
    ) -> None:  # fmt: skip
        """Called by Tune when the worker starts.

        Args:
            epochs: the number of epochs of a full trial.
            gather: epochs without a decision are reported together until they took this many seconds.
            board: the name of the actor that receives progress messages. The actor may not exist.
        """
        self._task = get_task(task)
        self._splits, self._epochs, self._gather, self._resources = splits, epochs, gather, resources
        self._files, self._board = storage, board
        if not isinstance(self._task, SelfTrained):
            limit_waiting()  # a model that `build` loads by name may be in the local cache
        #: The process has one set of random generators, and several threads write checkpoints with their states.
        self._generators = threading.Lock()
        self._base: Footprint | None = None
        self._members: dict[int, Member] = {}
        #: A folder for copies of files that a trial continues from.
        self._scratch = tempfile.TemporaryDirectory(prefix="trial-")
        #: The exception of a trial, until the driver gets it.
        self._raised: Exception | None = None
        self._begin(config)
        gc.freeze()  # libraries and data stay for the life of the process: no collection has to visit them

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called by Tune to reuse the worker; raises Unclean if the previous trial left something behind."""
        before = ", ".join(map(str, self._members))
        self._members, self._raised = {}, None
        checkpoint_files.settle()
        self._scratch.cleanup()
        self._scratch = tempfile.TemporaryDirectory(prefix="trial-")
        footprint = Footprint.now()
        # Compare with the end of the first trial: what libraries allocate on first use is no leak.
        self._base = self._base or footprint
        if left := footprint.beyond(self._base):
            raise Unclean(f"trial {before} left behind: {', '.join(left)}")
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._leaving: set[int] = set()
        #: The `file` and the `why` of each damaged checkpoint, until the driver gets them.
        self._damaged: list[dict[str, str]] = []
        self._decisions = {trial["number"]: set(trial["decisions"]) for trial in config["trials"]}
        #: The loss of each trial's best epoch in this worker.
        self._best: dict[int, float] = {}
        #: The figures of each trial's configuration, and of the trials of which the driver has to get them.
        self._figures: dict[int, dict[str, float]] = {}
        self._new_figures: dict[int, dict[str, float]] = {}
        try:
            self._members = {trial["number"]: self._member(trial) for trial in config["trials"]}
        except Exception as error:
            self._raised = error

    def _member(self, trial: dict[str, Any]) -> Member:
        device = choose_device(**self._resources)
        scratch = Path(self._scratch.name)
        storage = self._files
        if not storage.sees_folder:
            storage = received(storage, trial["carried"], scratch)
        # An older checkpoint, or the beginning, leads to the same results as the damaged one.
        learner, damaged = training.restore(
            lambda: self._build(trial, device), trial["resume_from"], storage.open_checked,
            partial(storage.others, scratch=scratch), trial.get("forks", False),
        )  # fmt: skip
        self._damaged += [{"file": error.file, "why": error.why} for error in damaged]
        self._measure(trial["number"], learner, trial.get("figures", {}))
        return Member(learner, training.rng_state())

    def _measure(self, number: int, learner: training.Learner, figures: dict[str, float | None]) -> None:
        """Measures the figures that are None. A `SelfTrained` task measures them itself, in its epochs."""
        if isinstance(self._task, SelfTrained):
            return
        self._figures[number] = known = {name: value for name, value in figures.items() if value is not None}
        missing = figures.keys() - known.keys()
        if "parameters" in missing:
            known["parameters"] = float(learner.parameters)
        if "latency_ms" in missing and isinstance(self._task, Timed):
            known["latency_ms"] = latency_ms(self._task, learner, self._splits.val)
        if missing:
            self._new_figures[number] = known

    def _build(self, trial: dict[str, Any], device: Device) -> training.Learner:
        training.seed_everything(trial["seed"])
        learner = self._task.build(trial["params"], self._splits, self._epochs, device)
        learner.micro_batches = trial["micro_batches"]
        if isinstance(self._task, SelfTrained):
            self._task.place(learner, trial["number"], self._files.trial_folder(trial["number"]))
        return learner

    def drop(self, numbers: Sequence[int]) -> None:
        """Removes trials that are over from the worker before the next step."""
        self._leaving.update(numbers)

    def step(self) -> dict[str, Any]:
        """Trains until a decision is due; called by Tune.

        Returns:
            A dictionary with these keys:

            figures: pairs of a trial's number and the figures of its configuration. Where there are any, nothing was
                trained: the driver may stop the trial. Tune would lose an empty dictionary, and numbers as keys.
            trials: for each epoch, in the order in which they ended, `number`, `epoch`, `metrics`, `diverged` and
                `checkpoint` (None if an earlier or later epoch's checkpoint replaces it).
            over: the numbers of trials whose training ended by itself after these epochs.
            said: pairs of a trial's number and a line for the user.
            device: the name of the device.
            failed: the traceback of a trial that raised, instead of the keys above. An exception would make Tune
                replace the worker.
            damaged: the `file` and the `why` of each damaged checkpoint.
        """
        damaged, self._damaged = self._damaged, []
        try:
            return {**self._train(), "damaged": damaged}
        except Exception:
            if torch.cuda.is_initialized():
                raise  # the device may be unusable now
            return {"failed": traceback.format_exc(), "damaged": damaged}

    def _train(self) -> dict[str, Any]:
        if self._raised:
            raise self._raised
        figures, self._new_figures = self._new_figures, {}
        if figures:
            return {"figures": list(figures.items()), **self._report([], [])}
        began = time.monotonic()
        ended: list[dict[str, Any]] = []
        last: list[dict[str, Any]] = []
        #: For each trial the result of its best epoch before the last, and its state after that epoch.
        best: dict[int, tuple[dict[str, Any], bytes]] = {}
        over: list[int] = []
        while not last:
            try:
                trained = self._epoch()
            except training.Ended:
                over = list(self._members)  # the worker of a training that ends by itself has one trial
                break
            except Exception as error:
                if not ended:
                    raise
                self._raised = error  # the next step reports it; this step reports the epochs before
                break
            ended += trained
            with_files = any(getattr(member.learner, "has_files", False) for member in self._members.values())
            if with_files or time.monotonic() - began >= self._gather or any(map(self._is_decided, trained)):
                last = trained
            for result in trained:
                number, loss = result["number"], self._loss(result)
                if loss >= self._best.get(number, math.inf):
                    continue
                self._best[number] = loss
                best.pop(number, None)
                if not last:
                    self._write(number, state := io.BytesIO())
                    best[number] = result, state.getvalue()
        self._save([*best.values(), *((result, None) for result in last if not result["diverged"])])
        return {"figures": [], **self._report(ended, over)}

    def _report(self, ended: list[dict[str, Any]], over: list[int]) -> dict[str, Any]:
        """The result of a step without its figures; see `step`."""
        learners = {number: member.learner for number, member in self._members.items()}
        messages = [(number, line) for number, learner in learners.items() for line in getattr(learner, "messages", ())]
        for learner in learners.values():
            getattr(learner, "messages", []).clear()
        device = next(iter(learners.values())).device.name
        return {"trials": ended, "over": over, "said": messages, "device": device}

    def _epoch(self) -> list[dict[str, Any]]:
        for number in self._leaving:
            del self._members[number]
        self._leaving.clear()
        # A member whose newest checkpoint was damaged is behind the others, which wait until it has caught up.
        behind = min(member.learner.epoch for member in self._members.values())
        due = {number: member for number, member in self._members.items() if member.learner.epoch == behind}
        with training.observed(_ProgressSender(self._board, list(due), behind + 1)):
            outcomes = fused.run_epoch(self._task, list(due.values()), self._splits.train, self._splits.val)
        return [
            {"number": number, "epoch": behind + 1, "checkpoint": None, **self._result(number, outcome)}
            for number, outcome in zip(due, outcomes, strict=True)
        ]

    def _result(self, number: int, outcome: dict[str, float] | training.Diverged) -> dict[str, Any]:
        if isinstance(outcome, training.Diverged):
            return {"metrics": {}, "diverged": str(outcome)}
        key = self._task.objective.key
        outcome = outcome | self._figures.get(number, {})
        return {"metrics": outcome, "diverged": None if math.isfinite(outcome[key]) else f"{key} is {outcome[key]}"}

    def _is_decided(self, result: dict[str, Any]) -> bool:
        """Whether the driver must be asked before the trial goes on after this epoch."""
        due = result["epoch"] in self._decisions[result["number"]]
        return due or result["epoch"] >= self._epochs or result["diverged"] is not None

    def _loss(self, result: dict[str, Any]) -> float:
        return math.inf if result["diverged"] else self._task.objective.val_loss(result["metrics"])

    def _write(self, number: int, file: IO[bytes]) -> None:
        with self._generators:
            training.set_rng_state(self._members[number].rng)
            training.write(self._members[number].learner, file)

    def _save(self, results: Sequence[tuple[dict[str, Any], bytes | None]]) -> None:
        """Writes the checkpoint of each result: the given state, or the trial's present state if it is None.

        Tune's own checkpoints are not used: here each file is whole or absent, and the result names it.
        """

        def save(pair: tuple[dict[str, Any], bytes | None]) -> None:
            result, state = pair
            number, epoch = result["number"], result["epoch"]
            write = partial(self._write, number) if state is None else lambda file: file.write(state)
            others = partial(training.files_of, self._members[number].learner) if state is None else dict
            name = f"checkpoints/trial-{number:04d}/epoch-{epoch:04d}.pt"
            result["checkpoint"] = sent(self._files.save(name, write, others))

        if len(results) == 1:
            save(results[0])
        else:  # small files: most of the time is waiting for the disk or the network
            with ThreadPoolExecutor(WRITERS) as pool:
                list(pool.map(save, results))


def sent(written: dict[str, Any]) -> dict[str, Any]:
    """What `Storage.save` returned; the driver gets references to the pieces of a file in place of its path."""
    if "files" in written:
        pieces = {name: pieces_of(file) if isinstance(file, Path) else file for name, file in written["files"].items()}
        return {**written, "files": pieces}
    return written


def pieces_of(path: Path) -> list[Any]:
    """References to the content of a file in pieces of `PIECE` bytes: no process holds all of it in memory."""
    with path.open("rb") as file:
        return [ray.put(piece) for piece in iter(partial(file.read, PIECE), b"")]


def received(storage: Storage, carried: Mapping[str, list[Any]], scratch: Path) -> Storage:
    """The storage with the files that the driver sent.

    Args:
        carried: the pieces of each file by name. A checkpoint may have other files beside its state.
        scratch: a folder for these other files.
    """
    content, folder = {}, None
    for name, pieces in carried.items():
        if checkpoint_files.checkpoint_of(name) == name:
            content[name] = b"".join(map(ray.get, pieces))
            continue
        path = scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for piece in pieces:
                file.write(ray.get(piece))
        folder = scratch / checkpoint_files.folder_of(checkpoint_files.checkpoint_of(name))
    return dataclasses.replace(storage, carried=content, received=folder)


class _ProgressSender:
    """Sends the progress of a long epoch to the driver's actor every `PROGRESS_EVERY` seconds."""

    def __init__(self, board: str, numbers: list[int], epoch: int) -> None:
        self._board, self._numbers, self._epoch = board, numbers, epoch
        self._began = self._sent = time.monotonic()

    def __call__(self, step: training.Step) -> None:
        now = time.monotonic()
        if now - self._sent < PROGRESS_EVERY:
            return
        self._sent = now
        with suppress(ValueError):  # the actor does not exist
            board = ray.get_actor(self._board)
            taken = now - self._began
            known = {} if step.mean_loss is None else {"loss": step.mean_loss()}
            known |= {} if step.samples is None else {"samples_per_second": step.samples / taken}
            board.tell.remote(self._numbers, {
                "epoch": self._epoch, "done": step.done, "of": step.of, **known,
                "left": taken / step.done * (step.of - step.done),
            })  # fmt: skip
