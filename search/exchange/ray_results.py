"""Reads an experiment folder of Ray Tune as a search. Its files are JSON; Ray itself is not needed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from search.exchange.imported import Imported, ImportedTrial
from trainables import InputError
from trainables.base.files import broken
from trainables.base.tables import listed


def read_experiment(folder: Path, metric: str, mode: str) -> Imported:
    """Reads an experiment folder. The folder of each trial has `params.json` and `result.json`.

    The files do not contain the space: numbers become the range of their values, other values a choice. (Ray keeps the
    space in `tuner.pkl`. That is a pickle, which may run any code, so it is not read.) A trial with fewer iterations
    than the longest trial counts as stopped early. Lines that a killed run left torn, and lines without a number for
    the metric, are left out; a note says so.

    Args:
        metric: a metric that the trials reported; a nested metric has a slash, as Ray prints it.

    Raises:
        InputError: the folder is no experiment folder, or no trial reported a number for the metric.
    """
    places = sorted(path.parent for path in folder.glob("*/params.json"))
    if not places:
        raise InputError(f"{folder}: no folders with a params.json in it, which each trial of Ray Tune has")
    read, unread, over = dict[Path, _Trial](), list[InputError](), list[str]()
    for place in places:
        try:
            read[place] = _read(place, metric)
        except InputError as error:
            unread.append(error)
        else:
            over += read[place].over
    if not read:
        raise unread[0]
    if not any(trial.curve for trial in read.values()):
        reported = {name for trial in read.values() for name in trial.reported}
        there = ", ".join(sorted(name for name in reported if not name.startswith("config/"))) or "none"
        said = f"a number for {metric!r}" if metric in reported else f"{metric!r}"
        raise InputError(f"{folder}: no trial reported {said}; there are {there}")
    longest = max(max(trial.curve, default=0) for trial in read.values())
    trials = []
    for place, trial in read.items():
        failed = (place / "error.txt").exists() or not trial.curve
        ended: Literal["completed", "stopped_early"]
        ended = "completed" if max(trial.curve, default=0) == longest else "stopped_early"
        trials.append(ImportedTrial(trial.params, trial.curve, "failed" if failed else ended))
    given = [trial.params for trial in trials]
    names = {name: [p[name] for p in given if name in p] for name in {n: None for p in given for n in p}}
    space = {name: _spec(values) for name, values in names.items()}
    notes = ["an experiment folder does not hold its space: these are the ranges that its values span"]
    if logarithmic := [name for name, spec in space.items() if isinstance(spec, dict) and "loguniform" in spec]:
        notes.append(f"taken for logarithmic, as their values are spread so: {listed(logarithmic)}")
    if over:
        notes.append(f"{len(over)} lines of results are passed over: {over[0]}" + (", ..." if over[1:] else ""))
    if unread:
        notes.append(f"{len(unread)} trials are left out: {unread[0]}")
    return Imported(str(folder), folder.resolve().name, metric, mode, space, trials, notes)


@dataclass(frozen=True)
class _Trial:
    """A trial: hyperparameters without nesting, metrics by iteration, the names of all reported metrics, and a phrase
    for each line that is left out."""

    params: dict[str, Any]
    curve: dict[int, dict[str, float]]
    reported: set[str]
    over: list[str]


def _read(place: Path, metric: str) -> _Trial:
    """Reads the folder of a trial; raises InputError where its hyperparameters cannot be read."""
    with broken(place, "cannot be read"):
        params = dict(_flat(_object((place / "params.json").read_bytes()), "."))
        for name, value in params.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"its {name} is {value}")
        told = place / "result.json"
        lines = told.read_bytes().split(b"\n") if told.is_file() else []
    trial = _Trial(params, {}, set(), [])
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{told} line {number}"
        try:
            result = dict(_flat(_object(line), "/"))
        except (ValueError, RecursionError):
            trial.over.append(f"{where} is no JSON object")
            continue
        trial.reported.update(result)
        iteration = result.get("training_iteration")
        if not isinstance(iteration, int) or isinstance(iteration, bool) or iteration < 1:
            trial.over.append(f"{where} has no training_iteration")
        elif not _is_number(result.get(metric)):
            trial.over.append(f"{where} has no number for {metric}")
        else:
            trial.curve[iteration] = _metrics(result, metric)
    return trial


def _object(content: bytes) -> dict[str, Any]:
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _flat(nested: Mapping[str, Any], between: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, between, f"{prefix}{key}{between}")
        else:
            plain = value is None or isinstance(value, str | int | float | bool)
            yield f"{prefix}{key}", value if plain else json.dumps(value)


def _metrics(result: Mapping[str, Any], metric: str) -> dict[str, float]:
    """The metrics of a result: its numbers without Ray's bookkeeping and without the configuration."""
    own = ("config/", "time", "done", "pid", "training_iteration", "iterations_since", "should_checkpoint")
    kept = {k: float(v) for k, v in result.items() if _is_number(v) and not k.startswith(own)}
    seconds: Any = result.get("time_this_iter_s")
    return {**kept, metric: float(result[metric]), "epoch_seconds": float(seconds) if _is_number(seconds) else 0.0}


def _spec(values: list[Any]) -> Any:
    numbers = all(map(_is_number, values))
    different = list(dict.fromkeys(values))
    if len(different) == 1:
        return different[0]
    if not numbers:
        return {"choice": different}
    low, high = min(values), max(values)
    if all(isinstance(value, int) for value in values):
        return {"int": [low, high]}
    return {"loguniform" if _looks_logarithmic(values) else "uniform": [float(low), float(high)]}


def _looks_logarithmic(values: Sequence[float]) -> bool:
    """Whether the values are more likely log-uniform than uniform, by their likelihood ratio.

    Between the smallest value a and the largest b, x has the density 1 / (x ln(b / a)) or 1 / (b - a). The values a and
    b themselves are not counted, so two values count as uniform. Measured on sets of 20 drawn values over a factor of
    100: 1 in 90 log-uniform sets and 1 in 22 uniform sets were judged wrongly; over a factor of 10, 1 in 8 of both.
    """
    low, *inner, high = sorted(values)
    if low <= 0 or low == high:
        return False
    ratio = math.log((high - low) / math.log(high / low))
    return sum(ratio - math.log(value) for value in inner) > 0
