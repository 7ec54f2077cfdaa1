"""`search doctor --gpu`: every task on a GPU, beside the processor; a table, a verdict a line, and a JSON file."""

from __future__ import annotations

import json
import os
import platform
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from search.gpu import child
from search.gpu.checks import CHECK_EVERY
from trainables import TASKS, get_task

#: Most trials that share the GPU in the check; the cores that feed them are the limit above it.
MOST = 16
#: Seconds that a part of a task's checks may take, and all of them together.
PART, ALL = 150.0, 570.0
OVER = f"the {ALL:.0f} s of all checks were over"
#: What `torch.use_deterministic_algorithms` needs of cuBLAS, which reads it when it starts.
WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
Found = dict[str, dict[str, Any]]


def examine(console: Console, names: Sequence[str], report: Path) -> int:
    """Runs the checks, prints what they find as they find it, and writes it to `report`.

    Args:
        names: of tasks; none: all five.

    Returns:
        The exit code: 0 where every check is passed, 1 where one is not, 2 where there is no GPU.
    """
    begun = time.monotonic()
    os.environ |= WORKSPACE | dict(os.environ)
    for name in names or TASKS:
        get_task(name)  # imported once, for all processes
    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory(prefix="search-gpu-") as place:
        folder = Path(place)
        machine = _run("", "limits", folder / "machine", begun)["limits"]
        if "error" in machine:
            console.print(f"doctor --gpu: {machine['error']}", markup=False, soft_wrap=True)
            return 2
        console.print(_machine(machine), markup=False, soft_wrap=True)
        for name in names or TASKS:
            found[name] = _task(name, folder / name, begun)
            for line in verdicts(name, found[name]):
                console.print(line, markup=False, soft_wrap=True)
            _write(report, machine, found)
    console.print(table(found, machine))
    missing = [line for name in found for line in left_out(name, found[name])]
    console.print("\n".join(["not done:", *missing] if missing else ["everything was done"]), markup=False)
    console.print(f"{time.monotonic() - begun:.0f} s; written to {report}", markup=False, soft_wrap=True)
    return 1 if any(f.get("ok") is False or "error" in f for one in found.values() for f in one.values()) else 0


def _task(name: str, folder: Path, begun: float) -> Found:
    found = _run(name, "first", folder, begun, expected=-signal.SIGKILL)
    if "data" in found:
        return found
    found |= _run(name, "alone", folder, begun)
    if (together := found.get("memory", {}).get("together")) is not None:
        count = min(int(together), MOST, os.cpu_count() or 1)
        found |= _shared(name, folder, count, begun)
    return found


def _run(name: str, part: str, folder: Path, begun: float, expected: int = 0) -> Found:
    """Runs a part of the checks in a process of its own; all findings so far, with an error where it ended badly."""
    left = _left(begun)
    if left <= 0:
        return {part: {"skipped": OVER}}
    process = _start(name, part, folder)
    ended = _wait(process, left)
    found = _read(folder)
    if ended != expected and "data" not in found:
        found[part] = {"error": f"not over after {left:.0f} s" if ended is None else _last_words(folder, part, ended)}
    return found


def _shared(name: str, folder: Path, count: int, begun: float) -> Found:
    """Trains the largest configuration so many times at once, each in its share of the GPU."""
    left = _left(begun)
    if left <= 0:
        return {"shared": {"skipped": OVER}}
    processes = [_start(name, str(number), folder) for number in range(count)]
    until = time.monotonic() + left
    ends = [_wait(process, max(1.0, until - time.monotonic())) for process in processes]
    rows = [one for what, one in _read(folder).items() if what.startswith("shared-")]
    errors = [_last_words(folder, str(number), end) for number, end in enumerate(ends) if end]
    errors += ["one is not over"] * ends.count(None) + [row["error"] for row in rows if "error" in row]
    rate = sum(row.get("samples_per_second", 0.0) for row in rows)
    return {"shared": {"ok": not errors, "trials": count, "samples_per_second": rate, "errors": errors}}


def _left(begun: float) -> float:
    return min(PART, ALL - (time.monotonic() - begun))


def _start(name: str, part: str, folder: Path) -> ForkProcess:
    """Forks: what this process imported, which takes most of a short check, need not be imported again. It has not
    touched the GPU, which a forked process could not use then."""
    folder.mkdir(parents=True, exist_ok=True)
    process = get_context("fork").Process(target=_child, args=(name, part, folder))
    process.start()
    return process


def _child(name: str, part: str, folder: Path) -> None:
    with (folder / f"{part}.log").open("wb") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    child.main(name, part, folder)


