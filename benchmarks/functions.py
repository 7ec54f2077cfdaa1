"""Claim: forty short trials of a training function are not slower than as a function trainable of Ray Tune.

Whole programs, start and end included, in turns: those of docs/howto/from-other-tools.md with forty trials of up to
five epochs, two at a time. Both stop trials by ASHA, take their proposals from Optuna's TPE and save each epoch's
state. The search writes a journal and MLflow besides. Exits with 1 where the median of the ratios is above 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.killed import PAGE, programs

#: What is changed in both programs.
SHORT = {
    "Ray Tune": (("num_samples=30", "num_samples=40"), ("first, 21)", "first, 6)"), ("max_t=20", "max_t=5")),
    "Here": (("trials=30", "trials=40"), ("epochs=20", "epochs=5"), ('"digits"', '"digits", scheduler="asha"')),
}  # fmt: skip


def seconds(system: str) -> float:
    """Of the whole program."""
    program = programs()[system]
    for before, after in SHORT[system]:
        if before not in program:
            raise SystemExit(f"docs/howto/from-other-tools.md: {system}: {before} is not there")
        program = program.replace(before, after)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "training.py").write_text(programs()["training"])
        (Path(folder) / "tune_digits.py").write_text(program)
        environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "SEARCH_STORE")}
        environment["PYTHONPATH"] = os.pathsep.join([str(PAGE.parents[1]), folder])
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "tune_digits.py"], cwd=folder, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{system} failed: {done.stderr}")
        return time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1, help="how often each is run")
    options = parser.parse_args()
    ratios = []
    for pair in range(options.pairs):
        took = {system: seconds(system) for system in (list(SHORT) if pair % 2 == 0 else reversed(SHORT))}
        ratios.append(took["Here"] / took["Ray Tune"])
        print(
            f"pair {pair}: here {took['Here']:.1f} s, Ray Tune {took['Ray Tune']:.1f} s ({ratios[-1]:.2f} x)",
            flush=True,
        )
    print(f"{median(ratios):.2f} x the time of Ray Tune's function trainable, median of {len(ratios)} pairs")
    return 0 if median(ratios) <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
