"""The device and the precision of a training."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

#: The share of a trial's memory on a GPU that its data may fill. The rest is for weights and activations.
DATA_SHARE = 0.25


@dataclass(frozen=True)
class Device:
    """The device of a trial, its precision, and the share of the device that the trial may use."""

    torch_device: torch.device
    dtype: torch.dtype = torch.float32
    share: float = 1.0

    @property
    def name(self) -> str:
        """The name of the GPU, or `cpu`."""
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
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize(self.torch_device)


def choose_device(cpus: float, gpus: float, precision: str) -> Device:
    """The device for these resources; also sets one torch thread for each whole CPU.

    Args:
        precision: `fp32`, `bf16`, `auto` (bf16 on a GPU with bf16 instructions, else fp32), or `native` (bf16 on a GPU
            or a CPU with bf16 instructions, else fp32).
    """
    torch.set_num_threads(max(1, int(cpus)))
    if gpus > 0 and torch.cuda.is_available():
        return _gpu(precision, gpus)
    bf16 = precision == "bf16" or (precision == "native" and cpu_has_bf16())
    return Device(torch.device("cpu"), torch.bfloat16 if bf16 else torch.float32)


def _gpu(precision: str, share: float) -> Device:
    device = torch.device("cuda", torch.cuda.current_device())
    bf16 = precision == "bf16" or (precision in ("auto", "native") and torch.cuda.is_bf16_supported())
    # TF32 has 10 bits of mantissa: it is used with bf16 and not with fp32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = bf16
    # The rest of the memory belongs to other trials on this GPU.
    torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)
    return Device(device, torch.bfloat16 if bf16 else torch.float32, min(1.0, share))


def cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for bf16 matrices; without them bf16 is slower than fp32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
