"""Runs a part of the checks of a task in a process of its own: CUDA's state lasts as long as the process.

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
#: Epochs of each trial that shares a GPU: enough that the trials overlap in time.
MEET = 3


def main(name: str, part: str, folder: Path) -> None:
    """Runs one part of the checks of a task.

    Args:
        part: `limits`: the device alone. `first`: ends with SIGKILL. `alone`: continues from the checkpoint of `first`.
            A number: one of several trials that share the GPU.
    """
    if part == "limits" and not torch.cuda.is_available():
        write(folder, part, {"error": "torch sees no GPU here; `search doctor` says why"})
        return
    device = choose_device(torch.get_num_threads(), 1.0, "auto")
    if part == "limits":
        run(folder, part, lambda: vars(limits.measure(device)) | {"device": device.name, "torch": torch.__version__})
        return
    try:
        bench = Bench.of(name, device, folder.parent / "cache")
    except InputError as error:
        write(folder, "data", {"error": str(error)})
        return
    device = choose_device(torch.get_num_threads(), 1.0, bench.config.resources.precision)
    if part == "first":
        run(folder, "memory", lambda: _memory(bench, folder))
        checks.train_and_die(bench, device, folder / CHECKPOINT)
    elif part == "alone":
        _alone(bench, device, folder)
    else:
        run(folder, f"shared-{part}", lambda: _shared(bench, folder))


def _memory(bench: Bench, folder: Path) -> dict[str, Any]:
    resources = {"cpus": torch.get_num_threads(), "gpus": 1.0, "precision": bench.config.resources.precision}
    need = memory.measure(bench.config, bench.splits, resources)
    (folder / SHARE).write_text(json.dumps({"share": need.share, "params": need.params}))
    return {"ok": True, "taken": need.taken, "together": need.together, "share": need.share, "params": need.params}


def _alone(bench: Bench, device: Device, folder: Path) -> None:
    processor = choose_device(torch.get_num_threads(), 0, "fp32")
    run(folder, "agrees", lambda: checks.compare(bench, (1.0, "fp32"), (0, "fp32"), checks.APART))
    run(folder, "low", lambda: checks.compare(bench, (1.0, "bf16"), (1.0, "fp32"), checks.APART_LOW))
    device = choose_device(torch.get_num_threads(), 1.0, bench.config.resources.precision)
    if (folder / CHECKPOINT).exists():
        run(folder, "resumes", lambda: checks.resume(bench, device, folder / CHECKPOINT))
    run(folder, "follows", lambda: checks.round_trip(bench, device, folder))
    run(folder, "speed", lambda: checks.speed(bench, device))
    run(folder, "processor", lambda: checks.speed(bench, processor))
    run(folder, "waits", lambda: _waits(bench, device))
    run(folder, "kernels", lambda: checks.kernels(bench, device))
    run(folder, "fused", lambda: checks.together_as_one(bench, device) or {})


def _waits(bench: Bench, device: Device) -> dict[str, Any]:
    with checks.waits_of_cuda() as count:
        return checks.waits(bench, device, count)


def _shared(bench: Bench, folder: Path) -> dict[str, Any]:
    need = json.loads((folder / SHARE).read_text())
    device = choose_device(1, need["share"], bench.config.resources.precision)
    bench = replace(bench, params=need["params"])
    learner = bench.learner(device)
    epochs = [bench.epoch(learner) for _ in range(MEET)]
    return {"ok": True, "samples_per_second": epochs[-1]["samples_per_second"]}


def run(folder: Path, name: str, check: Callable[[], dict[str, Any]]) -> None:
    """Runs a check and writes its result or its error, and its duration."""
    begun = time.monotonic()
    try:
        result = check()
    except Exception as error:  # every error is a finding
        result = {"error": f"{type(error).__name__}: {first_line(error)}"}
    write(folder, name, result | {"took": round(time.monotonic() - begun, 1)})


def write(folder: Path, name: str, result: dict[str, Any]) -> None:
    """Appends the result of a check to the file."""
    with (folder / "findings.jsonl").open("a") as file:
        file.write(json.dumps({"check": name, **result}) + "\n")
