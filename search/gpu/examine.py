"""`search doctor --gpu`: checks every task on a GPU against the processor; prints a line for each check and a table."""

from __future__ import annotations

import json
import os
import platform
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
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

#: Most trials that share the GPU in the check, and at most one for each core.
MOST = 16
#: Seconds for a part of a task's checks, and for all checks.
PART, ALL = 150.0, 570.0
OVER = f"the {ALL:.0f} s of all checks were over"
#: `torch.use_deterministic_algorithms` needs this setting. cuBLAS reads it when it starts.
WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
#: The result of each check of a task, by the name of the check.
Results = dict[str, dict[str, Any]]


def examine(console: Console, names: Sequence[str], report: Path) -> int:
    """Runs the checks, prints each result at once, and writes all results to `report`.

    Args:
        names: of tasks; empty: all tasks of this program.

    Returns:
        The exit code: 0 if all checks pass, 1 if a check fails, 2 without a GPU.
    """
    begun = time.monotonic()
    say = partial(console.print, markup=False, soft_wrap=True)
    os.environ |= WORKSPACE | dict(os.environ)
    for name in names or TASKS:
        get_task(name)  # imported once, for all processes
    results: dict[str, Results] = {}
    with tempfile.TemporaryDirectory(prefix="search-gpu-") as temporary:
        folder = Path(temporary)
        machine = _run("", "limits", folder / "machine", begun)["limits"]
        if "error" in machine:
            say(f"doctor --gpu: {machine['error']}")
            return 2
        say(_machine(machine))
        for name in names or TASKS:
            results[name] = _task(name, folder / name, begun)
            for line in verdicts(name, results[name]):
                say(line)
            _write(report, machine, results)
    console.print(table(results, machine))
    missing = [line for name in results for line in left_out(name, results[name])]
    say("\n".join(["not done:", *missing] if missing else ["everything was done"]))
    say(f"{time.monotonic() - begun:.0f} s; written to {report}")
    every = [result for of_task in results.values() for result in of_task.values()]
    return 1 if any(result.get("ok") is False or "error" in result for result in every) else 0


def _task(name: str, folder: Path, begun: float) -> Results:
    """The results of all checks of a task."""
    results = _run(name, "first", folder, begun, expected=-signal.SIGKILL)
    if "data" in results:
        return results
    results |= _run(name, "alone", folder, begun)
    if (together := results.get("memory", {}).get("together")) is not None:
        count = min(int(together), MOST, os.cpu_count() or 1)
        results |= _shared(name, folder, count, begun)
    return results


def _run(name: str, part: str, folder: Path, begun: float, expected: int = 0) -> Results:
    """Runs a part of the checks in a process of its own.

    Returns:
        All results of the task so far, with an error if the exit code is not the `expected` one.
    """
    left = _left(begun)
    if left <= 0:
        return {part: {"skipped": OVER}}
    code = _wait(_start(name, part, folder), left)
    results = _read(folder)
    if code != expected and "data" not in results:
        results[part] = {"error": f"not over after {left:.0f} s" if code is None else _last_words(folder, part, code)}
    return results


def _shared(name: str, folder: Path, count: int, begun: float) -> Results:
    """Trains the largest configuration in `count` processes at once, each with its share of the GPU."""
    left = _left(begun)
    if left <= 0:
        return {"shared": {"skipped": OVER}}
    processes = [_start(name, str(number), folder) for number in range(count)]
    until = time.monotonic() + left
    codes = [_wait(process, max(1.0, until - time.monotonic())) for process in processes]
    rows = [result for check, result in _read(folder).items() if check.startswith("shared-")]
    errors = [_last_words(folder, str(number), code) for number, code in enumerate(codes) if code]
    errors += ["a trial is not over"] * codes.count(None) + [row["error"] for row in rows if "error" in row]
    rate = sum(row.get("samples_per_second", 0.0) for row in rows)
    return {"shared": {"ok": not errors, "trials": count, "samples_per_second": rate, "errors": errors}}


def _left(begun: float) -> float:
    """The seconds that are left for the next part."""
    return min(PART, ALL - (time.monotonic() - begun))


