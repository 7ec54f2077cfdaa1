"""How a killed or finished search is opened again: its configuration is read, its journal replayed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl

from search.core.config import SearchConfig, check_config, configs_folder, load_config, read_yaml
from search.core.events import Event
from search.core.journal import read_events
from search.core.program_config import LOOPS
from search.core.state import SearchState
from search.core.store import SearchFolder, Store
from trainables import TASKS, InputError, Objective, get_task, offer, task_names


def open_search(store: Store, name: str) -> tuple[SearchFolder, dict[str, Any], SearchConfig]:
    """Opens a search of the store for reading. Nothing that the store names is imported, and nothing unpickled.

    Returns:
        Its folder, its description (`search.json`) and its configuration, in which settings that are newer than the
        search have their defaults.

    Raises:
        InputError: there is no such search, or its `search.json` is damaged.
    """
    folder = store.search(name)
    description = folder.read(store)
    task = description["task"]
    if task in TASKS:
        known = load_config(task).raw
    else:  # the file of another package's task lies beside its module, which would be imported
        known = read_yaml(configs_folder() / "defaults.yaml", "configs/defaults.yaml", "sections")
    return folder, description, _configured(description, known)


def open_to_run(store: Store, name: str) -> tuple[SearchFolder, dict[str, Any], SearchConfig]:
    """As `open_search`, and makes the search's task known to this process and its workers, as it will be run.

    Raises:
        InputError: also where the task is not installed here.
    """
    folder, description, _ = open_search(store, name)
    task = description["task"]
    if place := description.get("offered"):  # a function of somebody's program, which nothing else knows
        offer(task, place)
    if task not in task_names():
        raise _not_installed(task)
    return folder, description, _configured(description, load_config(task).raw)


def _configured(description: dict[str, Any], known: dict[str, Any]) -> SearchConfig:
    raw = description["config"]
    sections = [key for key in ("search", "resources", "data") if isinstance(raw.get(key), dict)]
    settings = {key: {**known.get(key, {}), **raw[key]} for key in sections}
    return check_config(description["task"], {**raw, **settings}, description["place"])


def _not_installed(task: str) -> InputError:
    return InputError(f"task {task!r}: is not installed here; there are {', '.join(task_names())}")


def described(task: str) -> dict[str, Any]:
    """The objective of a task as `search.json` keeps it, for those who read the search where the task is not there.

    Keys:
        `metric`, `mode`, `tuned`: as of `Objective`. `named`: the metric as the task itself names it.
    """
    made = get_task(task)
    named = getattr(made, "metric", f"val_{made.objective.metric}")  # a function yields it under its own name
    return {**asdict(made.objective), "named": named}


def objective_of(description: Mapping[str, Any]) -> Objective:
    """The objective of a search. Of a search from before it was kept, it is that of the task which is installed here.

    Raises:
        InputError: it is not kept, and the task is not installed here.
    """
    known = _objective(description)
    return Objective(known["metric"], known["mode"], tuple(known["tuned"]))


def metric_of(description: Mapping[str, Any]) -> str:
    """The objective's name as the task or function itself names it; raises as `objective_of`."""
    return str(_objective(description)["named"])


def _objective(description: Mapping[str, Any]) -> dict[str, Any]:
    if known := description.get("objective"):
        return dict(known)
    task, (place, _, told) = description["task"], str(description.get("offered") or "").partition("?")
    if place == LOOPS:
        about = dict(parse_qsl(told))
        metric = about.get("metric", "")
        return {**about, "metric": metric.removeprefix("val_"), "tuned": (), "named": metric}
    if task not in task_names():
        raise _not_installed(task)
    return described(task)


def replay(folder: SearchFolder) -> tuple[SearchState, list[Event]]:
    """The state of a search and its events, read from the journal without locking it; raises InputError where that or
    `search.json` is damaged."""
    state, events = SearchState(objective_of(folder.read())), list(read_events(folder.journal))
    for event in events:
        state.apply(event)
    return state, events


def extend(config: SearchConfig, more: dict[str, str | None]) -> SearchConfig:
    """The configuration of a search that is given more trials, epochs, audits or time.

    Args:
        more: new values by key; `+N` adds to a number, None leaves it.

    Raises:
        InputError: a value is no number, or less than the search has.
    """
    changed = dict(config.raw["search"])
    for key, text in more.items():
        if text is None or key == "time_budget":
            changed[key] = text or changed[key]
            continue
        flag = f"--{key.replace('_', '-')} {text}"
        if not re.fullmatch(r"\+?\d+", text):
            raise InputError(f"{flag}: expected a number, or +N for so many more")
        before = changed[key]
        if before is None:
            raise InputError(f"{flag}: the search has no such limit")
        changed[key] = before + int(text) if text.startswith("+") else int(text)
        if changed[key] < before:
            raise InputError(f"{flag}: the search has {before} already; it can only be given more")
    return check_config(config.task, {**config.raw, "search": changed}, config.place)
