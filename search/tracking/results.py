"""Reads searches back from MLflow as pandas frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from search.core.pareto import nondominated
from search.core.store import Store
from search.tracking.client import mlflow_client, quick_and_quiet, reading
from search.tracking.names import DELIVERED, NAME_TAG, experiment_name, original
from trainables import Objective

#: Outcomes of trials whose figures can be ranked; see `Trial.can_win`.
RANKED = ("completed", "stopped_early", "timed_out", "paused", "interrupted", "running", "failed")


def read_runs(store: Store, task: str) -> pd.DataFrame:
    """The runs of a task's experiment, a row each, indexed by run id; no rows where there is no experiment.

    Columns:
        `tag.*` and `param.*`: text. `metric.*`: the last value. `step.*`: the step of the last value. What a run lacks
        is NaN.
    """
    if not store.is_local:
        return _original(_from_server(store, task))
    return _original(_from_database(store, task)) if store.database.exists() else pd.DataFrame()


def _original(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with our names of tags, parameters and metrics in place of those that MLflow takes."""
    begin = f"tag.{NAME_TAG}"
    whole = {column.removeprefix(begin): frame[column].dropna().iloc[0] for column in frame if column.startswith(begin)}

    def name(column: str) -> str:
        kind, _, shown = column.partition(".")
        cut, _, digest = shown.rpartition("__")
        return f"{kind}.{whole[digest] if cut.endswith('__cut') and digest in whole else original(shown)}"

    return frame.rename(columns=name)


def _from_database(store: Store, task: str) -> pd.DataFrame:
    """Reads the store's tables directly, thousands of runs in a second. MLflow's client makes an object of each tag,
    and importing it takes as long again."""
    of_task = (
        "SELECT run_uuid FROM runs JOIN experiments USING (experiment_id) "
        "WHERE experiments.name = ? AND runs.lifecycle_stage = 'active'"
    )
    name = experiment_name(task)
    with reading(store) as database:
        tags, params, metrics = (
            pd.read_sql_query(f"SELECT * FROM {table} WHERE run_uuid IN ({of_task})", database, params=[name])  # noqa: S608
            for table in ("tags", "params", "latest_metrics")
        )
    database.close()
    return pd.concat(
        [
            _wide(tags, "tag", "value"),
            _wide(params, "param", "value"),
            _wide(metrics[metrics["is_nan"] == 0], "metric", "value"),
            _wide(metrics, "step", "step"),
        ],
        axis=1,
    )


def _wide(long: pd.DataFrame, kind: str, column: str) -> pd.DataFrame:
    return long.pivot(index="run_uuid", columns="key", values=column).add_prefix(f"{kind}.")


def _from_server(store: Store, task: str) -> pd.DataFrame:
    with quick_and_quiet():
        return _read(mlflow_client(store), experiment_name(task))


def _read(client: Any, name: str) -> pd.DataFrame:
    experiment = client.get_experiment_by_name(name)
    rows: dict[str, dict[str, Any]] = {}
    token = None
    while experiment is not None:
        page = client.search_runs([experiment.experiment_id], max_results=5000, page_token=token)
        for run in page:
            rows[run.info.run_id] = {
                **{f"tag.{key}": value for key, value in run.data.tags.items()},
                **{f"param.{key}": value for key, value in run.data.params.items()},
                **{f"metric.{key}": value for key, value in run.data.metrics.items()},
                # the dictionary of last values lacks the steps; the entities have them
                **{f"step.{metric.key}": metric.step for metric in run.data._metric_objs},
            }
        if not (token := page.token):
            break
    return pd.DataFrame.from_dict(rows, orient="index")


