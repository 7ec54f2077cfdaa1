"""The training loop that all tasks share: device, precision, seeds, gradient steps, checkpoints, measurements."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from trainables.base.files import replacing
from trainables.base.health import EnergyMeter, MemoryPeak, dead_relus

#: The loss is checked every so many batches, as each check waits for the device.
CHECK_EVERY = 20


class Diverged(Exception):
    """The training loss is NaN or infinite."""


@dataclass(frozen=True)
class Device:
    """The device that a trial computes on, and its precision."""

    torch_device: torch.device
    dtype: torch.dtype = torch.float32
    #: The share of the device that the trial has.
    share: float = 1.0

    @property
    def name(self) -> str:
        """The name of the GPU, or `cpu`."""
        if self.torch_device.type == "cuda":
            return torch.cuda.get_device_name(self.torch_device)
        return "cpu"

    def autocast(self) -> AbstractContextManager[Any]:
        """A context for mixed precision; it does nothing where `dtype` is float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.torch_device.type, dtype=self.dtype)

    def synchronize(self) -> None:
        """Waits until a GPU has done its work."""
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize(self.torch_device)


def choose_device(cpus: float, gpus: float, precision: str) -> Device:
    """The device for these resources; also sets one torch thread for each whole CPU.

    Args:
        precision: `auto` is bf16 on a GPU that has it, else fp32; `native` is bf16 also on a CPU that has it; or `fp32`
            or `bf16`.
    """
    torch.set_num_threads(max(1, int(cpus)))
    if gpus > 0 and torch.cuda.is_available():
        bf16 = precision == "bf16" or (precision in ("auto", "native") and torch.cuda.is_bf16_supported())
        return Device(torch.device("cuda"), torch.bfloat16 if bf16 else torch.float32, min(1.0, gpus))
    bf16 = precision == "bf16" or (precision == "native" and cpu_has_bf16())
    return Device(torch.device("cpu"), torch.bfloat16 if bf16 else torch.float32)


def cpu_has_bf16() -> bool:
    """Whether the processor has instructions for bf16 matrices; without them bf16 is slower than fp32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


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
    #: What else the task needs for training, such as class weights or resized data; not saved.
    extra: dict[str, Any] = field(default_factory=dict)
    #: Plain data that the task notes while it trains; saved.
    notes: dict[str, Any] = field(default_factory=dict)

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
    """Restores a checkpoint; raises RuntimeError, EOFError or OSError where the file is torn or missing."""
    # To the CPU first: the generators' states stay there, and load_state_dict copies to each tensor's device.
    learner.load_state_dict(torch.load(source, map_location="cpu", weights_only=True))


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
        if steps % CHECK_EVERY == 0:
            _check_finite(loss_sum, norm_sum)
        step_ended(steps, len(batches), samples, partial(mean_of, loss_sum, samples))
    _check_finite(loss_sum, norm_sum)
    return {
        "loss": loss_sum.item() / samples,
        **{key: value.item() / samples for key, value in totals.items()},
        "gradient_norm": norm_sum.item() / steps,
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


def _check_finite(loss_sum: torch.Tensor, norm_sum: torch.Tensor) -> None:
    if diverged := not_finite(loss_sum.item(), norm_sum.item()):
        raise diverged


def run_epoch(task: Any, learner: Learner, train: Any, val: Any | None) -> dict[str, float]:
    """Trains and evaluates one epoch, and measures both.

    Returns:
        `train_*` and, where `val` is given, `val_*` as the task names them, with `epoch_seconds`,
        `samples_per_second` (training only), `peak_memory_mib`, `learning_rate`, `gradient_norm`, `parameters`,
        `energy_joules` (on a GPU), `dead_relu_fraction` (on validation data).

    Raises:
        Diverged: see `fit_batches`; the epoch counter then already names the epoch it happened in.
    """
    learner.epoch += 1
    device, start = learner.device, time.perf_counter()
    memory, energy = MemoryPeak(device.torch_device), EnergyMeter(device.torch_device, device.share)
    rate = max(group["lr"] for group in learner.optimizer.param_groups)
    trained = task.train_epoch(learner, train)
    if learner.schedule is not None:
        learner.schedule.step()
    learner.device.synchronize()
    train_seconds = time.perf_counter() - start
    gradient_norm, samples = trained.pop("gradient_norm"), trained.pop("samples")
    metrics = {f"train_{key}": value for key, value in trained.items()}
    if val is not None:
        with dead_relus(learner.model) as fraction:
            metrics |= {f"val_{key}": value for key, value in task.evaluate(learner, val).items()}
            metrics["dead_relu_fraction"] = fraction()
    learner.device.synchronize()
    return metrics | {
        "epoch_seconds": time.perf_counter() - start,
        "samples_per_second": samples / train_seconds,
        "peak_memory_mib": memory.mib(),
        "learning_rate": rate,
        "gradient_norm": gradient_norm,
        "parameters": float(learner.parameters),
        **energy.measured(),
    }


def shuffled_batches(count: int, batch_size: int) -> list[torch.Tensor]:
    """The indices 0 to count - 1 in batches, in an order drawn from torch's global generator.

    A last batch of one sample is joined to the batch before it, as batch normalisation needs two.
    """
    order = torch.randperm(count)
    batches = list(order.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