def _start(name: str, part: str, folder: Path) -> ForkProcess:
    """Starts a part in a forked process, which need not import torch again: that takes most of a short check.

    A fork can use the GPU because this process never used it.
    """
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
    """The exit code; None if the process needed more than `seconds` and was killed."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def _last_words(folder: Path, part: str, code: int) -> str:
    """The exit code of a part and the last line of its output."""
    log = folder / f"{part}.log"  # missing if the process was killed at once
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return f"ended with {code}: {lines[-1] if lines else '-'}"


def _read(folder: Path) -> Results:
    """The results that the processes of a task wrote; see `child.write`."""
    file = folder / "findings.jsonl"
    results = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {result.pop("check"): result for result in results}


def _machine(machine: dict[str, Any]) -> str:
    """Lines on the limits of the GPU."""
    share = "ok  a process gets no more than" if machine["refused"] else "BAD a process gets more than"
    return (
        f"{machine['device']}, torch {machine['torch']}: copies {machine['copied'] / 1e9:.0f} GB/s (read and written), "
        f"matrices {machine['fp32'] / 1e12:.1f} TFLOP/s in fp32 and {machine['low'] / 1e12:.0f} in bf16, "
        f"{machine['start'] * 1e6:.1f} us to start a kernel\n{share} its share of the memory"
    )


def verdicts(name: str, results: Results) -> Iterator[str]:
    """A line for each check of a task: `ok` or `BAD`, and its figures."""
    figures = {
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
    for check, result in results.items():
        if "error" in result:
            yield f"BAD {name}: {check}: {result['error']}"
        elif check in figures and "skipped" not in result:
            yield f"{'ok ' if result['ok'] else 'BAD'} {name}: {figures[check](result)}"


def left_out(name: str, results: Results) -> Iterator[str]:
    """The checks of a task that did not run, with the reasons."""
    if "data" in results:
        yield f"  {name}: {results['data']['error']}"
        return
    for check in ("memory", "agrees", "low", "resumes", "follows", "speed", "waits", "kernels", "shared"):
        if check not in results:
            yield f"  {name}: {check}: a check before it failed"
        elif "skipped" in results[check]:
            yield f"  {name}: {check}: {results[check]['skipped']}"


def table(results: dict[str, Results], machine: dict[str, Any]) -> Table:
    """A row for each task: its speed, and the shares of the GPU's limits that its steps reach."""
    drawn = Table(box=None, pad_edge=False)
    for head in (
        "task", "samples/s", "x processor", "ms a step", "kernels", "GPU works", "of starting", "of matrices", "as one",
    ):  # fmt: skip
        drawn.add_column(head, justify="left" if head == "task" else "right")
    for name, checks in results.items():
        drawn.add_row(name, *_cells(checks, machine))
    return drawn


def _cells(checks: Results, machine: dict[str, Any]) -> list[str]:
    """The cells of a task's row; none if its speed was not measured."""
    speed, processor, kernels, fused = (checks.get(name, {}) for name in ("speed", "processor", "kernels", "fused"))
    if "step_seconds" not in speed:
        return []
    rate, step = speed["samples_per_second"], speed["step_seconds"]
    cells = [f"{rate:.0f}"]
    cells.append(f"{rate / processor['samples_per_second']:.1f}" if "samples_per_second" in processor else "")
    cells.append(f"{1000 * step:.2f}")
    if "busy" in kernels:
        starting = kernels["kernels_a_step"] * machine["start"] / step
        cells += [f"{kernels['kernels_a_step']:.0f}", f"{kernels['busy']:.0%}", f"{starting:.0%}"]
    else:
        cells += ["", "", ""]
    cells.append(f"{speed['step_operations'] / step / machine['low']:.2%}")
    cells.append(f"{fused['trials']}: {fused['times_as_fast']:.1f} x" if "trials" in fused else "")
    return cells


def _write(report: Path, machine: dict[str, Any], results: dict[str, Results]) -> None:
    about = {"python": platform.python_version(), "cuda": torch.version.cuda, "time": time.strftime("%Y-%m-%d %H:%M")}
    report.write_text(json.dumps({"about": about, "machine": machine, "tasks": results}, indent=2) + "\n")
