"""Claim: a search that is killed at any epoch and resumed ends with the same best trial, to the bit, as without.

The programs of docs/howto/from-other-tools.md (Ray Tune, Optuna and this project) run with one trial at a time: once to
the end, and then killed with SIGKILL after so many epochs and started again. Prints the table of that page; `--write`
writes it there. Exits with 1 where this project's best differs from the uninterrupted one's.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "from-other-tools.md"
KILLS = (15, 40, 90)
#: Added to the training of each: a file with a byte for each epoch.
COUNTED = """

import os

_train_epoch = train_epoch


def train_epoch(model, optimizer):
    _train_epoch(model, optimizer)
    with open(os.environ["EPOCHS"], "a") as file:
        file.write("x")
"""
#: One trial at a time.
ALONE = {
    "Ray Tune": ("max_concurrent_trials=2", "max_concurrent_trials=1"), "Optuna": ("", ""),
    "Here": ('name="digits"', 'name="digits", concurrency=1'),
}  # fmt: skip
LAST = "import search; best = search.open('digits').best; print(best.params, best.value)"


@dataclass(frozen=True)
class Ended:
    """What a program printed last, its parameters and value, and how many epochs were trained in all."""

    said: str
    epochs: int

    @property
    def value(self) -> float:
        return float(self.said.split()[-1])


def programs() -> dict[str, str]:
    """The first program in Python of each section of the page, by its heading; `training` is the one before all."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    titles = ["training", *parts[1::2]]
    return {
        title: found[1] for title, text in zip(titles, parts[::2], strict=True)
        if (found := re.search(r"```python\n(.*?)```", text, re.DOTALL))
    }  # fmt: skip


def run(system: str, kill_at: int | None = None) -> Ended:
    """Runs a program to its end; where `kill_at` is given, it is killed after so many epochs and started again."""
    before, after = ALONE[system]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "training.py").write_text(programs()["training"] + COUNTED)
        (folder / "tune_digits.py").write_text(programs()[system].replace(before, after))
        counter = folder / "epochs"
        counter.touch()
        here = str(PAGE.parents[2])
        environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "SEARCH_STORE")}
        environment |= {"EPOCHS": str(counter), "PYTHONPATH": os.pathsep.join([here, place])}
        program = [sys.executable, "tune_digits.py"]

        def start(arguments: list[str]) -> subprocess.Popen[str]:
            return subprocess.Popen(
                arguments, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip

        if kill_at is not None:
            killed = start(program)
            while len(counter.read_bytes()) < kill_at:
                if killed.poll() is not None:
                    raise SystemExit(f"{system} ended before {kill_at} epochs")
                time.sleep(0.005)
            killed.send_signal(signal.SIGKILL)
            killed.communicate()
            time.sleep(5)  # Ray's own processes end with their driver
        again = system == "Here" and kill_at is not None
        process = start([sys.executable, "-m", "search", "resume", "digits"] if again else program)
        output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{system} failed: {output}")
        if again:
            output, _ = start([sys.executable, "-c", LAST]).communicate()
        return Ended(output.strip().splitlines()[-1], len(counter.read_bytes()))


def table(ended: dict[str, dict[int | None, Ended]]) -> str:
    """The table in Markdown: for each system the best value, the epochs in all, and whether the best is the same."""
    lines = ["| | not killed | " + " | ".join(f"killed after {n} epochs" for n in KILLS) + " |"]
    lines.append("|---" * (2 + len(KILLS)) + "|")
    for system, runs in ended.items():
        cells = [f"{runs[None].value:.6f}, {runs[None].epochs} epochs"]
        for number in KILLS:
            same = "the same" if runs[number].said == runs[None].said else f"another: {runs[number].value:.6f}"
            cells.append(f"{same}, {runs[number].epochs} epochs")
        lines.append(f"| {system.lower()} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", nargs="*", default=list(ALONE), choices=list(ALONE))
    parser.add_argument("--write", action="store_true", help="into the page")
    options = parser.parse_args()
    ended: dict[str, dict[int | None, Ended]] = {}
    for system in options.systems:
        ended[system] = {}
        for kill_at in (None, *KILLS):
            ended[system][kill_at] = run(system, kill_at)
            print(f"{system}, killed after {kill_at}: {ended[system][kill_at]}", flush=True)
    made = table(ended)
    print(made)
    if options.write:
        before, _, rest = PAGE.read_text().partition("<!-- killed -->\n")
        _, _, after = rest.partition("<!-- /killed -->\n")
        PAGE.write_text(f"{before}<!-- killed -->\n{made}\n<!-- /killed -->\n{after}")
    ours = ended.get("Here", {}).values()
    return 0 if len({one.said for one in ours}) <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
