"""Claim: `--help` answers within 0.7 seconds, and a search's first trial trains within 12.

The command as a user types it, on this machine alone: `--help` until it ends, `run windows` (the demo, made before)
until the first epoch that is reported began.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from statistics import median

from benchmarks import run_search

HELP, TRAINS = 0.7, 12.0


def help_() -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "search", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def first_trial(store: str) -> float:
    """Seconds until the first trial's first epoch began."""
    begun = time.time()
    events = run_search("windows", "--trials", "2", "--epochs", "1", sets=("search.grace_period=1",), store=store)
    first = next(event for event in events if event["event"] == "result")
    return first["time"] / 1000 - first["metrics"]["epoch_seconds"] - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="how often each is run")
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as store:
        first_trial(store)
        helps, firsts = [], []
        for repeat in range(pairs):
            helps.append(help_())
            firsts.append(first_trial(store))
            print(f"pair {repeat}: --help {helps[-1]:.2f} s, first trial after {firsts[-1]:.1f} s", flush=True)
    print(
        f"median of {pairs}: --help {median(helps):.2f} s (claimed {HELP:g}), first trial after {median(firsts):.1f} s "
        f"(claimed {TRAINS:g})"
    )
    return 0 if median(helps) <= HELP and median(firsts) <= TRAINS else 1


if __name__ == "__main__":
    sys.exit(main())
