"""Changes a configuration by `--set KEY=VALUE` and by flags."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from search.core.space import KINDS, is_spec
from trainables import Allowed, InputError, Numbers
from trainables.base.errors import first_line
from trainables.base.unit import Unit
from trainables.base.values import suggestion

SECTIONS = ("search", "resources", "data", "space")
#: The parts of the key of the constraints of a space.
CONSTRAINTS = ["space", "constraints"]
#: The parts of the key of the limits on outcomes. After them comes any metric: `search.limits.latency_ms`.
LIMITS = ["search", "limits"]

#: `named(key, value)` returns a setting as the user wrote it, such as `--trials 0` for (`search.trials`, 0).
Named = Callable[[str, Any], str]


def flag(key: str, value: Any) -> str:
    """A setting as a flag of the command line: `--trials 0`."""
    return f"--{key.split('.')[-1].replace('_', '-')} {value}"


def argument(key: str, value: Any) -> str:
    """A setting as an argument in Python: `trials=0`."""
    name = "start" if key == "search.first" else key.split(".")[-1]
    return f"{name}={value!r}"


def change(
    raw: dict[str, Any], sets: Iterable[str] = (), flags: Mapping[str, Any] | None = None, named: Named = flag,
    allowed: Allowed | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Returns a copy of a merged configuration with the values of `--set` and flags.

    Args:
        sets: texts `KEY=VALUE`.
        flags: values by dotted key, such as `search.trials`; None leaves a key as it is. `search.steps` sets
            `search.epochs`, by `search.report_every`.
        named: formats a flag for messages.
        allowed: the allowed values of hyperparameters; some are numbers or a text, such as 2 or `all`.

    Raises:
        InputError: a key does not exist, or a value has another type than the default.
    """
    raw, given = copy.deepcopy(raw), set()
    for text in sets:
        parts, value = parse_set(text)
        _replace(raw, parts, value, f"--set {text}", allowed or {})
        if value is not None:
            given.add(".".join(parts))
    flags = dict(flags or {})
    steps = flags.pop("search.steps", None)
    for key, value in flags.items():
        if value is not None:
            _replace(raw, key.split("."), value, named(key, value), allowed or {})
            given.add(key)
    if not isinstance(raw.get("search"), dict):
        return raw  # a file is wrong, which `check_config` says
    if steps is not None:
        raw["search"]["epochs"] = _reports(raw["search"], steps, given, named)
        given.add("search.epochs")
    _end_without_budget(raw, given)
    if "search.epochs" in given and "search.fit_epochs" not in given:
        raw["search"]["fit_epochs"] = False
    if "search.epochs" in given and "search.grace_period" not in given:
        with suppress(TypeError, ValueError, OverflowError, KeyError):  # not yet checked; `check_config` refuses it
            least = min(int(raw["search"]["grace_period"]), int(raw["search"]["epochs"]))
            raw["search"]["grace_period"] = max(1, least)
    if raw["search"].get("deterministic") and "search.scheduler" not in given:
        raw["search"]["scheduler"] = "asha"  # a scheduler that promotes trials has no rounds
    return raw


def given_by(sets: Iterable[str] = (), flags: Mapping[str, Any] | None = None, named: Named = flag) -> dict[str, str]:
    """Each changed key with the words of the user: `{"search.trials": "--trials 0"}`. Arguments as for `change`."""
    given = {".".join(parse_set(text)[0]): f"--set {text}" for text in sets}
    return given | {key: named(key, value) for key, value in (flags or {}).items() if value is not None}


def values_given(sets: Iterable[str] = (), flags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Each changed key with its new value: `{"search.trials": 0}`. Arguments as for `change`."""
    values = {".".join(parts): value for parts, value in map(parse_set, sets)}
    return values | {key: value for key, value in (flags or {}).items() if value is not None}


def lay_over(raw: dict[str, Any], section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy of plain data in which the values of `section` replace those of the same keys.

    Mappings are merged key by key. The spec of a hyperparameter is replaced as a whole.
    """

    def merge(below: Any, above: Any) -> Any:
        if not isinstance(below, dict) or not isinstance(above, Mapping) or is_spec(below) or is_spec(above):
            return copy.deepcopy(above)
        return {**below, **{key: merge(below.get(key), value) for key, value in above.items()}}

    merged: dict[str, Any] = merge(raw, section)
    search = section.get("search")
    if isinstance(search, Mapping):
        _end_without_budget(merged, {f"search.{key}" for key, value in search.items() if value is not None})
    return merged


def _reports(search: Mapping[str, Any], steps: Any, given: Collection[str], named: Named) -> int:
    """The number of reports of `steps`, the length of a trial; raises InputError."""
    place = named("search.steps", steps)
    if "search.epochs" in given:
        raise InputError(f"{place}: give the length of a trial in steps or in epochs, not both")
    every = search.get("report_every")
    if isinstance(every, bool) or not (every is None or (isinstance(every, int) and every > 0)):
        raise InputError(f"{named('search.report_every', every)}: expected a whole number >= 1")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"{place}: expected a whole number >= 1")
    return Unit(every).reports(steps, place)