def _wait(process: ForkProcess, seconds: float) -> int | None:
    """The exit code; None where the process was not over and was killed."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def _last_words(folder: Path, part: str, code: int) -> str:
    log = folder / f"{part}.log"  # which one that was killed at once has not made yet
    said = (log.read_text(errors="replace").strip() if log.exists() else "") or "-"
    return f"ended with {code}: {said.splitlines()[-1]}"


def _read(folder: Path) -> Found:
    try:
        lines = (folder / "findings.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {(one := json.loads(line)).pop("what"): one for line in lines}


def _machine(machine: dict[str, Any]) -> str:
    return (
        f"{machine['device']}, torch {machine['torch']}: copies {machine['copied'] / 1e9:.0f} GB/s (read and written), "
        f"matrices {machine['fp32'] / 1e12:.1f} TFLOP/s in fp32 and {machine['low'] / 1e12:.0f} in bf16, "
        f"{machine['start'] * 1e6:.1f} us to start a kernel\n"
        + (
            "ok  a process gets no more than its share of the memory"
            if machine["refused"]
            else "BAD a process gets more than its share of the memory"
        )
    )


def verdicts(name: str, found: Found) -> Iterator[str]:
    """A line for each check of a task: passed or not, and the figures that say so."""
    said = {
        "agrees": lambda f: f"an epoch ends at a loss of {f['losses'][0]:.5g}, on the processor {f['losses'][1]:.5g}: "
        f"{f['apart']:.2%} apart ({f['allowed']:.0%} allowed)",
        "low": lambda f: f"in bf16 at {f['losses'][0]:.5g}, in fp32 {f['losses'][1]:.5g}: {f['apart']:.2%} apart "
        f"({f['allowed']:.0%} allowed)",
        "resumes": lambda f: f"killed and resumed: {'the same bits' if f['ok'] else 'other bits'}"
        + (f"; not deterministic: {', '.join(f['not_deterministic'])}" if f["not_deterministic"] else ""),
        "follows": lambda f: "artifacts, export, load and predict",
        "waits": lambda f: f"{f['waits']} waits for the GPU in {f['steps']} steps: {f['a_check']:.2g} in {CHECK_EVERY}",
        "memory": lambda f: f"the largest configuration takes {f['taken'] / 2**30:.1f} GB; "
        f"gpus: auto is {f['share']:g}",
        "shared": lambda f: f"{f['trials']} trials together: {f['samples_per_second']:.0f} samples/s"
        + (f"; {'; '.join(f['errors'])}" if f["errors"] else ""),
    }  # fmt: skip
    for what, one in found.items():
        if "error" in one:
            yield f"BAD {name}: {what}: {one['error']}"
        elif what in said and "skipped" not in one:
            yield f"{'ok ' if one['ok'] else 'BAD'} {name}: {said[what](one)}"


def left_out(name: str, found: Found) -> Iterator[str]:
    """What was not checked of a task, with the reason."""
    if "data" in found:
        yield f"  {name}: {found['data']['error']}"
        return
    for what in ("memory", "agrees", "low", "resumes", "follows", "speed", "waits", "kernels", "shared"):
        if what not in found:
            yield f"  {name}: {what}: a check before it failed"
        elif "skipped" in found[what]:
            yield f"  {name}: {what}: {found[what]['skipped']}"


def table(found: dict[str, Found], machine: dict[str, Any]) -> Table:
    """A row for each task: how fast it is, and what of the limits its steps reach."""
    shown = Table(box=None, pad_edge=False)
    for head in (
        "task", "samples/s", "x processor", "ms a step", "kernels", "GPU works", "of starting", "of matrices", "as one",
    ):  # fmt: skip
        shown.add_column(head, justify="left" if head == "task" else "right")
    for name, one in found.items():
        speed, other, ran = one.get("speed", {}), one.get("processor", {}), one.get("kernels", {})
        if "step_seconds" not in speed:
            shown.add_row(name)
            continue
        step = speed["step_seconds"]
        peak = machine.get("low") or 0.0
        cells = [f"{speed['samples_per_second']:.0f}"]
        cells.append(
            f"{speed['samples_per_second'] / other['samples_per_second']:.1f}" if "samples_per_second" in other else ""
        )
        cells.append(f"{1000 * step:.2f}")
        if "busy" in ran:
            launched = ran["kernels_a_step"] * machine.get("start", 0.0) / step
            cells += [f"{ran['kernels_a_step']:.0f}", f"{ran['busy']:.0%}", f"{launched:.0%}"]
        else:
            cells += ["", "", ""]
        cells.append(f"{speed['step_operations'] / step / peak:.2%}" if peak else "")
        as_one = one.get("fused", {})
        cells.append(f"{as_one['trials']}: {as_one['times_as_fast']:.1f} x" if "trials" in as_one else "")
        shown.add_row(name, *cells)
    return shown


def _write(report: Path, machine: dict[str, Any], found: dict[str, Found]) -> None:
    about = {"python": platform.python_version(), "cuda": torch.version.cuda, "time": time.strftime("%Y-%m-%d %H:%M")}
    report.write_text(json.dumps({"about": about, "machine": machine, "tasks": found}, indent=2) + "\n")
