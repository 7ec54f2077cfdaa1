"""Changes a configuration by `--set KEY=VALUE` and flags."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from search.core.space import KINDS, is_spec
from trainables import InputError
from trainables.base.errors import first_line
from trainables.base.values import suggestion

SECTIONS = ("search", "resources", "data", "space")


#: `named(key, value)` -> how a user gave a setting, such as `--trials 0`.
Named = Callable[[str, Any], str]


def flag(key: str, value: Any) -> str:
    """A setting as the command line gives it: `--trials 0`."""
    return f"--{key.split('.')[-1].replace('_', '-')} {value}"


def argument(key: str, value: Any) -> str:
    """A setting as Python gives it: `trials=0`."""
    return f"{key.split('.')[-1]}={value!r}"


def change(
    raw: dict[str, Any], sets: Iterable[str] = (), flags: Mapping[str, Any] | None = None, named: Named = flag
) -> dict[str, Any]:
    """Returns a copy of a merged configuration with `--set` and flags laid over it.

    Args:
        named: formats a flag for messages.

    Raises:
        InputError: a key does not exist, or a value has another type than the default.
    """
    raw, given = copy.deepcopy(raw), set()
    for text in sets:
        parts, value = _parse_set(text)
        _put(raw, parts, value, f"--set {text}")
        given.add(".".join(parts) if value is not None else "")
    for key, value in (flags or {}).items():
        if value is not None:
            _put(raw, key.split("."), value, named(key, value))
            given.add(key)
    _end_without_budget(raw, given)
    if "search.epochs" in given and "search.fit_epochs" not in given:
        raw["search"]["fit_epochs"] = False
    if "search.epochs" in given and "search.grace_period" not in given:
        raw["search"]["grace_period"] = max(1, min(raw["search"]["grace_period"], raw["search"]["epochs"]))
    if raw["search"].get("deterministic") and "search.scheduler" not in given:
        raw["search"]["scheduler"] = "asha"  # a scheduler that promotes trials has no rounds
    return raw


def given_by(
    sets: Iterable[str] = (), flags: Mapping[str, Any] | None = None, named: Named = flag
) -> dict[str, str]:  # fmt: skip
    """By changed key the words of the user for messages, such as `--trials 0`."""
    given = {".".join(_parse_set(text)[0]): f"--set {text}" for text in sets}
    return given | {key: named(key, value) for key, value in (flags or {}).items() if value is not None}


def lay_over(raw: dict[str, Any], section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy of plain data with other data laid over it. The spec of a parameter is replaced as a whole."""

    def laid(under: Any, over: Any) -> Any:
        if not isinstance(under, dict) or not isinstance(over, Mapping) or is_spec(under) or is_spec(over):
            return copy.deepcopy(over)
        return {**under, **{key: laid(under.get(key), value) for key, value in over.items()}}

    merged: dict[str, Any] = laid(raw, section)
    search = section.get("search")
    if isinstance(search, Mapping):
        _end_without_budget(merged, {f"search.{key}" for key, value in search.items() if value is not None})
    return merged


def _end_without_budget(raw: dict[str, Any], given: Collection[str]) -> None:
    """Takes the default time budget back where a number of trials or of epochs says when the search ends."""
    ends = {"search.trials", "search.epoch_budget"} & set(given)
    if ends and "search.time_budget" not in given and isinstance(raw.get("search"), dict):
        raw["search"]["time_budget"] = None


def _parse_set(text: str) -> tuple[list[str], Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {text}: expected KEY=VALUE")
    try:
        # OmegaConf's own YAML reader, so that 1e-4 is the number here that it is in the file.
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))["value"]
    except (YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"--set {text}: the value is not YAML: {first_line(error)}") from error
    parts = key.strip().split(".")
    return (parts if parts[0] in SECTIONS else ["space", *parts]), parsed


def _put(raw: dict[str, Any], parts: list[str], value: Any, shown: str) -> None:
    """Replaces the value of a key. The key must exist; a value of the data section keeps its type."""
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


def _check_kind(parts: list[str], old: Any, new: Any, shown: str) -> None:
    """Checks the kind of a new value. The data section is the task's own, so its defaults serve as its schema."""
    if parts[0] == "space":
        if isinstance(old, dict) and not is_spec(old):
            raise InputError(f"{shown}: {'.'.join(parts)} is a group; set one of {', '.join(old)} in it")
        number = ((int,), "a whole number") if is_spec(old) and "int" in old else ((int, float), "a number")
        for kinds, expected in (number, ((bool,), "true or false")):
            wrong = [value for value in _values(new) if type(value) not in kinds and value is not None]
            if wrong and all(type(value) in kinds for value in _values(old)):
                raise InputError(f"{shown}: {wrong[0]!r}: expected {expected}, such as {_values(old)[0]!r}")
        return
    if parts[0] != "data" or old is None:
        return
    same = isinstance(new, (int, float)) if isinstance(old, float) else isinstance(new, type(old))
    if not same or isinstance(new, bool) != isinstance(old, bool) or isinstance(old, dict):
        raise InputError(f"{shown}: {new!r}: expected {_kind(old)} such as the default {old!r}")


def _values(spec: Any) -> list[Any]:
    """The values that an entry of the space names: bounds, choices, or the one value."""
    if not is_spec(spec):
        return [spec]
    body = next(spec[kind] for kind in KINDS if kind in spec)
    return body if isinstance(body, list) else [body]


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", dict: "keys inside"}
    return names.get(type(value), type(value).__name__)
