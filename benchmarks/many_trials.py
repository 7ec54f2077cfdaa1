"""`compare` and `report` on a store of 5,000 trials: `python -m benchmarks.many_trials [--trials N]`.

The store is a real one, of one small search, whose trials are copied under new numbers: in its database, and in the
search's journal with figures and hyperparameters that are changed a little, so that no two are equal.
"""

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALL = ("--trials", "8", "--epochs", "4", "--no-retrain", "--set", "data.demo.train=100", "--set", "data.demo.test=30")


def command(store: Path, *arguments: str) -> float:
    """Seconds of a whole command."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "search", *arguments], check=True, stdout=subprocess.DEVNULL,
        env={**os.environ, "SEARCH_STORE": str(store)},
    )  # fmt: skip
    return time.perf_counter() - begun


def multiply(database: Path, trials: int) -> None:
    """Copies trials until there are so many, with all their tags, parameters and metrics."""
    with sqlite3.connect(database) as db:
        known = [row[0] for row in db.execute("SELECT run_uuid FROM tags WHERE key = 'role' AND value = 'trial'")]
        tables = {
            name: [column[1] for column in db.execute(f"PRAGMA table_info({name})")]
            for name in ("runs", "tags", "params", "metrics", "latest_metrics")
        }
        for number in range(len(known), trials):
            for name, columns in tables.items():
                values = ", ".join(f"'{number:032x}'" if c == "run_uuid" else c for c in columns)
                source = known[number % len(known)]
                db.execute(f"INSERT INTO {name} SELECT {values} FROM {name} WHERE run_uuid = ?", [source])  # noqa: S608
            db.execute(
                "UPDATE tags SET value = ? WHERE key = 'trial' AND run_uuid = ?", [str(number), f"{number:032x}"]
            )
    db.close()


def multiply_journal(journal: Path, trials: int) -> None:
    """The same of what a report is made from."""
    rng = random.Random(0)  # noqa: S311 - nothing secret
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    known = max(e["number"] for e in events if e["event"] == "trial") + 1
    copies = []
    for number in range(known, trials):
        change = rng.lognormvariate(0, 0.2)
        for event in events:
            if event.get("number") != number % known or event["event"] not in ("trial", "result"):
                continue
            copy = json.loads(json.dumps(event)) | {"number": number}
            if copy["event"] == "trial":
                copy["params"]["lr"] = min(0.01, max(0.001, copy["params"]["lr"] * change))
            else:
                copy["metrics"] = {key: value * change for key, value in copy["metrics"].items()}
            copies.append(copy)
    at = next(i for i, event in enumerate(events) if event["event"] == "ended")
    journal.write_text("".join(json.dumps(event) + "\n" for event in [*events[:at], *copies, *events[at:]]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        command(store, "run", "rnn", "--name", "s", *SMALL)
        multiply(store / "mlflow.db", options.trials)
        multiply_journal(store / "searches" / "s" / "journal.jsonl", options.trials)
        for name in ("--help", "compare rnn", "report s"):
            seconds = sorted(command(store, *name.split()) for _ in range(options.repeats))
            print(f"{name}: median {seconds[len(seconds) // 2]:.2f} s of {options.repeats} ({options.trials} trials)")


if __name__ == "__main__":
    main()
