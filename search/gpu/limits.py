"""Measures the limits of a device: no program copies, multiplies or starts kernels faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from trainables import Device, choose_device
from trainables.base.errors import first_line

#: Bytes of the copied block, and rows of the square matrices. Small values on a processor keep the check short.
BYTES = {"cuda": 2**30, "cpu": 2**27}
SIDE = {"cuda": 8192, "cpu": 1024}
#: Number of measurements; the best counts.
TRIES = 5
#: Number of small operations in a row. Starting an operation takes longer than computing it.
STARTS = 1000
#: Share of the memory of a process that asks for twice as much.
SHARE = 0.05


@dataclass(frozen=True)
class Limits:
    """The measured limits of a device.

    Attributes:
        copied: bytes read and written per second.
        fp32: operations per second of a matrix product in fp32, without TF32.
        low: operations per second of a matrix product in bf16.
        start: seconds from the start of a small operation to the start of the next one.
        refused: the message of CUDA to a process that asks for more than its share of the memory; empty if the process
            gets the memory.
    """

    copied: float
    fp32: float
    low: float
    start: float
    refused: str


def measure(device: Device) -> Limits:
    """Measures the limits; takes about a second on a GPU."""
    torch_device, kind = device.torch_device, device.torch_device.type
    source, target = torch.empty(2, BYTES[kind], dtype=torch.uint8, device=torch_device)
    copied = 2 * BYTES[kind] / best(partial(target.copy_, source), device)
    del source, target
    rates = {}
    torch.backends.cuda.matmul.allow_tf32 = False
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(SIDE[kind], SIDE[kind], device=torch_device).to(dtype) for _ in range(2))
        rates[dtype] = 2 * SIDE[kind] ** 3 / best(partial(torch.mm, a, b, out=torch.empty_like(a)), device)
    small = torch.zeros(1, device=torch_device)

    def starts() -> None:
        for _ in range(STARTS):
            small.add_(1)

    return Limits(copied, rates[torch.float32], rates[torch.bfloat16], best(starts, device) / STARTS, refused())


def refused() -> str:
    """CUDA's message to a process that has `SHARE` of the memory and asks for twice as much; empty without an error."""
    device = choose_device(torch.get_num_threads(), SHARE, "fp32")
    size = int(2 * SHARE * torch.cuda.get_device_properties(device.torch_device).total_memory)
    try:
        torch.empty(size, dtype=torch.uint8, device=device.torch_device)
    except torch.OutOfMemoryError as error:
        return first_line(error)
    return ""


def best(work: Callable[[], object], device: Device) -> float:
    """The seconds of the fastest of `TRIES` calls. A first call is not counted: it loads libraries."""
    seconds = []
    for _ in range(TRIES + 1):
        device.synchronize()
        begun = time.perf_counter()
        work()
        device.synchronize()
        seconds.append(time.perf_counter() - begun)
    return min(seconds[1:])
