"""How a killed or finished search is opened again: its configuration is read, its journal replayed."""

from __future__ import annotations

import re
from typing import Any

from search.config.load import SearchConfig, check_config, load_config
from search.record.events import Event
from search.record.journal import read_events
from search.record.state import SearchState
from search.record.store import SearchFolder, Store
from trainables import InputError, get_task, offer, task_names


def open_search(store: Store, name: str) -> tuple[SearchFolder, dict[str, Any], SearchConfig]:
    """Opens a search of the store.

    Returns:
        Its folder, its description (`search.json`) and its configuration, in which settings that are newer than the
        search have their defaults.

    Raises:
        InputError: there is no such search, or its task is not installed.
    """
    folder = store.search(name)
    description = folder.read(store)
    if place := description.get("offered"):  # a function of somebody's program, which nothing else knows
        offer(description["task"], place)
    if description["task"] not in task_names():
        there = ", ".join(task_names())
        raise InputError(f"{name}: its task {description['task']!r} is not installed here; there are {there}")
    raw, now = description["config"], load_config(description["task"]).raw
    settings = {section: {**now[section], **raw[section]} for section in ("search", "resources", "data")}
    return folder, description, check_config(description["task"], {**raw, **settings}, description["place"])


def offer_all(store: Store) -> None:
    """Makes the functions known that the searches of a store are of."""
    for name in store.names():
        about = store.search(name).read(store)
        if place := about.get("offered"):
            offer(about["task"], place)


def replay(folder: SearchFolder, config: SearchConfig) -> tuple[SearchState, list[Event]]:
    """The state of a search and its events, read from the journal without locking it."""
    state, events = SearchState(get_task(config.task).objective), list(read_events(folder.journal))
    for event in events:
        state.apply(event)
    return state, events


def extend(
    folder: SearchFolder, description: dict[str, Any], config: SearchConfig, more: dict[str, str | None], sessions: int
) -> tuple[dict[str, Any], SearchConfig]:
    """Gives a search more trials, epochs, audits or time, and writes that into its `search.json`.

    Args:
        more: new values by key; `+N` adds to a number, None leaves it.
        sessions: number of sessions so far. Until another begins, the search is not finished.

    Returns:
        The new description and configuration.

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
    config = check_config(config.task, {**config.raw, "search": changed}, config.place)
    description = {**description, "config": config.raw, "extended_after": sessions}
    folder.write(description)
    return description, config
