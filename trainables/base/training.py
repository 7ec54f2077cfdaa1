"""The training loop that all tasks share: device, precision, seeds, gradient steps, checkpoints, measurements."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch
from torch import nn

from trainables.base.device import Device
from trainables.base.errors import Damaged, first_line
from trainables.base.files import replacing
from trainables.base.forks import load_part
from trainables.base.health import EnergyMeter, MemoryPeak, dead_relus
from trainables.base.task import SelfTrained, Training, WithFiles

#: Batches from one check of the loss to the next. Each check waits for the device.
CHECK_EVERY = 20

T = TypeVar("T")
Trained = TypeVar("Trained", bound=Training)


class Diverged(Exception):
    """The training loss is NaN or infinite."""


class Ended(Exception):
    """The training of a `SelfTrained` task is over: it trains no further epoch."""


def seed_everything(seed: int) -> None:
    """Seeds the generators of Python, NumPy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The state of every generator, in types that `torch.load(weights_only=True)` admits."""
    state: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, gauss = state
    version, internal, cached = random.getstate()
    return {
        "python": (version, torch.tensor(internal), cached),  # a tensor, as torch.save visits each of 625 numbers
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Sets every generator to a state that `rng_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(torch.as_tensor(internal).tolist()), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _once(made: dict[int, tuple[Any, Any]], split: Any, make: Callable[[], T]) -> T:
    """What `make` returned for a split; it is called once for each split."""
    if id(split) not in made:
        # The split is stored too: if it were freed, another object could get its id.
        made[id(split)] = split, make()
    return made[id(split)][1]


@dataclass
class Learner:
    """The whole state of a training. After saving and loading it, the training continues bit for bit on a CPU.

    Attributes:
        micro_batches: the number of parts into which a batch is divided. The gradients of the parts add up; more parts
            take less memory.
        extra: other values that the task needs for training, such as class weights. Checkpoints do not hold them.
        notes: plain data that the task records while it trains. Checkpoints hold it.
        finished: whether the training has ended, so that the weights do not change any more.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler | None
    device: Device
    params: dict[str, Any]
    epoch: int = 0
    micro_batches: int = 1
    extra: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    _resident: dict[int, tuple[Any, Any]] = field(default_factory=dict, init=False, repr=False)
    _outputs: dict[int, tuple[Any, Any]] = field(default_factory=dict, init=False, repr=False)
    finished: bool = field(default=False, init=False, repr=False)

    def resident(self, split: Any, make: Callable[[], T]) -> T:
        """Calls `make` once for each split of a training and returns its result, such as the data on the device."""
        return _once(self._resident, split, make)

    def output(self, split: Any, make: Callable[[], T]) -> T:
        """What the model makes of a split, by `make`; after the end of the training it is made once for each split.

        The test figures, the pictures of mistakes and the samples of an interval come from the same predictions.
        """
        return _once(self._outputs, split, make) if self.finished else make()

    @property
    def parameters(self) -> int:
        """The number of the model's parameters."""
        return sum(p.numel() for p in self.model.parameters())

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint holds, the state of the random generators included."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "epoch": self.epoch,
            "notes": self.notes,
            "rng": rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned; sets the random generators too. `fork` in it: see `load`."""
        fork = state.get("fork", False)
        self.model.load_state_dict(state["model"])
        load_part(self.optimizer, state["optimizer"], fork)
        if self.schedule is not None:
            load_part(self.schedule, state["schedule"], fork)
        self.epoch, self.notes = state["epoch"], state["notes"]
        set_rng_state(state["rng"])


def write(learner: Training, file: IO[bytes]) -> None:
    """Writes a checkpoint to an open file."""
    torch.save(learner.state_dict(), file)


def files_of(learner: Training) -> dict[str, Path]:
    """The files of the state that `write` wrote last, by name; empty for most trainings."""
    return learner.files() if isinstance(learner, WithFiles) else {}


def save(learner: Training, path: Path) -> None:
    """Writes a checkpoint whole or not at all; raises OSError if it cannot be written."""
    with replacing(path) as file:
        write(learner, file)


def load(learner: Training, source: Path | IO[bytes], folder: Path | None = None, fork: bool = False) -> None:
    """Restores a checkpoint, without a check of its digest; `restore` checks it.

    Args:
        folder: the folder with the other files of the checkpoint; None if it has none.
        fork: whether the checkpoint is of another trial. `fork` in the state tells the learner.

    Raises:
        Damaged: the checkpoint has other files and there is no folder.
    """
    # To the CPU first: the generators' states stay there, and load_state_dict copies to each tensor's device.
    state = torch.load(source, map_location="cpu", weights_only=True)
    learner.load_state_dict({**state, "fork": True} if fork else state)
    if isinstance(learner, WithFiles):
        learner.take_files(folder)


def restore(
    build: Callable[[], Trained], states: Sequence[tuple[str, str | None]],
    opened: Callable[[str, str | None], IO[bytes]], others: Callable[[str], Path | None] = lambda name: None,
    fork: bool = False,
) -> tuple[Trained, list[Damaged]]:  # fmt: skip
    """Restores the first sound checkpoint of a list; starts from the beginning if none is sound.

    Args:
        build: makes the training at its beginning. It is called again after a file that was loaded in part only.
        states: names and digests (None: not known) of checkpoints, in the order in which to try them. A file may be
            missing.
        opened: `Storage.open_checked`.
        others: `Storage.others`.
        fork: whether the checkpoints are of another trial; see `load`.

    Returns:
        The training, and the error of each damaged file. A missing file is no damaged file.

    Raises:
        Exception: a file is undamaged and cannot be loaded, because other code wrote it.
    """
    damaged: list[Damaged] = []
    learner = build()
    for name, digest in states:
        loaded = False
        try:
            with opened(name, digest) as file:
                folder = others(name)
                loaded = True
                load(learner, file, folder, fork)
            return learner, damaged
        except FileNotFoundError:
            continue
        except Damaged as error:
            damaged.append(error)
            learner = build() if loaded else learner
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if digest is not None:
                raise
            damaged.append(Damaged(name, f"{type(error).__name__}: {first_line(error)}"))
            learner = build()
    return learner, damaged


@dataclass(frozen=True)
class Step:
    """The progress of an epoch.

    Attributes:
        done, of: the steps so far, and those of the whole epoch. A training of the user may count in other units.
        samples: the samples so far; None if they are not known.
        mean_loss: returns the mean loss so far; it waits for the device. None if the loss is not known.
    """

    done: float
    of: float
    samples: int | None = None
    mean_loss: Callable[[], float] | None = None


#: Called after each step.
Observer = Callable[[Step], None]
_observers: list[Observer] = []


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Calls `observer` after each step inside the block. An exception of the observer ends the epoch."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def step_ended(
    done: float, of: float, samples: int | None = None, mean_loss: Callable[[], float] | None = None
) -> None:
    """Calls the observers; for training loops that do not use `fit_batches`."""
    for observer in _observers:
        observer(Step(done, of, samples, mean_loss))


#: `forward(batch)` returns the mean loss of the batch, its number of samples, and sums over samples of other metrics.
Forward = Callable[[Any], tuple[torch.Tensor, int, dict[str, torch.Tensor]]]


def fit_batches(
    learner: Learner, batches: Sequence[Any], forward: Forward, clip_norm: float | None = None
) -> dict[str, float]:
    """Takes a gradient step for each batch.

    Args:
        batches: if `learner.micro_batches` is above 1, each batch must be a tensor with samples along its first
            dimension, or have `len` and `chunk` as a tensor has.
        clip_norm: largest global L2 norm of the gradient; None: no clipping.

    Returns:
        `loss` and every key of `forward`'s sums, averaged over samples; `gradient_norm`, the mean over steps of the
        norm before clipping; `samples`, the number of samples.

    Raises:
        Diverged: a loss or a gradient norm was not finite.
    """
    learner.model.train()
    device = learner.device.torch_device
    totals: dict[str, torch.Tensor] = {}
    loss_sum, norm_sum = torch.zeros((), device=device), torch.zeros((), device=device)
    samples, steps = 0, 0
    parameters = [p for p in learner.model.parameters() if p.requires_grad]
    for batch in batches:
        learner.optimizer.zero_grad(set_to_none=True)
        for part in _micro_batches(batch, learner.micro_batches):
            with learner.device.autocast():
                loss, size, sums = forward(part)
            (loss if learner.micro_batches == 1 else loss * (len(part) / len(batch))).backward()
            loss_sum += loss.detach().float() * size
            for key, value in sums.items():
                totals[key] = totals.get(key, torch.zeros((), device=device)) + value.detach()
            samples += size
        norm = nn.utils.clip_grad_norm_(parameters, clip_norm if clip_norm else float("inf"))
        learner.optimizer.step()
        norm_sum += norm
        steps += 1
        if steps % CHECK_EVERY == 0 and (diverged := not_finite(*torch.stack([loss_sum, norm_sum]).tolist())):
            raise diverged
        step_ended(steps, len(batches), samples, partial(mean_of, loss_sum, samples))
    # One transfer for all figures: each transfer waits for the device.
    loss, norm, *sums_read = torch.stack([t.double() for t in (loss_sum, norm_sum, *totals.values())]).tolist()
    if diverged := not_finite(loss, norm):
        raise diverged
    return {
        "loss": loss / samples,
        **{key: value / samples for key, value in zip(totals, sums_read, strict=True)},
        "gradient_norm": norm / steps,
        "samples": float(samples),
    }


def mean_of(total: torch.Tensor, samples: int) -> float:
    """A sum divided by `samples`, averaged over the members of a stack. Waits for the device."""
    return total.mean().item() / samples


def _micro_batches(batch: Any, parts: int) -> Sequence[Any]:
    if parts == 1:
        return [batch]
    return batch.chunk(max(1, min(parts, len(batch) // 2)))  # batch normalisation needs two samples


def not_finite(loss: float, gradient_norm: float) -> Diverged | None:
    """The exception `Diverged` if one of the figures is not finite, else None."""
    for what, value in (("training loss", loss), ("gradient norm", gradient_norm)):
        if not math.isfinite(value):
            return Diverged(f"{what} is {value}")
    return None


def of_split(split: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics with the split in their names: `{"loss": 0.4}` of `val` becomes `{"val_loss": 0.4}`."""
    return {f"{split}_{name}": value for name, value in metrics.items()}


