"""The configuration of a search: defaults, the task's YAML, `--set` and flags, merged and checked before a start."""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from search.settings import Resources, SearchSection, Section
from search.space import Plain, Space, is_spec, parse_space
from trainables import offered_config
from trainables.task import InputError, Objective

SECTIONS = ("search", "resources", "data", "space")


S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class SearchConfig:
    """A checked configuration. `raw` is the whole of it as plain data, from which it can be made again."""

    task: str
    search: SearchSection
    resources: Resources
    data: dict[str, Any]
    space: Space
    place: str
    raw: dict[str, Any]

    @property
    def balanced(self) -> tuple[Plain, ...]:
        """The values that take turns over the trials' numbers; a single one where nothing is balanced."""
        parameter = next((p for p in self.space.parameters if p.name == self.search.balance), None)
        return parameter.choices if parameter else (None,)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Where there are several: the task's own first, which early stopping and the final training go by."""
        return tuple(parse_objective(text, f"{self.place}: search.objective") for text in self.search.objective or ())

    @property
    def digest(self) -> str:
        return digest(self.raw)


def configs_folder() -> Path:
    """The packaged YAML files, or the checkout's."""
    packaged = Path(__file__).parent / "configs"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "configs"


def load_config(task: str, sets: Iterable[str] = (), flags: Mapping[str, Any] | None = None) -> SearchConfig:
    """`defaults.yaml` with the task's YAML, `--set KEY=VALUE` and flags laid over it, in this order.

    Args:
        sets: `KEY=VALUE`; a key outside the sections `search`, `resources` and `data` names a hyperparameter,
            `lr=0.01` being short for `space.lr=0.01`. A value is YAML.
        flags: dotted keys with values; None leaves a key as it is.

    Raises:
        InputError: naming the file or flag, the key, the value and what is allowed.
    """
    path = offered_config(task) or configs_folder() / f"{task}.yaml"
    place = f"{path.parent.name}/{path.name}"
    try:
        tree = OmegaConf.merge(OmegaConf.load(configs_folder() / "defaults.yaml"), OmegaConf.load(path))
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"{place}: cannot be read: {_first_line(error)}") from error
    raw: dict[str, Any] = OmegaConf.to_container(tree, resolve=True)
    # What stands in the file has a chance to hold; what `--set` narrows may leave a condition without any.
    if isinstance(raw.get("space"), dict):
        parse_space(raw["space"], place)
    return check_config(task, change(raw, sets, flags), place + " with --set" if sets else place)


