"""A search with results that a test chooses: its journal and record, as a run writes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from search.core.config import SearchConfig, load_config
from search.core.journal import Journal
from search.core.program_config import loop_config
from search.core.record import SearchRecord
from search.core.replay import open_search, replay
from search.core.store import SearchFolder, Store
from trainables import get_task, registered_address

#: Hyperparameters, the objective of each epoch, and the outcome.
Result = tuple[dict[str, Any], list[float], str]
Extra = dict[str, float] | Callable[[dict[str, Any]], dict[str, float]]


def made(
    root: Path, space: dict[str, Any], results: list[Result], *, objective: str = "loss min", name: str = "s",
    flags: dict[str, Any] | None = None, sets: tuple[str, ...] = (), extra: Extra | None = None,
    begin: tuple[dict, ...] = (), **fields: Any,
) -> tuple[Store, SearchFolder, SearchRecord, SearchConfig]:  # fmt: skip
    """A finished search of a function.

    Args:
        extra: metrics of every epoch, or a function that makes them of a configuration.
        begin: events before the first trial.
    """
    config = loop_config(
        "mine", space, objective, {"search.trials": max(1, len(results)), **(flags or {})}, sets, "test"
    )
    config.raw["data"].update(function=f"functions/{name}/mine.pkl", folder="")
    return written(root, config, results, name=name, extra=extra, begin=begin, **fields)


def made_of_task(
    root: Path, task: str, sets: tuple[str, ...] = (), flags: dict[str, Any] | None = None, data: str | None = None,
    **fields: Any,
) -> tuple[Store, SearchFolder, SearchRecord, SearchConfig]:  # fmt: skip
    """A search of a task that has no trial yet."""
    config = load_config(task, sets, flags, "demo" if data is None else "data")
    return written(root, config, [], data=data, **fields)


def written(
    root: Path, config: SearchConfig, results: list[Result], *, name: str = "s", extra: Extra | None = None,
    begin: tuple[dict, ...] = (), **fields: Any,
) -> tuple[Store, SearchFolder, SearchRecord, SearchConfig]:  # fmt: skip
    store = Store(root)
    folder = store.search(name)
    folder.path.mkdir(parents=True)
    metric = get_task(config.task).objective.metric
    events: list[dict[str, Any]] = [{"event": "session", "time": 0}, *begin]
    now = 0
    for number, (params, values, outcome) in enumerate(results):
        more = extra(params) if callable(extra) else extra or {}
        events.append({"event": "trial", "number": number, "params": params, "seed": number, "time": now})
        for epoch, value in enumerate(values, 1):
            now += 2000
            ended = outcome if epoch == len(values) and outcome != "failed" else None
            events.append({
                "event": "result", "number": number, "epoch": epoch, "outcome": ended, "diverged": None,
                "metrics": {f"val_{metric}": value, "epoch_seconds": 2.0, **more}, "time": now,
                "device": "cpu",
            })  # fmt: skip
        if outcome == "failed":
            events.append({"event": "failed", "number": number, "why": "error", "traceback": "boom", "time": now})
    events.append({"event": "ended", "status": "finished", "rungs": {}, "time": now})
    journal = Journal(folder.journal)
    journal.append(*events)
    journal.close()
    own = {"offered": registered_address(config.task), "fingerprint": "f", **fields}
    folder.write(SearchRecord(task=config.task, config=config.raw, place=config.place, id="id", **own))
    return store, *open_search(store, name)


def state_of(folder: SearchFolder, config: SearchConfig):
    """The state of a search and its events."""
    return replay(folder)
