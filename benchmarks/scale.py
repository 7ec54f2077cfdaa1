"""Claim: with 20 machines and 2,000 trials a search is at least 0.8 x as fast as a bare `tune.Tuner`, logging included.

One cluster of 20 Ray nodes with one simulated CPU each, all processes of this machine. On it, in turns: a search of the
toy task (ASHA, TPE, checkpoints, journal, MLflow) through the real command, and benchmarks/bare_tuner.py with the same
training, the same sampler and no logging. `--docs benchmarks` draws the plot of benchmarks/scale.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil

CLAIM = 0.8
NODES, TRIALS, EPOCHS = 20, 2000, 9
ROOT = Path(__file__).parent.parent
#: Seconds between two looks at a driver.
EVERY = 1.0


@dataclass
class Watched:
    """A driver's life: at each `seconds` since its first trial ended, how many had ended and what it took."""

    seconds: list[float] = field(default_factory=list)
    trials: list[int] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    #: Of one core, since the look before.
    cpu: list[float] = field(default_factory=list)
    #: Events that MLflow has yet to be told.
    behind: list[int] = field(default_factory=list)
    epochs: int = 0
    #: What its exit took after the last trial: MLflow catching up, workers ending.
    exit_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Trials a second, from the first that ended to the last: without what Ray and the workers take to start."""
        return (self.trials[-1] - self.trials[0]) / (self.seconds[-1] - self.seconds[0])


def watch(command: list[str], env: dict[str, str], look: Callable[[], tuple[int, int]]) -> Watched:
    """Runs a driver; `look` gives trials that ended and events behind."""
    watched, last = Watched(), (0.0, 0.0)
    driver = psutil.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    ended = 0.0
    while driver.poll() is None:
        time.sleep(EVERY)
        trials, behind = look()
        if not trials or driver.status() == psutil.STATUS_ZOMBIE:
            continue
        now, used = time.monotonic(), sum(driver.cpu_times()[:2])
        if trials < TRIALS or not ended:
            watched.seconds.append(now)
            watched.trials.append(trials)
            watched.rss_mib.append(driver.memory_info().rss / 2**20)
            watched.cpu.append((used - last[1]) / (now - last[0]))
            watched.behind.append(behind)
            ended = now if trials >= TRIALS else 0.0
        last = (now, used)
    if driver.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {driver.returncode}")
    watched.exit_seconds = time.monotonic() - ended
    watched.seconds = [second - watched.seconds[0] for second in watched.seconds]
    return watched


class Journal:
    """What of a search has been written since the last look."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.read = folder, 0
        self.events = self.over = self.epochs = 0

    def look(self) -> tuple[int, int]:
        path = self.folder / "journal.jsonl"
        if path.exists():
            with path.open("rb") as file:
                file.seek(self.read)
                lines = file.read().rpartition(b"\n")[0]
            self.read += len(lines) + 1 if lines else 0
            for event in map(json.loads, lines.splitlines()):
                self.events += 1
                self.epochs += event["event"] == "result"
                self.over += event["event"] == "result" and event["outcome"] is not None
        return self.over, self.events - self.delivered()

    def delivered(self) -> int:
        """The events that MLflow has, by its own count."""
        database = self.folder.parents[1] / "mlflow.db"
        try:
            with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=60)) as opened:
                row = opened.execute("SELECT value FROM tags WHERE key = 'search.delivered'").fetchone()
        except sqlite3.OperationalError:  # it is not made yet
            return 0
        return int(row[0]) if row else 0


def search(address: str, env: dict[str, str]) -> Watched:
    with tempfile.TemporaryDirectory() as store:
        journal = Journal(Path(store) / "searches" / "s")
        watched = watch(
            [sys.executable, "-m", "search", "run", "toy", "--address", address, "--name", "s", "--no-retrain",
             "--searcher", "tpe", "--scheduler", "asha", "--trials", str(TRIALS), "--epochs", str(EPOCHS),
             "--concurrency", str(NODES), "--set", "lr={loguniform: [0.001, 0.2]}", "--set", "index={value: 1}"],
            env | {"SEARCH_STORE": store}, journal.look,
        )  # fmt: skip
        watched.epochs = journal.epochs
    return watched


def bare(address: str, env: dict[str, str]) -> Watched:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.touch()
        watched = watch(
            [sys.executable, "-m", "benchmarks.bare_tuner", address, str(TRIALS), str(EPOCHS), str(NODES), str(path)],
            env, lambda: (len(path.read_text().splitlines()), 0),
        )  # fmt: skip
        watched.epochs = sum(map(int, path.read_text().split()))
    return watched


def row(name: str, runs: list[Watched]) -> str:
    def of(value: Callable[[Watched], Any]) -> Any:
        return median(map(value, runs))

    return (
        f"| {name} | {of(lambda w: w.rate):.1f} | {of(lambda w: w.epochs / w.seconds[-1]):.1f} "
        f"| {of(lambda w: w.rss_mib[0]):.0f} -> {of(lambda w: w.rss_mib[-1]):.0f} | {of(lambda w: median(w.cpu)):.0%} "
        f"| {of(lambda w: max(w.behind))} | {of(lambda w: w.exit_seconds):.1f} |"
    )


def plot(ours: Watched, theirs: Watched, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    rate, memory = figure.subplots(1, 2)
    for name, one in (("search", ours), ("bare tune.Tuner", theirs)):
        window = 15  # looks
        ends = range(window, len(one.trials))
        passed = [(one.trials[i] - one.trials[i - window]) / (one.seconds[i] - one.seconds[i - window]) for i in ends]
        rate.plot([one.trials[i] for i in ends], passed, label=name)
        memory.plot(one.trials, one.rss_mib, label=name)
    rate.set(xlabel="trials", ylabel=f"trials a second, over {window * EVERY:.0f} s", ylim=(0, None))
    memory.set(xlabel="trials", ylabel="driver's memory, MiB", ylim=(0, None))
    rate.legend()
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1, help="how often both are run")
    parser.add_argument("--docs", type=Path, help="folder for scale.png")
    options = parser.parse_args()
    # Ray reads its token as it is imported.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_ADDRESS": ""}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "toy")])
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    runs: dict[Callable[..., Watched], list[Watched]] = {search: [], bare: []}
    try:
        for _ in range(NODES - 1):
            cluster.add_node(**small)
        for pair in range(options.pairs):
            for one in (search, bare) if pair % 2 == 0 else (bare, search):
                runs[one].append(one(cluster.address, dict(os.environ)))
                print(f"pair {pair}: {one.__name__}: {runs[one][-1].rate:.2f} trials a second", flush=True)
    finally:
        cluster.shutdown()
    print("| | trials/s | epochs/s | driver's MiB | of a core | events MLflow was behind, most | exit, s |")
    print("|---|---|---|---|---|---|---|")
    print(row("search", runs[search]))
    print(row("bare", runs[bare]))
    ratio = median(ours.rate / theirs.rate for ours, theirs in zip(runs[search], runs[bare], strict=True))
    print(f"median ratio of {options.pairs}: {ratio:.2f} x, claimed {CLAIM:g} x")
    if options.docs:
        plot(runs[search][-1], runs[bare][-1], options.docs / "scale.png")
    return 0 if ratio >= CLAIM else 1


if __name__ == "__main__":
    sys.exit(main())
