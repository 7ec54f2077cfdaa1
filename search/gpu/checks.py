"""Checks a task on a GPU: the same losses as on a processor, the same bits after a kill, and its speed."""

from __future__ import annotations

import io
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from search.core.config import SearchConfig, load_config
from search.core.space import Parameter, Plain
from trainables import (
    Device,
    Exported,
    Illustrated,
    Params,
    Precomputed,
    Splits,
    Task,
    choose_device,
    get_task,
    seed_everything,
)
from trainables.base import fused, training
from trainables.base.dropout import Dropout
from trainables.base.fused import Member
from trainables.base.task import Fusable
from trainables.base.training import CHECK_EVERY, Learner, rng_state

#: Sizes of the demos, as `--set` takes them: about fifty training steps each.
SETS = {
    "windows": ("data.demo.train=1900", "data.demo.test=200", "data.size=64"),
    "rnn": ("data.demo.train=2000", "data.demo.test=200"),
    # A whole encoder waits once a step: transformers asks whether the mask hides a token.
    "tweets": ("data.demo.size=4500", "model.unfreeze=0"),
    "lyrics": ("data.demo.size=4500", "model.unfreeze=0"),
    "wikitext": ("data.corpus=demo", "parts=1"),
}
#: Hyperparameters that use the random generator of the device. With 0 two devices train on the same numbers.
QUIET = ("dropout", "augment", "mix", "input_noise")
#: Largest relative difference of a loss after an epoch, between devices, and between fp32 and bf16.
APART, APART_LOW = 0.01, 0.05
#: Number of trials that are trained as one model.
FUSED = 16
#: Epochs of a training, and its seed.
EPOCHS, SEED = 2, 0


@dataclass(frozen=True)
class Bench:
    """A task with data and the configuration of its checks."""

    task: Task
    config: SearchConfig
    splits: Splits
    params: Params

    @staticmethod
    def of(name: str, device: Device, cache: Path) -> Bench:
        """Prepares the task's demo data with the space for the user's own data; raises InputError as `Task.prepare`."""
        task, config = get_task(name), load_config(name, SETS.get(name, ()), profile="data")
        splits = task.prepare(config.data, None, cache, _silent)
        if isinstance(task, Precomputed):
            splits = task.precompute(splits, config.space.choices(), device, cache, _silent)
        return Bench(task, config, splits, config.space.sample(typical))

    def learner(self, device: Device, **params: Any) -> Learner:
        """A new training of the configuration; `params` replace hyperparameters."""
        seed_everything(SEED)
        return self.task.build({**self.params, **params}, self.splits, EPOCHS, device)

    def epoch(self, learner: Learner) -> dict[str, float]:
        """Trains and evaluates an epoch."""
        return training.run_epoch(self.task, learner, self.splits.train, self.splits.val)

    def quiet(self) -> Params:
        """The hyperparameters of `QUIET` that the configuration has, with the value 0."""
        return {name: 0.0 for name in QUIET if self.params.get(name) is not None}


def typical(parameter: Parameter) -> Plain:
    """The prior of a hyperparameter; without a prior its first or lowest value."""
    values = parameter.values()
    return parameter.prior if parameter.has_prior else parameter.low if values is None else values[0]


def _silent(*_: Any) -> None: ...


def compare(bench: Bench, first: tuple[float, str], second: tuple[float, str], allowed: float) -> dict[str, Any]:
    """Trains an epoch on two devices from the same weights and batches, and compares the train losses.

    Train losses depend on every step. A metric that counts samples would jump.

    Args:
        first, second: GPUs and precision of each device, such as `(1.0, "bf16")`; 0 GPUs: the processor.
        allowed: the largest relative difference.
    """
    losses, seconds = [], []
    for gpus, precision in (first, second):  # one after the other: `choose_device` sets the meaning of fp32 globally
        device = choose_device(torch.get_num_threads(), gpus, precision)
        learner = bench.learner(device, **bench.quiet())
        for module in learner.model.modules():  # a pretrained encoder has dropout of its own
            if isinstance(module, Dropout | torch.nn.Dropout):
                module.p = 0.0
        metrics = bench.epoch(learner)
        losses.append(metrics["train_loss"])
        seconds.append(metrics["epoch_seconds"])
    apart = abs(losses[0] - losses[1]) / abs(losses[1])
    return {
        "losses": losses, "apart": apart, "allowed": allowed, "seconds": seconds, "ok": apart <= allowed,
    }  # fmt: skip


@contextmanager
def deterministic() -> Iterator[list[str]]:
    """Asks torch for deterministic operations; yields a list that gets the names of operations that have no such
    version."""
    named: list[str] = []
    before, memory = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield named
    finally:
        named += sorted({str(w.message).split(" ")[0] for w in caught if "deterministic" in str(w.message)})
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = memory  # type: ignore[attr-defined]


def train_and_die(bench: Bench, device: Device, checkpoint: Path) -> None:
    """Trains an epoch, saves it, and kills this process at the first step of the next epoch."""
    with deterministic():
        learner = bench.learner(device)
        bench.epoch(learner)
        training.save(learner, checkpoint)
        with training.observed(lambda _: os.kill(os.getpid(), signal.SIGKILL)):
            bench.epoch(learner)


