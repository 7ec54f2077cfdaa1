"""Some of the checks of one task, in a process of their own, as a GPU keeps what a process did to it.

Each finding is a line of JSON in `findings.jsonl`, written as soon as it is known.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from search.gpu import checks, limits, memory
from search.gpu.checks import Bench
from trainables import Device, InputError, choose_device
from trainables.base.errors import first_line

CHECKPOINT = "checkpoint.pt"
SHARE = "share.json"
#: Epochs of each of the trials that share a GPU, so that they do meet.
MEET = 3


def main(name: str, part: str, folder: Path) -> None:
    """Runs one part of the checks of a task.

    Args:
        part: `limits`, of the device alone; `first`, which ends with SIGKILL; `alone`, which goes on from there; or the
            number of one of several trials that share the GPU.
    """
    if part == "limits" and not torch.cuda.is_available():
        put(folder, part, {"error": "torch sees no GPU here; `search doctor` says why"})
        return
    device = choose_device(torch.get_num_threads(), 1.0, "auto")
    if part == "limits":
        tell(folder, part, lambda: vars(limits.measure(device)) | {"device": device.name, "torch": torch.__version__})
        return
    try:
        bench = Bench.of(name, device, folder.parent / "cache")
    except InputError as error:
        put(folder, "data", {"error": str(error)})
        return
    device = choose_device(torch.get_num_threads(), 1.0, bench.config.resources.precision)
    if part == "first":
        tell(folder, "memory", lambda: _memory(bench, folder))
        checks.train_and_die(bench, device, folder / CHECKPOINT)
    elif part == "alone":
        _alone(bench, device, folder)
    else:
        tell(folder, f"shared-{part}", lambda: _shared(bench, folder))


def _memory(bench: Bench, folder: Path) -> dict[str, Any]:
    resources = {"cpus": torch.get_num_threads(), "gpus": 1.0, "precision": bench.config.resources.precision}
    need = memory.measure(bench.config, bench.splits, resources)
    (folder / SHARE).write_text(json.dumps({"share": need.share, "params": need.params}))
    return {"ok": True, "taken": need.taken, "together": need.together, "share": need.share, "params": need.params}


def _alone(bench: Bench, device: Device, folder: Path) -> None:
    processor = choose_device(torch.get_num_threads(), 0, "fp32")
    tell(folder, "agrees", lambda: checks.compare(bench, (1.0, "fp32"), (0, "fp32"), checks.APART))
    tell(folder, "low", lambda: checks.compare(bench, (1.0, "bf16"), (1.0, "fp32"), checks.APART_LOW))
    device = choose_device(torch.get_num_threads(), 1.0, bench.config.resources.precision)
    if (folder / CHECKPOINT).exists():
        tell(folder, "resumes", lambda: checks.resume(bench, device, folder / CHECKPOINT))
    tell(folder, "follows", lambda: checks.round_trip(bench, device, folder))
    tell(folder, "speed", lambda: checks.speed(bench, device))
    tell(folder, "processor", lambda: checks.speed(bench, processor))
    tell(folder, "waits", lambda: _waits(bench, device))
    tell(folder, "kernels", lambda: checks.kernels(bench, device))
    tell(folder, "fused", lambda: checks.together_as_one(bench, device) or {})


def _waits(bench: Bench, device: Device) -> dict[str, Any]:
    with checks.waits_of_cuda() as count:
        return checks.waits(bench, device, count)


def _shared(bench: Bench, folder: Path) -> dict[str, Any]:
    chosen = json.loads((folder / SHARE).read_text())
    device = choose_device(1, chosen["share"], bench.config.resources.precision)
    bench = replace(bench, params=chosen["params"])
    learner = bench.learner(device)
    epochs = [bench.epoch(learner) for _ in range(MEET)]
    return {"ok": True, "samples_per_second": epochs[-1]["samples_per_second"]}


def tell(folder: Path, what: str, check: Callable[[], dict[str, Any]]) -> None:
    """Writes what a check found, or the error that ended it, and how long it took."""
    begun = time.monotonic()
    try:
        found = check()
    except Exception as error:  # whatever it is, it is the finding
        found = {"error": f"{type(error).__name__}: {first_line(error)}"}
    put(folder, what, found | {"took": round(time.monotonic() - begun, 1)})


def put(folder: Path, what: str, found: dict[str, Any]) -> None:
    """Adds a finding to the file."""
    with (folder / "findings.jsonl").open("a") as file:
        file.write(json.dumps({"what": what, **found}) + "\n")
