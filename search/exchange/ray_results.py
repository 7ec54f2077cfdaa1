"""Experiment folders of Ray Tune, read as a search. Their files are JSON; Ray is not needed for it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from search.exchange.imported import Imported, ImportedTrial
from trainables import InputError

#: Values that span so many times are taken to have been drawn on a logarithmic scale.
WIDE = 50.0


def read_experiment(folder: Path, metric: str, mode: str) -> Imported:
    """Reads an experiment folder, of which each trial's folder has `params.json` and `result.json`.

    The folder does not say how the space was: it becomes the ranges that the values span, a choice where they are no
    numbers. A trial that has fewer iterations than the longest was stopped early.

    Args:
        metric: a metric that the trials reported; nested ones with a slash, as Ray prints them.

    Raises:
        InputError: it is no such folder, or no trial reported the metric.
    """
    places = sorted(path.parent for path in folder.glob("*/params.json"))
    if not places:
        raise InputError(f"{folder}: no folders with a params.json in it, which each trial of Ray Tune has")
    read = [_read(place) for place in places]
    reported = {name for _, results in read for result in results for name in result}
    if metric not in reported:
        there = ", ".join(sorted(name for name in reported if not name.startswith("config/"))) or "none"
        raise InputError(f"{folder}: no trial reported {metric!r}; there are {there}")
    curves = [
        {int(r["training_iteration"]): _metrics(r, metric) for r in results if math.isfinite(r.get(metric, math.nan))}
        for _, results in read
    ]
    longest = max(max(curve, default=0) for curve in curves)
    trials = []
    for place, (params, _), curve in zip(places, read, curves, strict=True):
        failed = (place / "error.txt").exists() or not curve
        last = max(curve, default=0)
        trials.append(ImportedTrial(params, curve, "failed" if failed else "completed" if last == longest
                                    else "stopped_early"))  # fmt: skip
    names = {name: [p[name] for p, _ in read if name in p] for name in {n: None for p, _ in read for n in p}}
    space = {name: _spec(values) for name, values in names.items()}
    note = "an experiment folder does not hold its space: these are the ranges that its values span"
    return Imported(str(folder), folder.resolve().name, metric, mode, space, trials, [note])


def _read(place: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A trial's hyperparameters and what it reported, both without nesting."""
    try:
        params = json.loads((place / "params.json").read_text())
        told = place / "result.json"
        lines = told.read_text().splitlines() if told.exists() else []
        return dict(_flat(params, ".")), [dict(_flat(json.loads(line), "/")) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"{place}: cannot be read ({error})") from error


def _flat(nested: Mapping[str, Any], between: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, between, f"{prefix}{key}{between}")
        else:
            plain = value is None or isinstance(value, str | int | float | bool)
            yield f"{prefix}{key}", value if plain else json.dumps(value)


def _metrics(result: Mapping[str, Any], metric: str) -> dict[str, float]:
    """The numbers of a result that are metrics: neither Ray's own bookkeeping nor the configuration."""
    own = ("config/", "time", "done", "pid", "training_iteration", "iterations_since", "should_checkpoint")
    numbers = {k: v for k, v in result.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    kept = {name: float(value) for name, value in numbers.items() if not name.startswith(own)}
    return {**kept, metric: float(result[metric]), "epoch_seconds": float(result.get("time_this_iter_s", 0.0))}


def _spec(values: list[Any]) -> Any:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    different = list(dict.fromkeys(values))
    if len(different) == 1:
        return different[0]
    if not numbers:
        return {"choice": different}
    low, high = min(values), max(values)
    if all(isinstance(value, int) for value in values):
        return {"int": [low, high]}
    return {"loguniform" if low > 0 and high / low >= WIDE else "uniform": [float(low), float(high)]}