def resume(bench: Bench, device: Device, checkpoint: Path) -> dict[str, Any]:
    """Continues from the checkpoint of a killed training, and compares its bits with an uninterrupted training."""
    with deterministic() as not_deterministic:
        whole = bench.learner(device)
        for _ in range(EPOCHS):
            expected = bench.epoch(whole)
        resumed = bench.learner(device)
        training.load(resumed, checkpoint)
        actual = bench.epoch(resumed)
    same = all(torch.equal(a, b) for a, b in zip(_tensors(whole), _tensors(resumed), strict=True))
    values = [metrics[bench.task.objective.key] for metrics in (expected, actual)]
    return {"ok": same and values[0] == values[1], "values": values, "not_deterministic": not_deterministic}


def _tensors(learner: Learner) -> list[torch.Tensor]:
    state = learner.state_dict()
    moments = [v for s in state["optimizer"]["state"].values() for v in s.values() if isinstance(v, torch.Tensor)]
    return [*state["model"].values(), *moments]


def waits(bench: Bench, device: Device, count: Callable[[], int]) -> dict[str, Any]:
    """Counts how often the steps of an epoch wait for the device; at most once in `CHECK_EVERY` steps is allowed.

    Args:
        count: returns the number of waits so far.
    """
    learner = bench.learner(device)
    bench.epoch(learner)
    at: list[tuple[float, int]] = []
    with training.observed(lambda step: at.append((step.done, count()))):
        bench.epoch(learner)
    (first, before), (last, after) = at[0], at[-1]
    rate = (after - before) / max(1, last - first) * CHECK_EVERY
    return {"steps": last - first, "waits": after - before, "a_check": rate, "ok": rate <= 1.0 or last - first < 1}


@contextmanager
def waits_of_cuda() -> Iterator[Callable[[], int]]:
    """Yields a function that returns how often torch waited for CUDA in the block; torch warns of each wait."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield lambda: sum("called a synchronizing CUDA operation" in str(w.message) for w in caught)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def speed(bench: Bench, device: Device) -> dict[str, float]:
    """Training samples per second (the best of three epochs, after a first one), seconds and operations of a step."""
    learner = bench.learner(device)
    steps: list[float] = []
    with training.observed(lambda step: steps.append(step.done)):
        bench.epoch(learner)
    epochs = [bench.epoch(learner) for _ in range(3)]
    fastest = max(metrics["samples_per_second"] for metrics in epochs)
    with FlopCounterMode(display=False) as counter:
        trained = bench.task.train_epoch(learner, bench.splits.train)
    return {
        "samples_per_second": fastest,
        "step_seconds": trained["samples"] / fastest / steps[-1],
        "step_operations": counter.get_total_flops() / steps[-1],
        "energy_joules": epochs[-1].get("energy_joules", 0.0),
        "peak_memory_mib": epochs[-1]["peak_memory_mib"],
    }


def together_as_one(bench: Bench, device: Device) -> dict[str, float] | None:
    """The speed of `FUSED` trials trained as one model, relative to one trial after another.

    None if the task cannot train several trials as one model.
    """
    params = {"cell": "simple"} if "cell" in bench.params else {}
    learner = bench.learner(device, **params)
    if not isinstance(bench.task, Fusable) or bench.task.shape(learner.params) is None:
        return None
    seconds = []
    for count in (1, FUSED):
        members = [Member(bench.learner(device, **params), rng_state()) for _ in range(count)]
        for _ in range(2):
            begun = time.perf_counter()
            fused.run_epoch(bench.task, members, bench.splits.train, bench.splits.val)
            taken = time.perf_counter() - begun
        seconds.append(taken / count)
    return {"trials": FUSED, "times_as_fast": seconds[0] / seconds[1]}


def kernels(bench: Bench, device: Device) -> dict[str, Any]:
    """The share of a step in which the GPU works, and the number of kernels in a step, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile, supported_activities

    if ProfilerActivity.CUDA not in supported_activities():
        return {"skipped": "torch's profiler does not support this GPU"}
    learner = bench.learner(device)
    bench.epoch(learner)
    steps: list[float] = []
    device.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler, training.observed(lambda s: steps.append(s.done)):
        begun = time.perf_counter()
        bench.task.train_epoch(learner, bench.splits.train)
        device.synchronize()
        seconds = time.perf_counter() - begun
    started = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(event.device_time_total for event in started) / 1e6
    return {"kernels_a_step": len(started) / steps[-1], "busy_seconds_a_step": busy / steps[-1], "busy": busy / seconds}


def round_trip(bench: Bench, device: Device, folder: Path) -> dict[str, Any]:
    """Saves and loads a state on the device; then makes the artifacts, exports the model, loads it and predicts."""
    learner = bench.learner(device)
    bench.epoch(learner)
    checkpoint = io.BytesIO()
    training.write(learner, checkpoint)
    checkpoint.seek(0)
    training.load(bench.learner(device), checkpoint)
    task, val, info = bench.task, bench.splits.val, bench.splits.info
    if isinstance(task, Illustrated):
        (folder / "artifacts").mkdir(parents=True)
        task.artifacts(learner, val, info, folder / "artifacts")
    if not isinstance(task, Exported):
        return {"ok": True}
    (folder / "model").mkdir(parents=True)
    task.export(learner, info, folder / "model")
    example = task.example(val, info)
    assert example is not None  # each task of this package has an example
    return {"ok": len(task.predict(task.load(folder / "model"), example)) == len(example)}