def change(raw: dict[str, Any], sets: Iterable[str] = (), flags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A copy of plain data as `load_config` makes it, with `--set` and flags laid over it; raises InputError."""
    raw = copy.deepcopy(raw)
    for text in sets:
        parts, value = _parse_set(text)
        _put(raw, parts, value, f"--set {text}")
    for key, value in (flags or {}).items():
        if value is not None:
            _put(raw, key.split("."), value, f"--{key.split('.')[-1].replace('_', '-')} {value}")
    return raw


def check_config(task: str, raw: dict[str, Any], place: str) -> SearchConfig:
    """Validates plain data as `load_config` makes it.

    Raises:
        InputError: as `load_config`.
    """
    unknown = [key for key in raw if key not in SECTIONS]
    if unknown:
        raise InputError(f"{place}: {unknown[0]}: unknown section; allowed are {', '.join(SECTIONS)}")
    for section in SECTIONS:
        if not isinstance(raw.get(section), dict):
            raise InputError(f"{place}: {section}: {raw.get(section)!r}: expected a mapping")
    search = _validate(SearchSection, raw["search"], f"{place}: search")
    if search.grace_period > search.epochs and search.scheduler != "none":
        raise InputError(
            f"{place}: search.grace_period: {search.grace_period}: must be <= search.epochs ({search.epochs})"
        )
    config = SearchConfig(
        task=task,
        search=search,
        resources=_validate(Resources, raw["resources"], f"{place}: resources"),
        data=raw["data"],
        space=parse_space(raw["space"], place, narrowed=True),
        place=place,
        raw=raw,
    )
    if search.deterministic and search.scheduler == "asha-promote":
        raise InputError(f"{place}: search.scheduler: asha-promote: has no rounds; with --deterministic: asha")
    if config.resources.autoscaled and search.concurrency is None:
        raise InputError(f"{place}: resources.autoscaled: true: search.concurrency must say how many trials at once")
    _check_balance(search.balance, config.space, f"{place}: search.balance")
    _check_objectives(config)
    if search.searcher == "grid":
        config.space.grid(place)
    elif search.trials is None:
        raise InputError(f"{place}: search.trials: null is for the grid searcher alone; give a number")
    for key in ("time_budget", "trial_timeout", "stall_timeout"):
        if (duration := getattr(search, key)) is not None:
            parse_duration(duration, f"{place}: search.{key}")
    return config


def parse_objective(text: str, place: str) -> Objective:
    """`macro_f1 max`; raises InputError."""
    metric, _, mode = text.strip().rpartition(" ")
    if not metric or mode not in ("min", "max"):
        raise InputError(f"{place}: {text!r}: expected a metric and min or max, such as `parameters min`")
    return Objective(metric.strip(), "min" if mode == "min" else "max")


def _check_objectives(config: SearchConfig) -> None:
    place, searcher = f"{config.place}: search", config.search.searcher
    metrics = [objective.metric for objective in config.objectives]
    if config.search.objective is not None and (len(metrics) < 2 or len(set(metrics)) < len(metrics)):
        raise InputError(f"{place}.objective: {config.search.objective}: expected two or more different ones, or null")
    if metrics and searcher not in ("nsga2", "random", "grid"):
        raise InputError(f"{place}.searcher: {searcher}: has one objective; for several: nsga2, random, grid")


def _check_balance(name: str | None, space: Space, place: str) -> None:
    if name is None:
        return
    able = [p.name for p in space.parameters if p.kind in ("choice", "value") and not p.when]
    if name not in able:
        raise InputError(f"{place}: {name!r}: expected a choice that always exists: {', '.join(able)}")


def digest(value: Any) -> str:
    """A short hash of plain data, the same for the same content."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=6).hexdigest()


_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def parse_duration(text: str, place: str = "--time-budget") -> float:
    """Seconds in `90s`, `30m`, `1h30m`.

    Raises:
        InputError: anything else, or nothing.
    """
    match = _DURATION.fullmatch(str(text).strip())
    hours, minutes, seconds = (float(g) if g else 0.0 for g in match.groups()) if match else (0.0, 0.0, 0.0)
    total = hours * 3600 + minutes * 60 + seconds
    if total <= 0:
        raise InputError(f"{place}: {text!r}: expected a positive duration such as 90s, 30m or 1h30m")
    return total


def _parse_set(text: str) -> tuple[list[str], Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {text}: expected KEY=VALUE")
    try:
        # OmegaConf's own YAML reader, so that 1e-4 is the number here that it is in the file.
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))["value"]
    except (YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"--set {text}: the value is not YAML: {_first_line(error)}") from error
    parts = key.strip().split(".")
    return (parts if parts[0] in SECTIONS else ["space", *parts]), parsed


def _put(raw: dict[str, Any], parts: list[str], value: Any, shown: str) -> None:
    """Replaces what stands at a key that must already exist; a data value keeps its type."""
    node: Any = raw
    for depth, part in enumerate(parts):
        known = list(node) if isinstance(node, dict) and not (parts[0] == "space" and is_spec(node)) else []
        if part not in known:
            name = ".".join(parts[1:] if parts[0] == "space" else parts)
            where = ".".join(parts[:depth]) or "the configuration"
            there = [str(key) for key in known]
            raise InputError(f"{shown}: {name}: unknown key; {where} has {', '.join(there)}{suggestion(part, there)}")
        if depth == len(parts) - 1:
            _check_kind(parts, node[part], value, shown)
            node[part] = value
        else:
            node = node[part]


def suggestion(word: str, known: Iterable[str]) -> str:
    """Which of the known words was meant, if one is like it."""
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _check_kind(parts: list[str], old: Any, new: Any, shown: str) -> None:
    """The data section is the task's own, so its defaults are its schema."""
    if parts[0] == "space":
        if isinstance(old, dict) and not is_spec(old):
            raise InputError(f"{shown}: {'.'.join(parts)} is a group; set one of {', '.join(old)} in it")
        return
    if parts[0] != "data" or old is None:
        return
    same = isinstance(new, (int, float)) if isinstance(old, float) else isinstance(new, type(old))
    if not same or isinstance(new, bool) != isinstance(old, bool) or isinstance(old, dict):
        raise InputError(f"{shown}: {new!r}: expected {_kind(old)} such as the default {old!r}")


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", dict: "keys inside"}
    return names.get(type(value), type(value).__name__)


def _validate(model: type[S], raw: dict[str, Any], place: str) -> S:
    try:
        return model.model_validate(raw, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise InputError(f"{place}.{key}: missing") from None
        if first["type"] == "extra_forbidden":
            allowed = ", ".join(model.model_fields)
            raise InputError(f"{place}.{key}: unknown key; allowed are {allowed}") from None
        message = first["msg"][0].lower() + first["msg"][1:]
        raise InputError(f"{place}.{key}: {first['input']!r}: {message}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