def finish(task: Any, learner: Any, train: Any) -> None:
    """Ends a training after its last epoch. A `SelfTrained` training runs on: the code after its loop runs too."""
    if isinstance(task, SelfTrained):
        with suppress(Ended):
            task.run_epoch(learner, train, None)
    else:
        learner.finished = True


def run_epoch(task: Any, learner: Learner, train: Any, val: Any | None) -> dict[str, float]:
    """Trains and evaluates one epoch, and measures both.

    Returns:
        The task's metrics as `train_*` and, if `val` is given, `val_*`. In addition `epoch_seconds`,
        `peak_memory_mib`, `learning_rate`, `parameters`, `energy_joules` (on a GPU) and `dead_relu_fraction` (on
        validation data). `samples_per_second` (training only) and `gradient_norm` if the task provides them.

    Raises:
        Diverged: the loss or the norm is not finite; `learner.epoch` is the diverged epoch.
    """
    if isinstance(task, SelfTrained):
        return task.run_epoch(learner, train, val)
    learner.epoch += 1
    device, start = learner.device, time.perf_counter()
    memory, energy = MemoryPeak(device.torch_device), EnergyMeter(device.torch_device, device.share)
    rate = max(group["lr"] for group in learner.optimizer.param_groups)
    trained = task.train_epoch(learner, train)
    if learner.schedule is not None:
        learner.schedule.step()
    learner.device.synchronize()
    train_seconds = time.perf_counter() - start
    if diverged := not_finite(trained.get("loss", 0.0), trained.get("gradient_norm", 0.0)):
        raise diverged
    measured = {}
    if "gradient_norm" in trained:
        measured["gradient_norm"] = trained.pop("gradient_norm")
    if "samples" in trained:
        measured["samples_per_second"] = trained.pop("samples") / train_seconds
    metrics = of_split("train", trained)
    if val is not None:
        with dead_relus(learner.model) as fraction:
            metrics |= of_split("val", task.evaluate(learner, val))
            metrics["dead_relu_fraction"] = fraction()
    learner.device.synchronize()
    return metrics | {
        "epoch_seconds": time.perf_counter() - start,
        "peak_memory_mib": memory.mib(),
        "learning_rate": rate,
        "parameters": float(learner.parameters),
        **energy.measured(),
        **measured,
    }