def has_whole(store: Store, task: str, search: str, events: int) -> bool:
    """Whether MLflow has the finished search with this id to its last event. False where it cannot be asked.

    Searches that were delivered before MLflow kept the number of events count as whole.
    """
    try:
        parents = searches(read_runs(store, task))
    except Exception:  # a server that is away, a database without tables
        return False
    mine = parents[parents["tag.search.id"] == search] if len(parents) else parents
    if not len(mine):
        return False
    run = mine.iloc[0]
    known = run.get(f"tag.{DELIVERED}")
    if pd.isna(known):
        return bool(run.get("tag.outcome") == "completed")
    return int(str(known).partition(" ")[0]) == events


def searches(runs: pd.DataFrame) -> pd.DataFrame:
    """The parent runs of the searches among a task's runs, indexed by the search's name."""
    return runs[runs["tag.role"] == "parent"].set_index("tag.search") if len(runs) else runs


def trials(runs: pd.DataFrame, names: list[str], objectives: Sequence[Objective]) -> pd.DataFrame:
    """The trials of these searches, best first.

    Columns:
        `search`, `trial`, `outcome`. METRIC: the best on validation. `behind`: how much worse that is than the best
        trial's. `epoch`: that of the best. `epochs`: the number trained. `seconds`, `cost`. A column for each further
        objective, and `front`: whether the trial is on the Pareto front. A column for each hyperparameter that is not
        the same in all trials; one that is called like a column before it is `params_NAME`.
    """
    metric, others = objectives[0].metric, objectives[1:]
    mine = runs[(runs["tag.role"] == "trial") & runs["tag.search"].isin(names)]

    def column(name: str) -> pd.Series:
        return mine[name] if name in mine else pd.Series(float("nan"), index=mine.index)

    frame = pd.DataFrame(
        {
            "search": mine["tag.search"],
            "trial": mine["tag.trial"].astype(int),
            "outcome": column("tag.outcome").fillna("running"),
            metric: column(f"metric.best_val_{metric}"),
            "epoch": column("metric.best_epoch").astype("Int64"),
            "epochs": column("step.epoch_seconds").fillna(0).astype(int),
            "seconds": column("metric.seconds"),
            "cost": column("metric.cost"),
        }
    )
    if not frame["cost"].gt(0).any():  # nobody gave a price
        del frame["cost"]
    able = frame["outcome"].isin(RANKED)
    for place, objective in enumerate(others, 4):
        frame.insert(place, objective.metric, column(f"metric.at_best_epoch/{objective.metric}"))
    every = pd.DataFrame({o.metric: frame[o.metric].where(able) * (1 if o.mode == "min" else -1) for o in objectives})
    losses = every[metric]
    frame.insert(4, "behind", losses - losses.min())
    if others:
        known = every.dropna()
        best = known.index[nondominated(known.to_numpy())]
        frame.insert(5, "front", frame.index.isin(best))
    params = mine.filter(regex=r"^param\.")
    params.columns = params.columns.str.removeprefix("param.")
    varied = params.loc[:, params.nunique(dropna=False) > 1].apply(_numbers)
    varied = varied.rename(columns=beside(varied.columns, frame.columns))
    frame = pd.concat([frame, varied], axis=1).assign(_loss=losses)
    return frame.sort_values(["_loss", "search", "trial"]).drop(columns="_loss").reset_index(drop=True)


def beside(names: Iterable[str], columns: Iterable[str], prefix: str = "params_") -> dict[str, str]:
    """A column for each of some names, which is its own unless there is a column of that name.

    >>> beside(["lr", "epochs"], ["trial", "epochs"])
    {'lr': 'lr', 'epochs': 'params_epochs'}
    """
    taken, found = {*columns}, {}
    for name in sorted(names := [*names], key=lambda name: name in taken):  # those that keep their names first
        found[name] = name
        while found[name] in taken:
            found[name] = prefix + found[name]
        taken.add(found[name])
    return {name: found[name] for name in names}


def _numbers(values: pd.Series) -> pd.Series:
    """The values as numbers if all of them are numbers, else as they are."""
    numbers = pd.to_numeric(values, errors="coerce")
    return numbers if numbers.notna().sum() == values.notna().sum() else values
