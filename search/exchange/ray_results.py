"""Reads an experiment folder of Ray Tune as a search. Its files are JSON; Ray itself is not needed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from search.exchange.imported import Imported, ImportedTrial
from trainables import InputError
from trainables.base.files import broken
from trainables.base.tables import listed


def read_experiment(folder: Path, metric: str, mode: str) -> Imported:
    """Reads an experiment folder. The folder of each trial has `params.json` and `result.json`.

    The JSON files do not contain the space: numbers become the range of their values, other values a choice. Ray keeps
    the space in `tuner.pkl`, a pickle, which is not read because it may run any code. A trial with fewer iterations
    than the longest trial counts as stopped early. Lines that a kill cut off, and lines without a number for the
    metric, are left out; a note counts them.

    Args:
        metric: a metric that the trials reported; a nested metric has a slash, as Ray prints it.

    Raises:
        InputError: the folder is no experiment folder, or no trial reported a number for the metric.
    """
    folders = sorted(path.parent for path in folder.glob("*/params.json"))
    if not folders:
        raise InputError(f"{folder}: no folders with a params.json in it, which each trial of Ray Tune has")
    read, unreadable = list[_Trial](), list[InputError]()
    for trial_folder in folders:
        try:
            read.append(_read(trial_folder, metric))
        except InputError as error:
            unreadable.append(error)
    if not read:
        raise unreadable[0]
    if not any(trial.curve for trial in read):
        reported = {name for trial in read for name in trial.reported}
        names = ", ".join(sorted(name for name in reported if not name.startswith("config/"))) or "none"
        missing = f"a number for {metric!r}" if metric in reported else f"{metric!r}"
        raise InputError(f"{folder}: no trial reported {missing}; there are {names}")
    longest = max(trial.epochs for trial in read)
    trials = [ImportedTrial(trial.params, trial.curve, trial.outcome(longest)) for trial in read]
    values: dict[str, list[Any]] = {}
    for trial in read:
        for name, value in trial.params.items():
            values.setdefault(name, []).append(value)
    space = {name: _spec(of_trials) for name, of_trials in values.items()}
    notes = ["an experiment folder does not hold its space: these are the ranges that its values span"]
    if logarithmic := [name for name, spec in space.items() if isinstance(spec, dict) and "loguniform" in spec]:
        notes.append(f"read as logarithmic, because their values look log-uniform: {listed(logarithmic)}")
    if skipped := [line for trial in read for line in trial.skipped]:
        more = ", ..." if skipped[1:] else ""
        notes.append(f"{len(skipped)} lines of results are passed over: {skipped[0]}{more}")
    if unreadable:
        notes.append(f"{len(unreadable)} trials are left out: {unreadable[0]}")
    return Imported(str(folder), folder.resolve().name, metric, mode, space, trials, notes)


@dataclass(frozen=True)
class _Trial:
    """A trial as its folder has it.

    Attributes:
        params: its hyperparameters. A nested hyperparameter has a name with dots.
        failed: whether the folder has Ray's file of an error.
        curve: the metrics by iteration.
        reported: the names of all reported metrics.
        skipped: a phrase for each line that is left out.
    """

    params: dict[str, Any]
    failed: bool
    curve: dict[int, dict[str, float]] = field(default_factory=dict)
    reported: set[str] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """The number of iterations."""
        return max(self.curve, default=0)

    def outcome(self, longest: int) -> Literal["completed", "stopped_early", "failed"]:
        """The outcome; `longest`: the iterations of the longest trial."""
        if self.failed or not self.curve:
            return "failed"
        return "completed" if self.epochs == longest else "stopped_early"


def _read(folder: Path, metric: str) -> _Trial:
    """Reads the folder of a trial; raises InputError if its hyperparameters cannot be read."""
    with broken(folder, "cannot be read"):
        params = dict(_flat(_object((folder / "params.json").read_bytes()), "."))
        for name, value in params.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"its {name} is {value}")
        results = folder / "result.json"
        lines = results.read_bytes().split(b"\n") if results.is_file() else []
    trial = _Trial(params, (folder / "error.txt").exists())
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{results} line {number}"
        try:
            result = dict(_flat(_object(line), "/"))
        except (ValueError, RecursionError):
            trial.skipped.append(f"{where} is no JSON object")
            continue
        trial.reported.update(result)
        iteration = result.get("training_iteration")
        if not isinstance(iteration, int) or isinstance(iteration, bool) or iteration < 1:
            trial.skipped.append(f"{where} has no training_iteration")
        elif not _is_number(result.get(metric)):
            trial.skipped.append(f"{where} has no number for {metric}")
        else:
            trial.curve[iteration] = _metrics(result, metric)
    return trial


def _object(content: bytes) -> dict[str, Any]:
    """The JSON object; raises ValueError if the content is something else."""
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _flat(nested: Mapping[str, Any], separator: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of nested mappings, such as `("model.width", 8)`. A list becomes JSON text."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, separator, f"{prefix}{key}{separator}")
        else:
            plain = value is None or isinstance(value, str | int | float | bool)
            yield f"{prefix}{key}", value if plain else json.dumps(value)


def _metrics(result: Mapping[str, Any], metric: str) -> dict[str, float]:
    """The metrics of a result: its numbers without Ray's bookkeeping and without the configuration."""
    own = ("config/", "time", "done", "pid", "training_iteration", "iterations_since", "should_checkpoint")
    numbers = {k: float(v) for k, v in result.items() if _is_number(v) and not k.startswith(own)}
    seconds: Any = result.get("time_this_iter_s")
    return {**numbers, metric: float(result[metric]), "epoch_seconds": float(seconds) if _is_number(seconds) else 0.0}


def _spec(values: list[Any]) -> Any:
    """The spec of a hyperparameter with these values; a single value is fixed."""
    different = list(dict.fromkeys(values))
    if len(different) == 1:
        return different[0]
    if not all(map(_is_number, values)):
        return {"choice": different}
    low, high = min(values), max(values)
    if all(isinstance(value, int) for value in values):
        return {"int": [low, high], **({"log": True} if low > 0 and _looks_logarithmic(values) else {})}
    return {"loguniform" if _looks_logarithmic(values) else "uniform": [float(low), float(high)]}


def _looks_logarithmic(values: Sequence[float]) -> bool:
    """Whether the values are more likely log-uniform than uniform, by their likelihood ratio.

    Let a be the smallest value and b the largest. A value x between them has the density 1 / (x ln(b / a)) if it is
    log-uniform, and 1 / (b - a) if it is uniform. a and b are not counted, so two values count as uniform.

    Error rates, measured on sets of 20 drawn values. b / a = 100: 1 in 90 log-uniform sets and 1 in 22 uniform sets.
    b / a = 10: 1 in 8 sets of both kinds.
    """
    low, *inner, high = sorted(values)
    if low <= 0 or low == high:
        return False
    ratio = math.log((high - low) / math.log(high / low))
    return sum(ratio - math.log(value) for value in inner) > 0
