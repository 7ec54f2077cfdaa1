"""The device and the precision of a training."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

#: The share of a trial's memory on a GPU that its data may fill. The rest is for weights and activations.
DATA_SHARE = 0.25


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one trial together.

    Attributes:
        size: the number of processes, `size / nodes` on each machine.
        cpus, gpus: of each process.
    """

    size: int
    nodes: int
    cpus: float
    gpus: float
    precision: str

    @property
    def local_size(self) -> int:
        """The number of processes on each machine."""
        return self.size // self.nodes


@dataclass(frozen=True)
class Device:
    """The device of a trial, its precision, and the share of the device that the trial may use.

    Attributes:
        count: the number of GPUs; `torch_device` is the first.
        group: for a worker that only directs a group of processes; None for a process that trains.
        known_as: the name of a device that another process has.
    """

    torch_device: torch.device
    dtype: torch.dtype = torch.float32
    share: float = 1.0
    count: int = 1
    group: ProcessGroup | None = None
    known_as: str = ""

    @property
    def name(self) -> str:
        """The name of the GPU, or `cpu`."""
        if self.known_as:
            return self.known_as
        if self.torch_device.type == "cuda":
            return torch.cuda.get_device_name(self.torch_device)
        return "cpu"

    def holds(self, size: int) -> bool:
        """Whether `size` bytes of data may stay on the device: they fit into `DATA_SHARE` of the trial's memory."""
        if self.torch_device.type == "cpu":
            return True
        memory = torch.cuda.get_device_properties(self.torch_device).total_memory
        return size <= DATA_SHARE * self.share * memory

    def autocast(self) -> AbstractContextManager[Any]:
        """A context for mixed precision; it has no effect if `dtype` is float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.torch_device.type, dtype=self.dtype)

    def synchronize(self) -> None:
        """Waits until a GPU has finished its work."""
        for device in devices(self.torch_device, self.count) if self.torch_device.type == "cuda" else ():
            torch.cuda.synchronize(device)


def devices(first: torch.device, count: int) -> list[torch.device]:
    """The GPU `first` and those after it."""
    return [torch.device(first.type, (first.index or 0) + number) for number in range(count)]


def choose_device(
    cpus: float, gpus: float, precision: str, processes: int = 1, nodes: int = 1, first: int = 0
) -> Device:  # fmt: skip
    """The device for these resources; also sets one torch thread for each whole CPU.

    Args:
        cpus, gpus: of this process; for a worker that directs a group, of each process of the group.
        processes, nodes: the size of the group that this process directs; 1 if it trains itself.
        first: the index of the process's first GPU.
        precision: `fp32`, `bf16`, `auto` (bf16 on a GPU with bf16 instructions, else fp32), or `native` (bf16 on a GPU
            or a CPU with bf16 instructions, else fp32).
    """
    if processes > 1:  # CUDA is not touched: a context takes hundreds of MB of a GPU
        return Device(torch.device("cpu"), group=ProcessGroup(processes, nodes, cpus, gpus, precision))
    torch.set_num_threads(max(1, int(cpus)))
    if gpus > 0 and torch.cuda.is_available():
        return _gpu(precision, gpus, first)
    bf16 = precision == "bf16" or (precision == "native" and cpu_has_bf16())
    return Device(torch.device("cpu"), torch.bfloat16 if bf16 else torch.float32)


def _gpu(precision: str, share: float, first: int) -> Device:
    if first:
        torch.cuda.set_device(first)
    device = torch.device("cuda", torch.cuda.current_device())
    bf16 = precision == "bf16" or (precision in ("auto", "native") and torch.cuda.is_bf16_supported())
    # TF32 has 10 bits of mantissa: it is used with bf16 and not with fp32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = bf16
    # The rest of the memory belongs to other trials on this GPU.
    torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)
    return Device(device, torch.bfloat16 if bf16 else torch.float32, min(1.0, share), max(1, round(share)))


def cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for bf16 matrices; without them bf16 is slower than fp32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
