"""Measures dead units, peak memory and energy of a training."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pynvml
import torch
from torch import nn

from trainables.base.device import devices


@contextmanager
def dead_relus(model: nn.Module) -> Iterator[Callable[[], float]]:
    """Counts ReLU units that are 0 for all data that pass through the model inside the block.

    A unit is a channel of a map (batch, channel, height, width), or a feature of a tensor (batch, ..., feature).

    Yields:
        A function that returns the fraction of such units; NaN if the model has no `nn.ReLU`.
    """
    peaks: dict[int, torch.Tensor] = {}

    def watch(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        channel = 1 if output.dim() >= 4 else output.dim() - 1
        peak = output.detach().amax(dim=[d for d in range(output.dim()) if d != channel])
        before = peaks.get(id(module))
        peaks[id(module)] = peak if before is None else torch.maximum(before, peak)

    handles = [m.register_forward_hook(watch) for m in model.modules() if isinstance(m, nn.ReLU)]

    def fraction() -> float:
        if not peaks:
            return float("nan")
        units = torch.cat([p.float() for p in peaks.values()])
        return (units <= 0).float().mean().item()

    try:
        yield fraction
    finally:
        for handle in handles:
            handle.remove()


class MemoryPeak:
    """The peak of memory since the object was made: of the GPU's allocator, or of this process.

    Of `count` GPUs, the first of which is `device`, it is the peak of the fullest.
    """

    def __init__(self, device: torch.device, count: int = 1) -> None:
        self._gpus = devices(device, count) if device.type == "cuda" else []
        if self._gpus:
            for gpu in self._gpus:
                torch.cuda.reset_peak_memory_stats(gpu)
        else:
            # On Linux this resets VmHWM. Without it a reused worker would report the peak of an earlier trial.
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")

    def mib(self) -> float:
        """The peak in MiB."""
        if self._gpus:
            return max(map(torch.cuda.max_memory_allocated, self._gpus)) / 2**20
        try:
            status = Path("/proc/self/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) / 1024
        except (OSError, IndexError):
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class EnergyMeter:
    """The energy that GPUs used since the object was made, by the counters of their driver (NVML).

    A counter covers a whole GPU. A trial with a `share` of the GPU is charged this share of the energy. Other
    devices have no counter.
    """

    def __init__(self, device: torch.device, share: float, count: int = 1) -> None:
        """Counts `device` and the GPUs after it, `count` in all."""
        self.share = share
        gpus = devices(device, count) if device.type == "cuda" else []
        counters = [counter for gpu in gpus if (counter := _energy_counter(gpu)) is not None]
        #: No sum if a GPU has no counter.
        self._counters = counters if len(counters) == len(gpus) else []
        self._begun = self._millijoules()

    def _millijoules(self) -> int:
        return sum(counter() for counter in self._counters)

    def measured(self) -> dict[str, float]:
        """`energy_joules`; empty if it cannot be measured."""
        if not self._counters:
            return {}
        return {"energy_joules": self.share * (self._millijoules() - self._begun) / 1000}


def _energy_counter(device: torch.device) -> Callable[[], int] | None:
    """A function that reads the millijoules since the driver was loaded; None for GPUs before Volta, which do not count
    them."""
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
