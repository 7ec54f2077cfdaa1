"""The training loop that all tasks share: device, precision, seeds, gradient steps, checkpoints, measurements."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import nn

from trainables.base.device import Device
from trainables.base.errors import Damaged, first_line
from trainables.base.files import replacing
from trainables.base.health import EnergyMeter, MemoryPeak, dead_relus

#: The loss is checked every so many batches, as each check waits for the device.
CHECK_EVERY = 20

T = TypeVar("T")


class Diverged(Exception):
    """The training loss is NaN or infinite."""


class Ended(Exception):
    """A training that runs by itself has come to its end, and trains no further epoch."""


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


@dataclass
class Learner:
    """The whole state of a training. Saved and loaded as one, the training continues bit for bit on a CPU."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler | None
    device: Device
    params: dict[str, Any]
    epoch: int = 0
    #: Number of parts in which a batch is worked through; their gradients add up. More parts take less memory.
    micro_batches: int = 1
    #: What else the task needs for training, such as class weights; not saved.
    extra: dict[str, Any] = field(default_factory=dict)
    #: Plain data that the task notes while it trains; saved.
    notes: dict[str, Any] = field(default_factory=dict)
    _resident: dict[int, tuple[Any, Any]] = field(default_factory=dict, init=False, repr=False)

    def resident(self, split: Any, make: Callable[[], T]) -> T:
        """What `make` returns for a split, made once a training: the form of the data that lies on the device."""
        kept = self._resident.get(id(split))
        if kept is None:  # with the split itself, so that no other gets its id
            kept = self._resident[id(split)] = split, make()
        made: T = kept[1]
        return made

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
        """Restores what `state_dict` returned; sets the random generators too."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.epoch, self.notes = state["epoch"], state["notes"]
        set_rng_state(state["rng"])


def write(learner: Learner, file: IO[bytes]) -> None:
    """Writes a checkpoint to an open file."""
    torch.save(learner.state_dict(), file)


def save(learner: Learner, path: Path) -> None:
    """Writes a checkpoint whole or not at all; raises OSError where the disk refuses it."""
    with replacing(path) as file:
        write(learner, file)


def load(learner: Learner, source: Path | IO[bytes]) -> None:
    """Restores a checkpoint. Nothing says that the file is what was written: `restore` checks that."""
    # To the CPU first: the generators' states stay there, and load_state_dict copies to each tensor's device.
    learner.load_state_dict(torch.load(source, map_location="cpu", weights_only=True))


def restore(
    build: Callable[[], Learner], states: Sequence[tuple[str, str | None]],
    opened: Callable[[str, str | None], IO[bytes]],
) -> tuple[Learner, list[Damaged]]:  # fmt: skip
    """A training as the first sound one of some files has it, or at its beginning where none is sound.

    Args:
        build: makes the training at its beginning. It is called again after a file that could be loaded in part only.
        states: names and digests (None: not known) of files that may be there, the one to try first in front.
        opened: `Storage.open_checked`.

    Returns:
        The training, and what was wrong with each damaged file. A file that is not there is none of these.

    Raises:
        Exception: a file is what was written, and cannot be loaded: the code is another than the one that wrote it.
    """
    damaged: list[Damaged] = []
    learner = build()
    for name, digest in states:
        try:
            with opened(name, digest) as file:
                load(learner, file)
            return learner, damaged
        except FileNotFoundError:
            continue
        except Damaged as error:
            damaged.append(error)
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
    """How far an epoch is: steps done of all, samples seen, and a function that reads the mean loss so far, which waits
    for the device."""

    done: int
    of: int
    samples: int
    mean_loss: Callable[[], float]


#: Called after each step.
Observer = Callable[[Step], None]
_observers: list[Observer] = []


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Calls `observer` after each step that is taken inside the block; an exception of it ends the epoch."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def step_ended(done: int, of: int, samples: int, mean_loss: Callable[[], float]) -> None:
    """Tells the observers; for training loops that do not use `fit_batches`."""
    for observer in _observers:
        observer(Step(done, of, samples, mean_loss))


#: `forward(batch)` -> the mean loss of the batch, its number of samples, and sums over samples of further metrics.
Forward = Callable[[Any], tuple[torch.Tensor, int, dict[str, torch.Tensor]]]


def fit_batches(
    learner: Learner, batches: Sequence[Any], forward: Forward, clip_norm: float | None = None
) -> dict[str, float]:
    """Takes a gradient step for each batch.

    Args:
        batches: with more than one of `learner.micro_batches`, each must be a tensor of samples along its first
            dimension, or have the tensor's `len` and `chunk`.
        clip_norm: largest global L2 norm of the gradient; None leaves it as it is.

    Returns:
        `loss` and every key of `forward`'s sums, averaged over samples; `gradient_norm`, the mean over steps of the
        norm before clipping; `samples`, their number.

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
    # One transfer for all that is read, as each waits for the device.
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
    """The mean over `samples` of a sum, and over the members of a stack; waits for the device."""
    return total.mean().item() / samples


def _micro_batches(batch: Any, parts: int) -> Sequence[Any]:
    if parts == 1:
        return [batch]
    chunks: Sequence[Any] = batch.chunk(max(1, min(parts, len(batch) // 2)))  # batch normalisation needs two samples
    return chunks


def not_finite(loss: float, gradient_norm: float) -> Diverged | None:
    """The divergence that these figures of a training show, if they do."""
    for what, value in (("training loss", loss), ("gradient norm", gradient_norm)):
        if not math.isfinite(value):
            return Diverged(f"{what} is {value}")
    return None


@runtime_checkable
class SelfTrained(Protocol):
    """For a task that runs its epochs itself, as other people's loops do."""

    def run_epoch(self, learner: Any, train: Any, val: Any) -> dict[str, float]:
        """Trains and evaluates the next epoch; returns metrics as `training.run_epoch` does.

        Raises:
            Ended: the training is over. It is called once more after the last epoch, so that what follows the epochs
                is done too, such as saving a model.
        """
        ...

    def place(self, learner: Any, number: int, folder: Path | None) -> None:
        """Tells a training which trial it is, and of its own folder where this machine sees the search's."""
        ...


def run_epoch(task: Any, learner: Learner, train: Any, val: Any | None) -> dict[str, float]:
    """Trains and evaluates one epoch, and measures both.

    Returns:
        `train_*` and, where `val` is given, `val_*` as the task names them, with `epoch_seconds`,
        `peak_memory_mib`, `learning_rate`, `parameters`, `energy_joules` (on a GPU), `dead_relu_fraction` (on
        validation data), and where the task gives them `samples_per_second` (training only) and `gradient_norm`.

    Raises:
        Diverged: the loss or the norm is not finite; the epoch counter then already names the epoch it happened in.
    """
    if isinstance(task, SelfTrained):
        own: dict[str, float] = task.run_epoch(learner, train, val)
        return own
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
    measured = {key: trained.pop(key) for key in ("gradient_norm",) if key in trained}
    if "samples" in trained:
        measured["samples_per_second"] = trained.pop("samples") / train_seconds
    metrics = {f"train_{key}": value for key, value in trained.items()}
    if val is not None:
        with dead_relus(learner.model) as fraction:
            metrics |= {f"val_{key}": value for key, value in task.evaluate(learner, val).items()}
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
