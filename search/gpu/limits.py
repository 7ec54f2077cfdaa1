"""The limits of a device, measured: what no program does faster there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from trainables import Device, choose_device
from trainables.base.errors import first_line

#: Of the copied block and of the matrices; small ones on a processor, where a second must do.
BYTES = {"cuda": 2**30, "cpu": 2**27}
SIDE = {"cuda": 8192, "cpu": 1024}
#: Each figure is the best of so many.
TRIES = 5
#: Small operations in a row, whose time is that of starting them.
STARTS = 1000
#: Share of the memory of a process that asks for twice as much.
SHARE = 0.05


@dataclass(frozen=True)
class Limits:
    """`copied` (bytes read and written a second), `fp32` and `low` (operations a second of matrix products in fp32
    without TF32, and in bf16), `start` (seconds from the start of a small operation to that of the next), and what
    CUDA says to a process that wants more than its share (empty: it gets it)."""

    copied: float
    fp32: float
    low: float
    start: float
    refused: str


def measure(device: Device) -> Limits:
    """Measures the limits; takes about a second on a GPU."""
    where, kind = device.torch_device, device.torch_device.type
    source, target = torch.empty(2, BYTES[kind], dtype=torch.uint8, device=where)
    copied = 2 * BYTES[kind] / best(partial(target.copy_, source), device)
    del source, target
    rates = {}
    torch.backends.cuda.matmul.allow_tf32 = False
    for dtype in (torch.float32, torch.bfloat16):
        one, other = (torch.randn(SIDE[kind], SIDE[kind], device=where).to(dtype) for _ in range(2))
        rates[dtype] = 2 * SIDE[kind] ** 3 / best(partial(torch.mm, one, other, out=torch.empty_like(one)), device)
    small = torch.zeros(1, device=where)

    def starts() -> None:
        for _ in range(STARTS):
            small.add_(1)

    return Limits(copied, rates[torch.float32], rates[torch.bfloat16], best(starts, device) / STARTS, refused())


def refused() -> str:
    """What CUDA says where a process with `SHARE` of the memory asks for twice as much; empty where it says nothing."""
    device = choose_device(torch.get_num_threads(), SHARE, "fp32")
    wanted = int(2 * SHARE * torch.cuda.get_device_properties(device.torch_device).total_memory)
    try:
        torch.empty(wanted, dtype=torch.uint8, device=device.torch_device)
    except torch.OutOfMemoryError as error:
        return first_line(error)
    return ""


def best(work: Callable[[], object], device: Device) -> float:
    """The least seconds of `TRIES` calls, after one that does not count."""
    seconds = []
    for _ in range(TRIES + 1):
        device.synchronize()
        begun = time.perf_counter()
        work()
        device.synchronize()
        seconds.append(time.perf_counter() - begun)
    return min(seconds[1:])
