"""Runs benchmarks, all or the named ones, and writes benchmarks/results.md: `python -m benchmarks [NAME...]`.

Each benchmark is a program that prints its measurements and ends with one line of summary. It exits with 1 if its
claim is missed, or if the results that it compares differ. benchmarks/results.json keeps the last output of each
benchmark, so that one of them can be run again alone. Nothing else should run on the machine. `--page` runs nothing
and writes the page from results.json.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from search.cli.doctor import software
from search.runtime.placement import local_cpus

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results.json", HERE / "results.md"
#: The arguments of each benchmark, by name.
ALL = {
    "start": ["--pairs", "5"],
    "overhead": ["--pairs", "5"],
    "compute": ["--pairs", "5"],
    "wikitext_speed": [],
    "frozen_features": ["--pairs", "5"],
    "images": ["--pairs", "5"],
    "fused_rnn": ["--pairs", "5"],
    "scale": ["--pairs", "1", "--docs", "benchmarks"],
    "hour": [],
    "killed": [],
    "functions": ["--pairs", "3"],
    "proposals": [],
    "curves": ["--seeds", "3"],
}
#: Benchmarks that print a table for another page.
ELSEWHERE = {
    "hour": "[tasks.md](tasks.md)",
    "killed": "[from other tools](../docs/howto/from-other-tools.md#after-a-kill)",
    "functions": "[from other tools](../docs/howto/from-other-tools.md#what-it-costs)",
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
    """The Markdown of benchmarks/results.md."""
    lines = [
        "# Benchmarks", "",
        "Written by `python -m benchmarks`, which runs all benchmarks; `python -m benchmarks NAME` runs one. The",
        "programs of a benchmark take turns on the same machine and the same work. Each benchmark checks that they",
        "come to the same results. What was tried and did not help: [tried.md](tried.md).", "",
        "| benchmark | claim | measured | |", "|---|---|---|---|",
    ]  # fmt: skip
    for name in ALL:
        claim, _ = _claim(name)
        if name in results:
            held = "held" if results[name]["held"] else "**missed**"
            lines.append(f"| [{name}](#{name}) | {claim} | {results[name]['output'][-1]} | {held} |")
        else:
            lines.append(f"| {name} | {claim} | see {ELSEWHERE[name]} | |")
    for name, result in results.items():
        lines += ["", f"## {name}", "", *_claim(name)[1], "", f"{result['when']}, {result['machine']}:", "", "```text"]
        lines += [f"$ {result['command']}", *result["output"], "```"]
    return "\n".join([*lines, ""])


def _claim(name: str) -> tuple[str, list[str]]:
    """The first line of a benchmark's docstring, and its other lines; the benchmark is not imported."""
    path = HERE / f"{name}.py" if (HERE / f"{name}.py").exists() else HERE / name / "__init__.py"
    first, _, rest = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")
    return first.removeprefix("Claim: "), rest.strip().splitlines()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(ALL)}; without a name: all")
    parser.add_argument("--page", action="store_true", help="run nothing, write results.md from results.json")
    options = parser.parse_args()
    names = options.names or ([] if options.page else list(ALL))
    if unknown := [name for name in names if name not in ALL]:
        parser.error(f"{unknown[0]}: no such benchmark; there are {', '.join(ALL)}")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.page:
        PAGE.write_text(page(results))
    for name in names:
        print(f"{name}: {_claim(name)[0]}", flush=True)
        results[name] = run(name)
        results = {known: results[known] for known in ALL if known in results}
        RESULTS.write_text(json.dumps(results, indent=1))
        PAGE.write_text(page(results))
    return 0 if all(results[name]["held"] for name in names) else 1


if __name__ == "__main__":
    sys.exit(main())
