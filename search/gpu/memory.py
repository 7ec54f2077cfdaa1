"""Measures how many trials share a GPU (`resources.gpus: auto`), with an epoch of the largest configuration."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from search.core.config import SearchConfig
from search.core.space import Parameter, Plain, Space, all_numbers
from trainables import Device, Diverged, Params, Splits, choose_device, get_task, seed_everything
from trainables.base import fused
from trainables.base.training import rng_state

#: Share of a GPU that stays free: peaks of trials may coincide, and the allocator cannot use every gap.
SPARE = 0.05


@dataclass(frozen=True)
class Need:
    """The GPU memory of a worker that trains the largest configuration.

    Attributes:
        params: the configuration.
        taken: bytes that the worker took, CUDA's own included.
        total: bytes of the GPU.
    """

    params: Params
    taken: int
    total: int

    @property
    def together(self) -> int:
        """Number of workers that fit on a GPU."""
        return max(1, int(self.total * (1 - SPARE) / max(1, self.taken)))

    @property
    def share(self) -> float:
        """The share of a GPU that each worker gets: `1 / together`, rounded down to Ray's unit of 0.0001."""
        return math.floor(10_000 / min(self.together, 10_000)) / 10_000

    def describe(self) -> str:
        """One line for the user."""
        values = ", ".join(f"{key}={value}" for key, value in self.params.items())
        return (
            f"resources.gpus: auto: an epoch of the largest configuration took {self.taken / 2**30:.1f} of "
            f"{self.total / 2**30:.1f} GB of a GPU: {self.share:g} GPU a trial ({values})"
        )


def measure(config: SearchConfig, splits: Splits, resources: dict[str, Any]) -> Need:
    """Trains the largest configuration for an epoch in this process, alone on a GPU.

    Args:
        resources: as `trainables.choose_device` takes them, with a whole GPU.
    """
    task, epochs = get_task(config.task), config.search.epochs
    params = largest(
        config.space,
        lambda candidate: task.build(candidate, splits, epochs, Device(torch.device("cpu"))).parameters,
    )
    device = choose_device(**resources)
    seed_everything(config.search.seed)
    members = []
    for _ in range(config.search.fuse):
        learner = task.build(params, splits, epochs, device)
        members.append(fused.Member(learner, rng_state()))
    with suppress(Diverged):  # a diverging epoch takes the same memory
        fused.run_epoch(task, members, splits.train, splits.val)
    free, total = torch.cuda.mem_get_info(device.torch_device)
    unused = torch.cuda.max_memory_reserved(device.torch_device) - torch.cuda.memory_reserved(device.torch_device)
    return Need(params, total - free + unused, total)


def largest(space: Space, size: Callable[[Params], int]) -> Params:
    """A configuration that probably takes the most memory, found without training.

    Numbers have their largest value. Numbers on a logarithmic scale are rates, which take no memory: they have their
    geometric mean. Then each other choice, one after another, gets the value that makes `size(params)` largest.

    Args:
        size: the number of parameters of a model with a configuration.
    """
    picked: dict[str, Plain] = {}

    def configuration() -> Params:
        return space.sample(lambda parameter: picked.get(parameter.name, _top(parameter)))

    for parameter in space.parameters:
        if parameter.kind != "choice" or all_numbers(parameter.choices):
            continue
        sizes = {}
        for value in parameter.choices:
            picked[parameter.name] = value
            sizes[value] = size(configuration())
        picked[parameter.name] = max(sizes, key=lambda value: sizes[value])
    return configuration()


def _top(parameter: Parameter) -> Plain:
    if parameter.kind == "choice":
        return max(parameter.choices) if all_numbers(parameter.choices) else parameter.choices[0]  # type: ignore[type-var]
    if parameter.kind == "loguniform":
        return math.sqrt(parameter.low * parameter.high)
    return int(parameter.high) if parameter.kind == "int" else parameter.high
