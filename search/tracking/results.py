"""Reads searches from a tracking server, through MLflow's public client.

The searches of a store are read from their journals. A server also holds searches of other machines, whose journals are
not on this machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

from search.core.config import parse_objective
from search.core.store import Store
from search.reports.compare import SearchTable
from search.reports.frames import free_columns
from search.tracking.client import find_runs, mlflow_client, quick_and_quiet
from search.tracking.names import DELIVERED, NAME_TAG, original
from trainables import Objective
from trainables.base.errors import first_line
from trainables.base.unit import Unit

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


def tracked_searches(store: Store, task: str | None = None) -> list[SearchTable]:
    """The searches that the store's MLflow holds, oldest first.

    `seconds` of a running trial is NaN: MLflow gets it when the trial ends.

    Args:
        task: only searches of this task.

    Raises:
        mlflow.exceptions.MlflowException: the server does not answer, or refuses.
    """
    with quick_and_quiet():
        client = mlflow_client(store)
        parents = sorted(find_runs(client, "tags.`search.run` = 'parent'"), key=lambda run: run.info.start_time)
        return [_read_search(client, run) for run in parents if task in (None, run.data.tags["task"])]


def searches_of_server(store: Store, task: str | None, warn: Callable[[str], None]) -> list[SearchTable]:
    """The searches of the tracking server that MLFLOW_TRACKING_URI names; an empty list without a server.

    Args:
        warn: gets a sentence if the server cannot be read; the list is then empty.
    """
    if store.is_local:
        return []
    try:
        return tracked_searches(store, task)
    except Exception as error:  # a server that is away, a proxy in between
        warn(f"{store.shown} cannot be read ({first_line(error)}): only searches of {store.root} are compared")
        return []


def has_whole(store: Store, search: str, events: int) -> bool:
    """Whether MLflow has all `events` events of the search with this id; False if MLflow does not answer."""
    if store.is_local and not store.database.exists():
        return False
    try:
        with quick_and_quiet():
            parent = next(find_runs(mlflow_client(store), _parent_query(search)), None)
    except Exception:  # a server that is away, a database without tables
        return False
    return parent is not None and int(parent.data.tags.get(DELIVERED, "0").partition(" ")[0]) == events


def log_report(store: Store, search: str, path: str) -> None:
    """Logs a file to the parent run of the search with this id; does nothing if MLflow has no such run."""
    with quick_and_quiet():
        client = mlflow_client(store)
        for run in find_runs(client, _parent_query(search)):
            client.log_artifact(run.info.run_id, path)


def _parent_query(search: str) -> str:
    return f"tags.`search.id` = '{search}' AND tags.`search.run` = 'parent'"


def _read_search(client: MlflowClient, parent: Run) -> SearchTable:
    tags, metrics = _originals(parent, "tags"), _originals(parent, "metrics")
    objectives = tuple(parse_objective(text, "objective") for text in tags["objective"].split(", "))
    search = tags["search.id"]
    trials = find_runs(client, f"tags.`search.id` = '{search}' AND tags.role = 'trial'")
    settings = _originals(parent, "params")
    every = settings.get("search.report_every")
    unit = Unit(None if every is None else int(every))
    return SearchTable(
        search, tags["search"], tags["task"], int(tags["created"]), tags.get("data.fingerprint", ""), objectives,
        f"{tags['searcher']} + {tags['scheduler']}", metrics.get(objectives[0].test_key, math.nan),
        _trials_frame([*trials], objectives, unit), unit, settings,
    )  # fmt: skip


def _trials_frame(runs: list[Run], objectives: tuple[Objective, ...], unit: Unit) -> pd.DataFrame:
    """The trials of one search, with the columns of `search.reports.frames.trials_frame`."""
    first, *further = objectives
    own = ["trial", "outcome", f"{unit.name}s", f"best_{unit.name}", first.key, *(o.metric for o in further)]
    own += ["seconds", "cost"]
    given = [_originals(run, "params") for run in runs]
    columns = free_columns(dict.fromkeys(name for params in given for name in params), own)
    rows = []
    for run, params in zip(runs, given, strict=True):
        metrics = _originals(run, "metrics")
        # The dictionary of last values has no steps; the message of MLflow's protocol has them.
        steps = {metric.key: metric.step for metric in run.data.to_proto().metrics}
        rows.append([
            int(run.data.tags["trial"]), run.data.tags.get("outcome", "running"), steps.get("epoch_seconds", 0),
            int(metrics.get(f"best_{unit.name}", 0)), metrics.get(f"best_{first.key}", math.nan),
            *(metrics.get(f"at_best_epoch/{o.metric}", math.nan) for o in further),
            metrics.get("seconds", math.nan), metrics.get("cost", math.nan), *(params.get(name) for name in columns),
        ])  # fmt: skip
    frame = pd.DataFrame(rows, columns=[*own, *columns.values()])
    for column in columns.values():
        frame[column] = _as_values(frame[column])
    return frame.set_index("trial").sort_index()


def _originals(run: Run, kind: str) -> dict[str, Any]:
    """The `tags`, `params` or `metrics` of a run, by their original names. A tag of the run holds each name that was
    cut."""

    def name(stored: str) -> str:
        begin, _, digest = stored.rpartition("__")
        whole = run.data.tags.get(f"{NAME_TAG}{digest}") if begin.endswith("__cut") else None
        return whole or original(stored)

    return {name(stored): value for stored, value in getattr(run.data, kind).items()}


def _as_values(values: pd.Series) -> pd.Series:
    """The texts of a parameter as truth values or numbers if all of them are, else as they are."""
    if set(values.dropna()) <= {"True", "False"}:
        return values.map({"True": True, "False": False})
    numbers = pd.to_numeric(values, errors="coerce")
    return numbers if numbers.notna().sum() == values.notna().sum() else values
