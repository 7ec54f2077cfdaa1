"""How many trials run at once: what one takes, and what the machines have."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from search.core.config import SearchConfig
from trainables import InputError


@dataclass(frozen=True)
class Placement:
    """CPUs and GPUs of a trial, and how many trials run at once."""

    cpus: float
    gpus: float
    concurrency: int

    def describe(self) -> str:
        """The placement as the first lines of a run print it."""
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpus} a trial, {self.concurrency} at once"

    def training_resources(self, config: SearchConfig) -> dict[str, Any]:
        """What a worker needs to choose its device: the arguments of `trainables.base.device.choose_device`."""
        return {"cpus": self.cpus, "gpus": self.gpus, "precision": config.resources.precision}

    def cpus_of(self, at_once: int) -> float:
        """CPUs of each of so few trainings: without GPUs they share what the trials shared, within one machine."""
        if self.gpus:
            return self.cpus
        largest = max(cores for cores, _ in machines())
        return max(self.cpus, min(self.cpus * (self.concurrency // at_once), largest))


def fits_here(config: SearchConfig) -> Placement:
    """The placement on this machine, without starting Ray; raises InputError as `place`."""
    return place(config, [(local_cpus(), local_gpus())])


def local_cpus() -> int:
    """The cores that this process may use; in a container these are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def machines() -> list[tuple[float, float]]:
    """CPUs and GPUs of each machine of the cluster that Ray is connected to."""
    import ray

    return [(n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0)) for n in ray.nodes() if n["Alive"]]


def place(config: SearchConfig, there: Sequence[tuple[float, float]]) -> Placement:
    """Works out what a trial takes and how many fit on machines of so many CPUs and GPUs.

    Where no machine has a GPU, a trial takes none. Where the cluster starts machines on demand, a trial takes what the
    configuration says and waits for it.

    Raises:
        InputError: a trial fits nowhere, or `concurrency` is more than fits; the message has the arithmetic.
    """
    cpus, share, wanted = config.resources.cpus, config.resources.gpu_share, config.search.concurrency
    if config.resources.autoscaled and wanted:
        return Placement(cpus, share, wanted)
    gpus = share if any(of for _, of in there) else 0.0

    def holds(machine: tuple[float, float]) -> int:
        by_cpu = int(machine[0] / cpus + 1e-9)
        return min(by_cpu, int(machine[1] / gpus + 1e-9)) if gpus else by_cpu

    fits = sum(map(holds, there))
    kinds = Counter(there)
    trial = f"{cpus:g} CPUs and {gpus:g} GPUs"
    have = ", ".join(f"{n} x {c:g} CPUs and {g:g} GPUs" for (c, g), n in sorted(kinds.items(), reverse=True))
    if fits < 1:
        more = "; if the cluster starts machines on demand: --set resources.autoscaled=true --concurrency N"
        workers = any(of for of, _ in there)
        raise InputError(f"resources: a trial takes {trial} of one machine; there are {have}{'' if workers else more}")
    if wanted is not None and wanted > fits:
        raise InputError(f"--concurrency {wanted}: only {fits} trials of {trial} fit at once; there are {have}")
    return Placement(cpus, gpus, wanted or fits)


def local_gpus() -> int:
    """The number of GPUs of this machine."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
