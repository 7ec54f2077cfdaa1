"""Claim: with no flag but a time budget, the command is ahead of simple methods on people's own pictures and texts.

The methods are the baselines of the run (logistic regression on frozen features, or on TF-IDF), and one fine-tuning of
the whole packaged network by a fixed recipe, on train and validation together:

- pictures: 160 pixels, eight epochs, AdamW 4e-4 (the head five times as much), warm-up and cosine, batches of 32,
  augmentation, label smoothing 0.1
- texts: three epochs, AdamW 1e-4, warm-up and decay, batches of 32, no TF-IDF; balanced class weights for `lyrics`

`python -m benchmarks.recipes TASK DATA` appends a row for each seed to benchmarks/recipes.jsonl. The interval is of the
difference to the fine-tuning, over 2,000 bootstrap samples of the test set. Exits with 1 if a method is ahead of the
command in the median of the seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.hour import prior, run_command
from search.core.config import load_config
from search.final.finalist_comparison import resample
from trainables import choose_device, get_task, seed_everything
from trainables.base import training
from trainables.windows.backbones import Packaged

RESULTS = Path(__file__).parent / "recipes.jsonl"
RESAMPLED = 2000
PICTURES = {
    "epochs": 9, "model.unfreeze": "all", "lr": 4e-4, "lr_decay": 1.0, "head_lr": 3e-3, "weight_decay": 0.05,
    "dropout": 0.2, "batch_size": 32, "augment": 0.5, "mix": 0.0, "label_smoothing": 0.1, "class_weights": "none",
}  # fmt: skip
TEXTS = {
    "epochs": 3, "model.unfreeze": "all", "model.tfidf": False, "model.characters": None, "tfidf_lr": None, "lr": 1e-4,
    "encoder_lr": 1e-4, "encoder_lr_decay": 1.0, "dropout": 0.1, "weight_decay": 0.01, "batch_size": 32,
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {
    "windows": PICTURES, "tweets": {**TEXTS, "weighting": "none"}, "lyrics": {**TEXTS, "weighting": "balanced"},
}  # fmt: skip


def command(task: str, data: str, budget: str, seed: int, store: Path) -> dict[str, Any]:
    """The real command: its test figure, its baselines, its seconds, and the units of its test figure."""
    events, seconds = run_command(task, data, seed, budget, store)
    folder, metric = store / "searches" / "s", get_task(task).objective.metric
    begun = next(e for e in events if e["event"] == "final_started")
    final = next(e for e in events if e["event"] == "final_finished")
    return {
        "seconds": seconds, "test": final["test"][metric], "epochs": begun["epochs"], "merged": begun["merged"],
        "params": begun["params"], "trials": sum(e["event"] == "trial" for e in events),
        "baselines": final["baselines"], "units": np.load(folder / begun["folder"] / "units.npy"),
    }  # fmt: skip


def recipe(task: str, data: str, seed: int, cache: Path) -> dict[str, Any]:
    """The fine-tuning by the fixed recipe, with all cores: its test figure and the units of it."""
    # The depthwise kernels of the packaged network train too, on pictures that are augmented anew in each epoch.
    with mock.patch.object(Packaged, "fixed", lambda _: []), mock.patch.object(Packaged, "in_parts", new=False):
        own, config = get_task(task), load_config(task, profile="data")
        began, params = time.monotonic(), {**config.space.sample(prior), **RECIPES[task]}
        epochs = params.pop("epochs")
        splits = own.prepare(config.data, Path(data), cache, lambda *_: None)
        device = choose_device(os.cpu_count() or 1, 0, config.resources.precision)
        choices = {name: (value,) for name, value in params.items()}
        splits = own.precompute(splits, choices, device, cache, lambda *_: None)
        merged = own.merge(splits)
        seed_everything(seed)
        learner = own.build(params, replace(splits, train=merged, val=None), epochs, device)
        for _ in range(epochs):
            training.run_epoch(own, learner, merged, None)
        training.finish(own, learner, merged)
    test = own.evaluate(learner, splits.test)[own.objective.metric]
    return {"test": test, "seconds": time.monotonic() - began, "units": own.units(learner, splits.test)}


def interval(task: str, ours: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of our figure minus the other, over resampled test samples."""
    own, others = resample([ours, other], get_task(task).objective_of, RESAMPLED)
    low, high = np.quantile(own - others, [0.025, 0.975])
    return float(low), float(high)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=RECIPES)
    parser.add_argument("data")
    parser.add_argument("--time-budget", default="10m")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    name = Path(options.data).stem
    rows = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            found = command(options.task, options.data, options.time_budget, seed, Path(folder))
            other = recipe(options.task, options.data, seed, Path(folder) / "cache")
        low, high = interval(options.task, found.pop("units"), other.pop("units"))
        row = {
            "data": name, "task": options.task, "budget": options.time_budget, "seed": seed,
            "when": time.strftime("%Y-%m-%d"), **found, "recipe": other["test"], "recipe_seconds": other["seconds"],
            "low": low, "high": high,
        }  # fmt: skip
        rows.append(row)
        with RESULTS.open("a") as file:
            print(json.dumps(row), file=file)
        others = ", ".join(f"{key} {value:.4f}" for key, value in found["baselines"].items())
        print(
            f"{name}, seed {seed}: {found['test']:.4f} after {found['seconds']:.0f} s; {others}; fine-tuning "
            f"{other['test']:.4f} after {other['seconds']:.0f} s, difference {low:+.4f} to {high:+.4f}", flush=True,
        )  # fmt: skip
    ours = median(row["test"] for row in rows)
    best = median(max(row["recipe"], *row["baselines"].values()) for row in rows)
    print(f"{name}: median {ours:.4f}; the best simple method {best:.4f}")
    return int(ours <= best)


if __name__ == "__main__":
    sys.exit(main())
