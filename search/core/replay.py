"""Opens a search of the store: reads its record and configuration, and replays its journal."""

from __future__ import annotations

import re
from typing import Any

from search.core.config import SearchConfig, check_config, configs_folder, load_config, parse_objective, read_yaml
from search.core.events import Event
from search.core.journal import read_events
from search.core.record import SearchRecord, not_installed
from search.core.state import SearchState
from search.core.store import SearchFolder, Store
from trainables import TASKS, InputError, register_task, task_names


def open_search(store: Store, name: str) -> tuple[SearchFolder, SearchRecord, SearchConfig]:
    """Opens a search of the store for reading. It imports no module that the store names, and unpickles nothing.

    Returns:
        The folder, the record (`search.json`) and the configuration. Settings that are newer than the search have their
        default values.

    Raises:
        InputError: there is no search of this name, or its `search.json` is damaged.
    """
    folder = store.search(name)
    record = folder.read(store)
    if record.task in TASKS:
        defaults = load_config(record.task).raw
    else:  # finding the YAML file of another package's task would import its module
        defaults = read_yaml(configs_folder() / "defaults.yaml", "configs/defaults.yaml", "sections")
    return folder, record, _config_of(record, defaults)


def open_to_run(store: Store, name: str) -> tuple[SearchFolder, SearchRecord, SearchConfig]:
    """Opens a search as `open_search` does, and registers its task in this process and in its workers.

    Raises:
        InputError: as `open_search`, or the task is not installed here.
    """
    folder, record, _ = open_search(store, name)
    if record.offered:
        register_task(record.task, record.offered)
    if record.task not in task_names():
        raise not_installed(record.task)
    return folder, record, _config_of(record, load_config(record.task).raw)


def _config_of(record: SearchRecord, defaults: dict[str, Any]) -> SearchConfig:
    raw = record.config
    sections = [key for key in ("search", "resources", "data") if isinstance(raw.get(key), dict)]
    settings = {key: {**defaults.get(key, {}), **raw[key]} for key in sections}
    return check_config(record.task, {**raw, **settings}, record.place)


def replay(folder: SearchFolder) -> tuple[SearchState, list[Event]]:
    """The state and the events of a search, read from the journal without a lock.

    Raises:
        InputError: the journal or `search.json` is damaged.
    """
    state, events = _begin(folder.read()), list(read_events(folder.journal))
    for event in events:
        state.apply(event)
    return state, events


def _begin(record: SearchRecord) -> SearchState:
    """The state of a search before its first event."""
    settings = record.config.get("search")
    given: dict[str, Any] = settings if isinstance(settings, dict) else {}  # an imported search may have no settings
    objectives = [parse_objective(str(text), record.place) for text in given.get("objective") or ()]
    return SearchState(record.objective, objectives, given.get("preference"))


def extend(config: SearchConfig, more: dict[str, str | None]) -> SearchConfig:
    """The configuration with more trials, epochs, audits or time.

    Args:
        more: new values by key. `+N` adds to the value of the search; None keeps it.

    Raises:
        InputError: a value is no number, or is smaller than the value of the search.
    """
    changed, unit = dict(config.raw["search"]), config.search.unit
    own, other = ("epochs", "steps") if unit.report_every is None else ("steps", "epochs")
    if more.get(other) is not None:
        raise InputError(f"--{other} {more[other]}: the search counts in {own}; give --{own}")
    for key, text in more.items():
        if text is None:
            continue
        if key == "time_budget":
            changed[key] = text or changed[key]
            continue
        flag = f"--{key.replace('_', '-')} {text}"
        if not re.fullmatch(r"\+?\d+", text):
            raise InputError(f"{flag}: expected a number, or +N to add N")
        if key == "steps":
            key, text = "epochs", text[: text.startswith("+")] + str(unit.reports(int(text), flag))
        before = changed[key]
        if before is None:
            raise InputError(f"{flag}: the search has no such limit")
        changed[key] = before + int(text) if text.startswith("+") else int(text)
        if changed[key] < before:
            had = unit(before) if key == "epochs" else before
            raise InputError(f"{flag}: the search has {had} already; it can only be given more")
    return check_config(config.task, {**config.raw, "search": changed}, config.place)
