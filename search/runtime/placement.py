"""The resources of a trial, and the number of trials that the machines run at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from search.core.config import SearchConfig
from trainables import InputError

#: Trials. 1 / 0.1 trials of a GPU are 10, and rounding errors must not make 9 of them.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Placement:
    """CPUs and GPUs of a trial, how many trials run at once, and the processes and machines of a trial."""

    cpus: float
    gpus: float
    concurrency: int
    processes: int = 1
    nodes: int = 1

    def describe(self) -> str:
        """The placement in words: `1 CPU and 0.25 GPU a trial, 4 at once`."""
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        machines = f" on {self.nodes} machines" if self.nodes > 1 else ""
        group = f" for {self.processes} processes{machines}" if self.processes > 1 else ""
        return f"{self.cpus:g} CPU{gpus} a trial{group}, {self.concurrency} at once"

    def training_resources(self, config: SearchConfig) -> dict[str, Any]:
        """The arguments of `trainables.base.device.choose_device` for a worker."""
        each = {"cpus": self.cpus / self.processes, "gpus": self.gpus / self.processes}
        group = {"processes": self.processes, "nodes": self.nodes} if self.processes > 1 else {}
        return {**each, "precision": config.resources.precision, **group}

    @property
    def bundles(self) -> list[dict[str, float]]:
        """The resources of a trial on each of its machines, for a placement group of Ray."""
        return [{"CPU": self.cpus / self.nodes, "GPU": self.gpus / self.nodes}] * self.nodes

    @property
    def strategy(self) -> str:
        """How Ray places the bundles: each on another machine. (One bundle is never divided.)"""
        return "STRICT_SPREAD" if self.nodes > 1 else "PACK"

    def cpus_of(self, at_once: int) -> float:
        """The CPUs of each of `at_once` trainings, which have together the CPUs of all trials.

        A training has at most the CPUs of one machine. On GPUs, and in several processes, it has the CPUs of a trial.
        """
        if self.gpus or self.processes > 1:
            return self.cpus
        largest = max(cpus for cpus, _ in machines())
        return max(self.cpus, min(self.cpus * (self.concurrency // at_once), largest))


def fits_here(config: SearchConfig) -> Placement:
    """The placement on this machine, without starting Ray; raises InputError as `place`."""
    return place(config, [(local_cpus(), local_gpus())])


def local_cpus() -> int:
    """The number of cores that this process may use; in a container it is smaller than that of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def machines() -> list[tuple[float, float]]:
    """CPUs and GPUs of each machine of the cluster that Ray is connected to."""
    import ray

    return [(n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0)) for n in ray.nodes() if n["Alive"]]


def place(config: SearchConfig, available: Sequence[tuple[float, float]]) -> Placement:
    """Calculates the resources of a trial, and the number of trials that run at once.

    If no machine has a GPU, a trial uses none. If the cluster starts machines on demand (`resources.autoscaled`), a
    trial has the resources of the configuration and waits for them.

    Args:
        available: (CPUs, GPUs) of each machine.

    Raises:
        InputError: no machine has the resources of a trial, or fewer than `search.concurrency` trials fit at once.
    """
    cpus, share, wanted = config.resources.all_cpus, config.resources.gpu_share, config.search.concurrency
    processes, nodes = config.resources.processes, config.resources.nodes
    if config.resources.autoscaled and wanted:
        return Placement(cpus, share, wanted, processes, nodes)
    gpus = share if any(devices for _, devices in available) else 0.0

    def holds(machine: tuple[float, float]) -> int:
        """The number of trials of which the machine can hold one node's part."""
        by_cpu = int(machine[0] * nodes / cpus + ROUNDING)
        return min(by_cpu, int(machine[1] * nodes / gpus + ROUNDING)) if gpus else by_cpu

    held = list(map(holds, available))
    # The parts of a trial are on different machines: of n trials, a machine has at most n parts.
    fits = next(n for n in range(sum(held) // nodes, -1, -1) if sum(min(n, h) for h in held) >= n * nodes)
    kinds = Counter(available)
    trial = f"{cpus / nodes:g} CPUs and {gpus / nodes:g} GPUs"
    have = ", ".join(f"{n} x {c:g} CPUs and {g:g} GPUs" for (c, g), n in sorted(kinds.items(), reverse=True))
    if fits < 1:
        more = "; if the cluster starts machines on demand: --set resources.autoscaled=true --concurrency N"
        workers = any(cores for cores, _ in available)
        where = f"each of {nodes} machines" if nodes > 1 else "one machine"
        raise InputError(f"resources: a trial takes {trial} of {where}; there are {have}{'' if workers else more}")
    if wanted is not None and wanted > fits:
        raise InputError(f"--concurrency {wanted}: only {fits} trials of {trial} fit at once; there are {have}")
    return Placement(cpus, gpus, wanted or fits, processes, nodes)


def local_gpus() -> int:
    """The number of GPUs of this machine."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