def _end_without_budget(raw: dict[str, Any], given: Collection[str]) -> None:
    """Removes the default time budget if the keys `given` end the search by trials, epochs or cost."""
    has_end = any(f"search.{key}" in given for key in ("trials", "epoch_budget", "cost_budget"))
    if has_end and "search.time_budget" not in given and isinstance(raw.get("search"), dict):
        raw["search"]["time_budget"] = None


def parse_set(text: str, shown: str = "--set ") -> tuple[list[str], Any]:
    """The parts of the dotted key of `KEY=VALUE`, with its section, and the value, which is YAML.

    Args:
        shown: stands before the text in messages.

    Raises:
        InputError: the text has another form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"{shown}{text}: expected KEY=VALUE")
    parts = key.strip().split(".")
    if parts[:2] == LIMITS and value.lstrip().startswith((">", "<")):
        return parts, value.strip()  # to YAML `>` begins a block of text
    try:
        # OmegaConf also reads the files. To YAML 1.1 `1e-4` is a text; to OmegaConf it is a number.
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))["value"]
    except (YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:  # ValueError: 5,000 digits
        spaces = "; write a space after each colon" if re.search(r"[{,]\s*\w+:\S", value) else ""
        raise InputError(f"{shown}{text}: the value is not YAML: {first_line(error)}{spaces}") from error
    return (parts if parts[0] in SECTIONS else ["space", *parts]), parsed


def _replace(raw: dict[str, Any], parts: list[str], value: Any, shown: str, allowed: Allowed) -> None:
    """Replaces a value in `raw`.

    Args:
        parts: the parts of the dotted key.
        shown: the setting as the user wrote it, for messages.

    Raises:
        InputError: the key does not exist, or the value has another type than the one before.
    """
    node: Any = raw
    if parts[:2] == LIMITS and len(parts) > 2 and isinstance(raw.get("search"), dict):
        limits = {**(raw["search"].get("limits") or {}), ".".join(parts[2:]): value}
        raw["search"]["limits"] = {metric: limit for metric, limit in limits.items() if limit is not None} or None
        return
    for depth, part in enumerate(parts):
        keys = list(node) if isinstance(node, dict) and not (parts[0] == "space" and is_spec(node)) else []
        if part not in keys and parts != CONSTRAINTS:
            name = ".".join(parts[1:] if parts[0] == "space" else parts)
            section = ".".join(parts[:depth]) or "the configuration"
            names = [str(key) for key in keys]
            near = suggestion(part, names) or ";"
            raise InputError(f"{shown}: {name}: unknown key{near} {section} has {', '.join(names)}")
        if parts == CONSTRAINTS and depth == 1:  # a space may have none yet; `parse_space` checks them
            node[part] = value
        elif depth == len(parts) - 1:
            _check_type(parts, node[part], value, shown, allowed)
            node[part] = value
        else:
            node = node[part]


def _check_type(parts: list[str], old: Any, new: Any, shown: str, allowed: Allowed) -> None:
    """Checks the type of a new value in the sections `space` and `data`; pydantic checks the other sections.

    A task defines its section `data`. The types of its default values are the only schema.
    """
    if len(parts) == 1:
        keys = ", ".join(map(str, old)) if isinstance(old, dict) else "none"
        raise InputError(f"{shown}: {parts[0]} is a section; set one of its keys: {keys}")
    if parts[0] == "space":
        if isinstance(old, dict) and not is_spec(old):
            raise InputError(f"{shown}: {'.'.join(parts)} is a group; set one of {', '.join(old)} in it")
        own = allowed.get(".".join(parts[1:]))
        if isinstance(own, Numbers) and own.words:
            return  # numbers and texts: `check_values` names them
        number = ((int,), "a whole number") if is_spec(old) and "int" in old else ((int, float), "a number")
        for types, expected in (number, ((bool,), "true or false")):
            wrong = [value for value in _values(new) if type(value) not in types and value is not None]
            if wrong and all(type(value) in types for value in _values(old)):
                raise InputError(f"{shown}: {wrong[0]!r}: expected {expected}, such as {_values(old)[0]!r}")
        return
    if parts[0] != "data" or old is None:
        return
    same = isinstance(new, (int, float)) if isinstance(old, float) else isinstance(new, type(old))
    if not same or isinstance(new, bool) != isinstance(old, bool) or isinstance(old, dict):
        raise InputError(f"{shown}: {new!r}: expected {_type_name(old)} such as the default {old!r}")
    if parts[-1].endswith("_fraction") and not 0 < new < 1:  # the split would get one sample, or all but one
        raise InputError(f"{shown}: {new!r}: expected a number > 0 and < 1, such as the default {old!r}")


def _values(spec: Any) -> list[Any]:
    """The values in an entry of the space: the two bounds, the choices, or the fixed value."""
    if not is_spec(spec):
        return [spec]
    body = next(spec[kind] for kind in KINDS if kind in spec)
    return body if isinstance(body, list) else [body]


def _type_name(value: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", dict: "keys inside"}
    return names.get(type(value), type(value).__name__)
