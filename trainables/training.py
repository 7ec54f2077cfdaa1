"""What every task's training loop shares: device, precision, seeds and RNG state, gradients, health."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from trainables.files import replacing
from trainables.health import EnergyMeter, MemoryPeak, dead_relus

#: The loss is looked at every so many batches: a look costs a device synchronisation.
CHECK_EVERY = 20


class Diverged(Exception):
    """The training loss is NaN or infinite: the configuration is infeasible."""


@dataclass(frozen=True)
class Device:
    """Where and how exactly a trial computes."""

    torch_device: torch.device
    dtype: torch.dtype = torch.float32
    #: How much of the device it is, where several share one.
    share: float = 1.0

    @property
    def name(self) -> str:
        if self.torch_device.type == "cuda":
            return torch.cuda.get_device_name(self.torch_device)
        return "cpu"

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision where `dtype` is not float32, else nothing."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.torch_device.type, dtype=self.dtype)

    def synchronize(self) -> None:
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize(self.torch_device)


def choose_device(cpus: float, gpus: float, precision: str) -> Device:
    """The device that these resources stand for, with one torch thread for each whole CPU.

    Args:
        precision: `auto` (bf16 on a GPU that has it, else fp32), `native` (the same, and on a CPU that has it), `fp32`
            or `bf16`.
    """
    torch.set_num_threads(max(1, int(cpus)))
    if gpus > 0 and torch.cuda.is_available():
        bf16 = precision == "bf16" or (precision in ("auto", "native") and torch.cuda.is_bf16_supported())
        return Device(torch.device("cuda"), torch.bfloat16 if bf16 else torch.float32, min(1.0, gpus))
    bf16 = precision == "bf16" or (precision == "native" and cpu_has_bf16())
    return Device(torch.device("cpu"), torch.bfloat16 if bf16 else torch.float32)


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices itself; without, they take longer than fp32 ones."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and torch's generators (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """Every generator's state, in types that `torch.load(weights_only=True)` admits."""
    state: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, gauss = state
    version, internal, cached = random.getstate()
    return {
        "python": (version, torch.tensor(internal), cached),  # of 625 numbers, each of which torch.save would look at
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(torch.as_tensor(internal).tolist()), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@dataclass
class Learner:
    """A trial's whole mutable state: saved and loaded as one, it continues bit for bit on CPU."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler | None
    device: Device
    params: dict[str, Any]
    epoch: int = 0
    #: Parts that a batch is worked through in, their gradients summed: less memory, the same step.
    micro_batches: int = 1
    #: Anything else of the task's that its training reads (class weights, resized data); not saved.
    extra: dict[str, Any] = field(default_factory=dict)
    #: What the task notes as it trains, as plain data; saved.
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "epoch": self.epoch,
            "notes": self.notes,
            "rng": rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.epoch, self.notes = state["epoch"], state["notes"]
        set_rng_state(state["rng"])


def write(learner: Learner, file: IO[bytes]) -> None:
    torch.save(learner.state_dict(), file)


def save(learner: Learner, path: Path) -> None:
    """The file is there whole or not at all; raises OSError where the disk refuses it."""
    with replacing(path) as file:
        write(learner, file)


def load(learner: Learner, source: Path | IO[bytes]) -> None:
    """Raises: RuntimeError, EOFError or OSError where the file is torn or missing."""
    # On the CPU first: generator states must stay there, and load_state_dict copies to each tensor's device.
    learner.load_state_dict(torch.load(source, map_location="cpu", weights_only=True))


#: `forward(batch)` -> (mean loss over the batch, number of samples, sums over samples of what is averaged).
Forward = Callable[[Any], tuple[torch.Tensor, int, dict[str, torch.Tensor]]]


def fit_batches(
    learner: Learner, batches: Iterable[Any], forward: Forward, clip_norm: float | None = None
) -> dict[str, float]:
    """One pass of gradient steps.

    Args:
        batches: for more than one of `learner.micro_batches`, tensors of samples along their first dimension, or
            anything else with their `len` and `chunk`.
        clip_norm: largest global L2 norm of the gradient; None leaves it as it is.

    Returns:
        `loss` and every key of `forward`'s sums, averaged over samples; `gradient_norm`, the mean over
        steps of the norm before clipping; `samples`, their number.

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
    _check_finite(loss_sum, norm_sum)
    return {
        "loss": loss_sum.item() / samples,
        **{key: value.item() / samples for key, value in totals.items()},
        "gradient_norm": norm_sum.item() / steps,
        "samples": float(samples),
    }


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
    """Trains one epoch, evaluates, and measures both: the metrics of one step of a curve.

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


def shuffled_batches(count: int, batch_size: int) -> Iterator[torch.Tensor]:
    """Indices 0..count-1 in an order drawn from torch's global generator, in batches.

    A last batch of a single sample is joined to the one before it: batch normalisation needs two.
    """
    order = torch.randperm(count)
    batches = list(order.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    yield from batches


def make_optimizer(groups: Any, params: dict[str, Any]) -> torch.optim.Optimizer:
    """The optimizer that `optimizer`, `lr`, `weight_decay` (None: 0) and, for sgd, `momentum` name."""
    name, rate, decay = params["optimizer"], params["lr"], params["weight_decay"] or 0.0
    if name == "sgd":
        return torch.optim.SGD(
            groups, lr=rate, momentum=params["momentum"], weight_decay=decay, nesterov=params["momentum"] > 0
        )
    if name == "adam":
        return torch.optim.Adam(groups, lr=rate, weight_decay=decay)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)
    raise ValueError(f"optimizer: {name!r}: allowed are sgd, adam, adamw")


def make_schedule(
    optimizer: torch.optim.Optimizer, name: str, epochs: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """A schedule stepped once an epoch: `constant`, `cosine` (to 1 % at the end), `warmup_cosine` (rising over
    the first tenth before), `step` (x0.95 an epoch)."""
    if name == "constant":
        return None
    if name in ("cosine", "warmup_cosine"):
        warmup = math.ceil(epochs / 10) if name == "warmup_cosine" else 0
        last = max(1, epochs - warmup)

        def factor(epoch: int) -> float:
            if epoch < warmup:
                return (epoch + 1) / (warmup + 1)
            return 0.01 + 0.99 * (1 + math.cos(math.pi * min(epoch - warmup, last) / last)) / 2

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    if name == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.95)
    raise ValueError(f"schedule: {name!r}: allowed are constant, cosine, warmup_cosine, step")
