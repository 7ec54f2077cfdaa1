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
    """CPUs and GPUs of a trial, and how many trials run at once."""

    cpus: float
    gpus: float
    concurrency: int

    def describe(self) -> str:
        """The placement in words: `1 CPU and 0.25 GPU a trial, 4 at once`."""
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpus} a trial, {self.concurrency} at once"

    def training_resources(self, config: SearchConfig) -> dict[str, Any]:
        """The arguments of `trainables.base.device.choose_device` for a worker."""
        return {"cpus": self.cpus, "gpus": self.gpus, "precision": config.resources.precision}

    def cpus_of(self, at_once: int) -> float:
        """The CPUs of each of `at_once` trainings, which have together the CPUs of all trials.

        A training has at most the CPUs of one machine. On GPUs it has the CPUs of a trial.
        """
        if self.gpus:
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
    cpus, share, wanted = config.resources.cpus, config.resources.gpu_share, config.search.concurrency
    if config.resources.autoscaled and wanted:
        return Placement(cpus, share, wanted)
    gpus = share if any(devices for _, devices in available) else 0.0

    def holds(machine: tuple[float, float]) -> int:
        by_cpu = int(machine[0] / cpus + ROUNDING)
        return min(by_cpu, int(machine[1] / gpus + ROUNDING)) if gpus else by_cpu

    fits = sum(map(holds, available))
    kinds = Counter(available)
    trial = f"{cpus:g} CPUs and {gpus:g} GPUs"
    have = ", ".join(f"{n} x {c:g} CPUs and {g:g} GPUs" for (c, g), n in sorted(kinds.items(), reverse=True))
    if fits < 1:
        more = "; if the cluster starts machines on demand: --set resources.autoscaled=true --concurrency N"
        workers = any(cores for cores, _ in available)
        raise InputError(f"resources: a trial takes {trial} of one machine; there are {have}{'' if workers else more}")
    if wanted is not None and wanted > fits:
        raise InputError(f"--concurrency {wanted}: only {fits} trials of {trial} fit at once; there are {have}")
    return Placement(cpus, gpus, wanted or fits)


def local_gpus() -> int:
    """The number of GPUs of this machine."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
