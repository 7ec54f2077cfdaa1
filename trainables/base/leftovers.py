"""Finds threads, files, memory and settings that a trial leaves behind in a worker.

The next trial uses the same worker. Leakage between data splits is another subject: see `look.py` of each task.
"""

from __future__ import annotations

import gc
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

#: Growth up to these numbers of files and bytes is no leak: caches of libraries, a log file that a library opens late.
_FILES, _DEVICE_BYTES, _RESIDENT_BYTES = 8, 2**20, 2**30


class Unclean(Exception):
    """The worker cannot run another trial; the message names the remains of the last trial."""


@dataclass(frozen=True)
class Footprint:
    """The resources that a process holds, and the settings that a trial may change."""

    threads: int
    files: int
    device_bytes: int
    resident_bytes: int
    settings: tuple[tuple[str, object], ...]

    @staticmethod
    def now() -> Footprint:
        """The footprint of this process, after a garbage collection."""
        gc.collect()
        descriptors = Path("/proc/self/fd")
        return Footprint(
            threads=threading.active_count(),
            files=len(list(descriptors.iterdir())) if descriptors.is_dir() else 0,
            device_bytes=torch.cuda.memory_allocated() if torch.cuda.is_initialized() else 0,
            resident_bytes=psutil.Process().memory_info().rss,
            settings=(
                ("environment", hash(frozenset(os.environ.items()))),
                ("torch's default dtype", torch.get_default_dtype()),
                ("torch's default device", torch.get_default_device()),
                ("torch's deterministic algorithms", torch.are_deterministic_algorithms_enabled()),
                ("gradients enabled", torch.is_grad_enabled()),
            ),
        )

    def beyond(self, base: Footprint, files: int = _FILES) -> list[str]:
        """Phrases for each resource that exceeds `base` and each changed setting; empty if there is none.

        Args:
            files: the growth of the number of open files that is no leak.
        """
        left = []
        if self.threads > base.threads:
            left.append(f"{self.threads - base.threads} threads")
        if self.files > base.files + files:
            left.append(f"{self.files - base.files} open files")
        if self.device_bytes > base.device_bytes + _DEVICE_BYTES:
            left.append(f"{(self.device_bytes - base.device_bytes) / 2**20:.0f} MiB on the device")
        if self.resident_bytes > 2 * base.resident_bytes + _RESIDENT_BYTES:
            left.append(f"{(self.resident_bytes - base.resident_bytes) / 2**20:.0f} MiB in memory")
        for (name, was), (_, now) in zip(base.settings, self.settings, strict=True):
            if was != now:
                left.append(f"{name} changed")
        return left
