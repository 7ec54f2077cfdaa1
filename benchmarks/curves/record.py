"""Records what random configurations of this project's own tasks show on real data, for `own` tables.

`python -m benchmarks.curves.record TASK --count N` trains configurations 0 to N - 1, drawn uniformly from the task's
space for people's own data, for as many epochs as the other tables have, and every fifth of them with a second seed.
Those that are there already are left out, so that it can be run in parts; the machine may do other things meanwhile, as
no time is recorded. Processes share a GPU where there is one. A training whose first epoch takes longer than `--slow`
seconds is left out, as a search with an hour's budget would not try it either.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.curves.tables import EPOCHS, OWN
from benchmarks.hour import TASKS, epochs, prepared
from search.core.config import load_config
from search.core.searchers.priors import draw_uniform

#: One in so many configurations is trained with a second seed, which says how noisy readings are.
TWICE = 5


@cache
def _prepared(name: str, cache_folder: str) -> tuple[Any, Any, Any]:
    torch.set_num_threads(1)
    return prepared(name, Path(cache_folder))


def trained(asked: tuple[str, int, int, float, float, str]) -> dict[str, Any]:
    """The losses of one configuration after each epoch, null where it diverged; none where it is too slow."""
    name, number, seed, slow, gpus, folder = asked
    task, config, splits = _prepared(name, folder)
    rng = np.random.default_rng([2026, number])
    params = config.space.sample(lambda parameter: draw_uniform(parameter, rng))
    losses: list[float | None] = []
    begun = time.monotonic()
    for value in epochs(task, splits, params, EPOCHS, 1000 * seed + number, config.resources.precision, gpus):
        loss = task.objective.loss(value)
        losses.append(float(f"{loss:.6g}") if abs(loss) < 1e8 else None)
        if len(losses) == 1 and time.monotonic() - begun > slow:
            return {"number": number, "seed": seed, "params": params, "losses": []}
    losses += [None] * (EPOCHS - len(losses))
    return {"number": number, "seed": seed, "params": params, "losses": losses}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves.record", description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--slow", type=float, default=30.0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if not TASKS[options.task].exists():
        print(f"{options.task}: skipped, as there is no {TASKS[options.task]}")
        return 1
    OWN.mkdir(exist_ok=True)
    path = OWN / f"{options.task}.jsonl"
    if not path.exists():
        space = load_config(options.task, profile="data").raw["space"]
        path.write_text(json.dumps({"space": space, "data": TASKS[options.task].name}) + "\n")
    done = {(line["number"], line["seed"]) for line in map(json.loads, path.read_text().splitlines()[1:])}
    wanted = [
        (number, seed) for number in range(options.count) for seed in ((0, 1) if number % TWICE == 0 else (0,))
        if (number, seed) not in done
    ]  # fmt: skip
    gpus = 1 / options.processes if torch.cuda.is_available() else 0.0
    start = get_context("spawn" if gpus else "fork")  # CUDA knows no fork
    with tempfile.TemporaryDirectory() as folder, start.Pool(options.processes) as pool, path.open("a") as file:
        asked = [(options.task, number, seed, options.slow, gpus, folder) for number, seed in wanted]
        for count, found in enumerate(pool.imap_unordered(trained, asked), 1):
            file.write(json.dumps(found) + "\n")
            file.flush()
            print(f"{options.task}: {count} of {len(wanted)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
