"""The settings that may change while a search runs, and a configuration with such changes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from search.core.config import DURATIONS, SearchConfig, check_config, parse_duration
from search.core.events import Event
from search.core.space import all_numbers, check_spec, flat, is_spec, parse_space
from trainables import InputError
from trainables.base.values import suggestion

#: The settings of the section `search` that may change. Others decide how trials are trained or compared: trials before
#: and after the change would be different things.
CHANGEABLE = (
    "trials", "time_budget", "concurrency", "epoch_budget", "target", "cost_budget", "worth", "trial_timeout",
    "stall_timeout", "max_epoch_seconds", "startup_trials", "model_trials", "max_failures", "max_lost_workers",
    "max_failed_in_a_row", "retrain_seeds", "compare_seeds", "audit_stopping", "keep_checkpoints", "max_checkpoint_gb",
    "preference",
)  # fmt: skip


def with_changes(config: SearchConfig, changes: Mapping[str, Mapping[str, Any]]) -> SearchConfig:
    """The configuration with new values.

    Args:
        changes: values by name in `search`, and entries by the name of a hyperparameter in `space`.

    Raises:
        InputError: as `check_config`.
    """
    raw = {**config.raw, "search": {**config.raw["search"], **changes.get("search", {})}}
    for name, entry in changes.get("space", {}).items():
        raw["space"] = _with_entry(raw["space"], name, entry)
    given = {f"search.{key}": f"{key}={value}" for key, value in changes.get("search", {}).items()}
    return check_config(config.task, raw, config.place, given)


def after_requests(config: SearchConfig, events: Iterable[Event]) -> SearchConfig:
    """The configuration with the changes that requests made in these events."""
    for event in events:
        if event["event"] == "request" and event["kind"] == "set":
            config = with_changes(config, event["content"])
    return config


def differences(before: SearchConfig, after: SearchConfig) -> dict[str, dict[str, Any]]:
    """The changes that make `before` to `after`, for `with_changes`, in the section `search` alone."""
    old, new = before.raw["search"], after.raw["search"]
    changed = {key: value for key, value in new.items() if key not in old or old[key] != value}
    return {"search": changed} if changed else {}


def resolved(config: SearchConfig, settings: Mapping[str, Any], trials: int) -> dict[str, dict[str, Any]]:
    """The changes that a person asks for, as `with_changes` takes them.

    Args:
        settings: as of `requests.ChangeSettings`.
        trials: the number of trials that have begun.

    Raises:
        InputError: a setting cannot change while the search runs, or a value is wrong.
    """
    changes: dict[str, dict[str, Any]] = {"search": {}, "space": {}}
    names = [parameter.name for parameter in config.space.parameters]
    for name, value in settings.items():
        key = name.replace("-", "_").removeprefix("search.")
        if key in CHANGEABLE:
            changes["search"][key] = _value(config, key, value)
        elif name.startswith("space.") and name.removeprefix("space.") in names:
            changes["space"][name.removeprefix("space.")] = _entry(config, name.removeprefix("space."), value)
        elif name in names:
            raise InputError(f"{name}={value}: the range of a hyperparameter is space.{name}: space.{name}={value}")
        else:
            near = suggestion(key, [*CHANGEABLE, *(f"space.{own}" for own in names)]) or ";"
            raise InputError(
                f"{name}={value}: cannot change while a search runs{near} what can: {', '.join(CHANGEABLE)}, "
                f"{', '.join(f'space.{own}' for own in names)}"
            )
    wanted = with_changes(config, changes).search.trials
    if "trials" in changes["search"] and wanted is not None and wanted < trials:
        raise InputError(f"trials={wanted}: {trials} trials have begun already")
    if "concurrency" in changes["search"] and config.search.deterministic:
        raise InputError("concurrency: cannot change in a deterministic search, whose rounds have this many trials")
    return {section: values for section, values in changes.items() if values}


def _value(config: SearchConfig, key: str, value: Any) -> Any:
    """The new value of a setting. A text with `+` adds to its value."""
    before, shown = getattr(config.search, key), f"{key}={value}"
    if not isinstance(value, str) or not value.startswith("+"):
        return value
    if before is None:
        raise InputError(f"{shown}: the search has no such limit; give a value without +")
    if key in DURATIONS:
        return _duration(parse_duration(before) + parse_duration(value[1:], shown))
    if not re.fullmatch(r"\+\d+(\.\d+)?", value):
        raise InputError(f"{shown}: expected a number, or +N to add N")
    return before + (int(value) if value[1:].isdigit() else float(value))


def _duration(seconds: float) -> str:
    """A duration as a setting has it: `1h30m`.

    >>> _duration(5400.0), _duration(60.5)
    ('1h30m', '1m0.5s')
    """
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = ((hours, f"{hours}h"), (minutes, f"{minutes}m"), (rest, f"{rest:g}s"))
    return "".join(text for value, text in parts if value)


def _entry(config: SearchConfig, name: str, value: Any) -> Any:
    """The new entry of a hyperparameter. Without an own `when` or prior it keeps the old ones, if they fit."""
    if name == config.search.balance:
        raise InputError(f"space.{name}: cannot change, as trials take its values in turn (search.balance)")
    parameter = next(p for p in config.space.parameters if p.name == name)
    entry = {key: part for key, part in value.items() if key != "when"} if is_spec(value) else value
    values = parse_space({name: entry}, "set").parameters[0].choices
    if parameter.has_numbers and not all_numbers(values):
        raise InputError(f"space.{name}={value}: expected numbers, as {name} is {parameter.describe()}")
    kept: dict[str, Any] = {}
    if parameter.when:
        kept["when"] = flat(config.raw["space"], config.place)[name]["when"]
    if parameter.has_prior and is_spec(value) and "prior" not in value and "value" not in value:
        prior = {"prior": parameter.prior, "confidence": parameter.confidence}
        with suppress(InputError):  # the prior is outside the new range
            check_spec({**value, **prior}, "")
            kept |= prior
    if not kept:
        return value
    return {**kept, **(value if is_spec(value) else {"value": value})}


def _with_entry(space: Mapping[str, Any], name: str, entry: Any) -> dict[str, Any]:
    """The section `space`, whose names may be grouped, with another entry for a hyperparameter."""
    changed = dict(space)
    for key, value in space.items():
        if key == name:
            changed[key] = entry
        elif isinstance(value, Mapping) and not is_spec(value) and name.startswith(f"{key}."):
            changed[key] = _with_entry(value, name.removeprefix(f"{key}."), entry)
    return changed
