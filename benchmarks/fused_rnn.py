"""Claim: fused, the rnn task trains at least four times as many trials an hour as one by one.

64 trials of one shape (vanilla, hidden 16) that differ in learning rate, weight decay, initialisation, clipping and
seed, through the real command: the same configurations once 32 in a model and once each by itself, two models at a
time, alternating which goes first; the start of the workers is part of it. Exits with 1 where the two disagree about
the trials' results or the ratio is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass

from benchmarks import run_search

CLAIM = 4.0
TRIALS, EPOCHS, FUSE = 64, 60, 32
SHAPE = ("variant=vanilla", "hidden=16", "layers=1", "activation=tanh", "optimizer=adam", "batch_size=64")


@dataclass(frozen=True)
class Timing:
    """One search: its trials by number with their best validation MSE, and the seconds from first to last event."""

    best: dict[int, float]
    seconds: float

    @property
    def trials_per_hour(self) -> float:
        return 3600 * len(self.best) / self.seconds


def search(fuse: int) -> Timing:
    """Runs the search; its clock starts when the first trial is proposed and stops with the last epoch of the last."""
    events = run_search(
        "rnn", "--searcher", "random", "--scheduler", "none", "--trials", str(TRIALS), "--epochs", str(EPOCHS),
        "--concurrency", "2", sets=(*SHAPE, f"search.fuse={fuse}", "resources.dashboard=false"),
    )  # fmt: skip
    begun = next(e["time"] for e in events if e["event"] == "trial")
    results = [e for e in events if e["event"] == "result"]
    best: dict[int, float] = {}
    for result in results:
        number, value = result["number"], result["metrics"]["val_mse"]
        best[number] = min(value, best.get(number, value))
    return Timing(best, (results[-1]["time"] - begun) / 1000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1, help="how often both are run")
    pairs = parser.parse_args().pairs
    ratios = []
    for pair in range(pairs):
        order = (FUSE, 1) if pair % 2 == 0 else (1, FUSE)
        timings = {fuse: search(fuse) for fuse in order}
        fused, alone = timings[FUSE], timings[1]
        apart = [abs(fused.best[n] - alone.best[n]) / alone.best[n] for n in range(TRIALS)]
        ratios.append(fused.trials_per_hour / alone.trials_per_hour)
        print(
            f"pair {pair}: fused {fused.trials_per_hour:.0f} trials an hour, one by one {alone.trials_per_hour:.0f}: "
            f"{ratios[-1]:.2f} x; best val mse differs by {statistics.median(apart):.2%} (median), {max(apart):.2%} "
            "(most)",
            flush=True,
        )
        if max(apart) > 0.05:
            print("the two do not agree about the trials' results")
            return 1
    print(f"median of {pairs}: {statistics.median(ratios):.2f} x, claimed {CLAIM:g} x")
    return 0 if statistics.median(ratios) >= CLAIM else 1


if __name__ == "__main__":
    sys.exit(main())
