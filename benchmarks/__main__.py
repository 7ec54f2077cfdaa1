"""Runs the benchmarks, all or those named, and writes docs/benchmarks.md: `python -m benchmarks [NAME...]`.

Each is a program of its own that prints what it measures, ends with a line that sums it up, and exits with 1 where its
claim is missed or the results that it compares differ. What was measured last stays in benchmarks/results.json, so that
one may be run again alone; the machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from search.cli.doctor import software
from search.runtime.placement import local_cpus

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results.json", HERE.parent / "docs" / "benchmarks.md"
#: Name and arguments.
ALL = {
    "start": ["--pairs", "5"],
    "overhead": ["--pairs", "5"],
    "compute": ["--pairs", "5"],
    "wikitext_speed": [],
    "frozen_features": ["--pairs", "5"],
    "images": ["--pairs", "5"],
    "fused_rnn": ["--pairs", "5"],
    "scale": ["--pairs", "1", "--docs", "docs"],
    "hour": [],
    "killed": [],
    "functions": ["--pairs", "3"],
    "curves": ["--seeds", "3"],
}


def run(name: str) -> dict[str, Any]:
    """Runs one and shows what it says as it says it."""
    command = [sys.executable, "-u", "-m", f"benchmarks.{name}", *ALL[name]]
    process = subprocess.Popen(
        command, cwd=HERE.parent, text=True, stdout=subprocess.PIPE, env={**os.environ, "RAY_ADDRESS": ""}
    )
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line.rstrip())
    return {
        "held": process.wait() == 0,
        "output": lines,
        "command": " ".join(["python", *command[2:]]),
        "when": time.strftime("%Y-%m-%d"),
        "machine": f"{local_cpus()} cores ({platform.machine()}), {software()}",
    }


def page(results: dict[str, dict[str, Any]]) -> str:
    lines = [
        "# Benchmarks", "",
        "`python -m benchmarks` runs them all and writes this page; `python -m benchmarks NAME` one of them. What is",
        "compared is run in turns in one go, on the same work, and checked to come to the same results.", "",
        "| benchmark | claim | measured | |", "|---|---|---|---|",
    ]  # fmt: skip
    claims = {name: _claim(name) for name in ALL}
    for name, found in results.items():
        held = "held" if found["held"] else "**missed**"
        lines.append(f"| [{name}](#{name}) | {claims[name][0]} | {found['output'][-1]} | {held} |")
    for name, found in results.items():
        lines += ["", f"## {name}", "", *claims[name][1], "", f"{found['when']}, {found['machine']}:", "", "```"]
        lines += [f"$ {found['command']}", *found["output"], "```"]
    return "\n".join([*lines, "", (HERE / "tried.md").read_text()])


def _claim(name: str) -> tuple[str, list[str]]:
    """The first line of its docstring, and the rest."""
    first, _, rest = (import_module(f"benchmarks.{name}").__doc__ or "").partition("\n")
    return first.removeprefix("Claim: "), rest.strip().splitlines()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; all without")
    names = parser.parse_args().names or list(ALL)
    if unknown := [name for name in names if name not in ALL]:
        parser.error(f"{unknown[0]}: no such benchmark; there are {', '.join(ALL)}")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in names:
        print(f"{name}: {_claim(name)[0]}", flush=True)
        results[name] = run(name)
        results = {known: results[known] for known in ALL if known in results}
        RESULTS.write_text(json.dumps(results, indent=1))
        PAGE.write_text(page(results))
    return 0 if all(results[name]["held"] for name in names) else 1


if __name__ == "__main__":
    sys.exit(main())
