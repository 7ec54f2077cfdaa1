"""Compares searches: the searches of each task side by side, and all their trials in one ranking."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from search.core.pareto import nondominated
from search.core.readable import Grid, figure, value, visible
from search.core.redaction import redacted
from search.core.replay import open_search, replay
from search.core.store import Store, pass_over
from search.reports.columns import is_learning_rate
from search.reports.frames import trials_frame
from search.reports.summary import tally
from trainables import InputError, Objective
from trainables.base.unit import EPOCHS, Unit

#: Columns that a screen shows behind the hyperparameters.
LAST = ("behind", "epochs", "steps", "seconds", "cost")
#: Columns that a screen shows even if all their cells are the same.
NAMES = ("search", "trial")
#: Settings that the comparison of searches leaves out. Each search has its own copy of the code, so its place always
#: differs. The column `searcher` shows the searcher and the scheduler already.
OWN = ("data.function", "data.folder", "search.searcher", "search.scheduler")
#: Outcomes of a failed trial, if it has no result.
LOST = ("diverged", "failed")


@dataclass(frozen=True)
class SearchTable:
    """One search with its trials, read from its journal or from a tracking server.

    Attributes:
        id: identifies the search in every store and on every tracking server.
        created: milliseconds since 1970.
        fingerprint: a hash of its data.
        algorithms: its searcher and its scheduler, such as `tpe + asha`.
        test: the test objective of its model; NaN if nothing was tested.
        trials: as `trials_frame` returns it, with the column `val_METRIC`.
        unit: of its columns: `epochs` and `best_epoch`, or `steps` and `best_step`.
        settings: `SearchConfig.by_name` as texts, without secrets and without settings that are None.
    """

    id: str
    name: str
    task: str
    created: int
    fingerprint: str
    objectives: tuple[Objective, ...]
    algorithms: str
    test: float
    trials: pd.DataFrame
    unit: Unit = EPOCHS
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """The searches of one task, compared.

    Attributes:
        objective: the objective of the compared searches.
        searches: a row for each search. `search`: its name. `best val_METRIC`. `test_METRIC`, if a search was tested.
            `searcher`. A column for each setting that differs between the searches, such as `search.seed`. `trials`:
            their number by outcome. `epochs`, or `steps` of a search that counts in steps. `seconds`, `seconds of
            failed trials` and `seconds of stopped trials`. `cost`, if the searches have prices.
        trials: a row for each trial, the best one first. `search`, `trial`, `outcome`. `feasible`: as of
            `trials_frame`, if a search has limits on outcomes. `val_METRIC`: the best value; NaN for a trial that
            diverged or is infeasible. `behind`: the difference to the best trial. A column for each further
            objective, and `front`: whether the trial is on the Pareto front. `best_epoch` and `epochs`, or `best_step`
            and `steps`. `seconds`, `cost`.
            A column for each hyperparameter that differs between trials.
        left_out: a sentence for each group of searches that cannot be ranked with the others, with the reason.
        hyperparameters: the columns of `trials` that are hyperparameters.
    """

    task: str
    objective: Objective
    searches: pd.DataFrame
    trials: pd.DataFrame
    left_out: tuple[str, ...]
    hyperparameters: tuple[str, ...]

    def grids(self, top: int) -> list[Grid]:
        """The table of the searches and the table of the best `top` trials (0: all), for a screen."""
        best = self.best(top)
        last = [name for name in LAST if name in best]
        first = [name for name in best.columns if name not in last]
        if best["search"].nunique() == 1:
            first.remove("search")
        rates = [name for name in first if is_learning_rate(str(name))]
        start = 1 + max(place for place, name in enumerate(first) if name in ("best_epoch", "best_step"))
        ordered = [*first[:start], *rates, *(name for name in first[start:] if name not in rates), *last]
        return [_grid(self.searches), _grid(best[ordered], self.hyperparameters)]

    def markdown(self, top: int) -> list[str]:
        """Both tables as lines of Markdown."""
        searches, trials = _grid(self.searches), _grid(self.best(top), self.hyperparameters)
        return [*searches.markdown(), "", *trials.markdown()]

    def best(self, top: int) -> pd.DataFrame:
        """The best `top` trials; 0: all."""
        return self.trials.head(top) if top else self.trials


def compare_searches(
    store: Store, task: str | None = None, names: Collection[str] = (), elsewhere: Iterable[SearchTable] = ()
) -> list[Comparison]:
    """Compares the searches of a store, from their journals.

    The newest search of a task is the reference. Searches with other data or another objective cannot be ranked with
    it: `Comparison.left_out` names them.

    Args:
        task: only searches of this task; None: a comparison for each task.
        names: only these searches. The last name is then the reference.
        elsewhere: searches of a tracking server. A search that the store has too is read from the store.

    Raises:
        InputError: there is no search, or no search has a name of `names`.
    """
    tables = [*read_tables(store, task)]
    ids = {table.id for table in tables}
    tables += [table for table in elsewhere if table.id not in ids and task in (None, table.task)]
    if not tables and task:
        raise InputError(f"{task}: no search of this task in {store.shown}; there is one after `search run {task}`")
    if not tables:
        raise InputError(f"{store.shown}: no search in this store; there is one after `search run TASK`")
    by_name = {table.name: table for table in tables}
    if unknown := [name for name in names if name not in by_name]:
        of = f" of {task}" if task else ""
        raise InputError(f"--search {unknown[0]}: no such search{of}; there are {', '.join(by_name)}")
    if names:
        tables = [by_name[name] for name in dict.fromkeys(names)]
    tasks = dict.fromkeys(table.task for table in tables)
    return [_compare_task([table for table in tables if table.task == name], bool(names)) for name in tasks]


def read_tables(store: Store, task: str | None = None) -> Iterable[SearchTable]:
    """Reads the searches of a store from their journals. A warning in the log names each damaged search."""
    for name, record in store.records():
        if task not in (None, record.task):
            continue
        try:
            folder, record, config = open_search(store, name)
            state, _ = replay(folder)
        except InputError as error:
            pass_over(error)
            continue
        objectives = tuple(config.objectives) or (state.objective,)
        test = (state.final.test if state.final else None) or {}
        yield SearchTable(
            record.id or name, name, config.task, record.created, record.fingerprint, objectives,
            f"{config.search.searcher} + {config.search.scheduler}",
            test.get(state.objective.metric, math.nan),
            trials_frame(
                state, objectives=objectives, resources=config.resources, unit=config.search.unit,
                limited=bool(config.search.limits),
            ),
            config.search.unit,
            {name: redacted(str(value)) for name, value in config.by_name.items() if value is not None},
        )  # fmt: skip


def _compare_task(tables: Sequence[SearchTable], last_is_reference: bool) -> Comparison:
    """Compares the searches of one task with the last or the newest search."""
    reference = tables[-1] if last_is_reference else max(tables, key=lambda table: table.created)
    objective = reference.objectives[0]
    same, other_data, other_objective = [], [], []
    for table in tables:
        if table.fingerprint != reference.fingerprint:
            other_data.append(f"{table.name} ({table.fingerprint[:8]})")
        elif _goal(table.objectives[0]) != _goal(objective):
            other_objective.append(f"{table.name} ({_goal(table.objectives[0])})")
        else:
            same.append(table)
    left_out = []
    if other_data:
        text = f"not compared, as their data is other than {reference.name}'s ({reference.fingerprint[:8]}): "
        left_out.append(text + ", ".join(other_data))
    if other_objective:
        text = f"not compared, as their objective is other than {reference.name}'s ({_goal(objective)}): "
        left_out.append(text + ", ".join(other_objective))
    trials, hyperparameters = rank_trials(same, reference.objectives)
    searches = _searches_frame(same, trials, objective)
    return Comparison(reference.task, objective, searches, trials, tuple(left_out), tuple(hyperparameters))


def _goal(objective: Objective) -> str:
    return f"{objective.metric} {objective.mode}"


def rank_trials(tables: Sequence[SearchTable], objectives: Sequence[Objective]) -> tuple[pd.DataFrame, list[str]]:
    """All trials of these searches, the best first: `Comparison.trials`, and the columns of its hyperparameters."""
    metrics = [objectives[0].key, *(objective.metric for objective in objectives[1:])]
    units = dict.fromkeys(table.unit.name for table in tables)
    best = [f"best_{unit}" for unit in units]
    measured = {"search", "trial", "outcome", *best, *(f"{unit}s" for unit in units), "behind", "front"}
    measured |= {"seconds", "cost", "feasible"}
    frames = [table.trials.reset_index().assign(search=table.name) for table in tables]
    frame = pd.concat(frames, ignore_index=True)
    ranked = ~frame["outcome"].isin(("diverged", "infeasible"))  # as `Trial.can_win`
    if "feasible" in frame:  # a search without limits lacks it
        ranked &= frame["feasible"].ne(False)
    ranked &= frame[best].gt(0).any(axis=1)
    for name in [*metrics, *best]:
        frame[name] = frame[name].where(ranked) if name in frame else math.nan
    counts = [*best, *(f"{unit}s" for unit in units)]
    frame[counts] = frame[counts].astype("Int64")
    losses = pd.DataFrame({
        name: frame[name] * (1 if objective.mode == "min" else -1)
        for name, objective in zip(metrics, objectives, strict=True)
    })  # fmt: skip
    frame["behind"] = losses.iloc[:, 0] - losses.iloc[:, 0].min()
    own = ["search", "trial", "outcome", *(["feasible"] if "feasible" in frame else []), metrics[0], "behind"]
    if len(objectives) > 1:
        complete = losses.dropna()
        frame["front"] = frame.index.isin(complete.index[nondominated(complete.to_numpy())])
        own += ["front", *metrics[1:]]
    own += [*counts, "seconds"]
    if frame.get("cost", pd.Series(dtype=float)).gt(0).any():  # else the searches have no prices
        own.append("cost")
    measured |= {*metrics, *(objective.metric for table in tables for objective in table.objectives[1:])}
    hyperparameters = [str(name) for name in frame.columns if name not in measured]
    varied = [name for name in hyperparameters if frame[name].map(repr).nunique() > 1]
    order = frame.assign(_loss=losses.iloc[:, 0]).sort_values(["_loss", "search", "trial"], kind="stable").index
    return frame.loc[order, [*own, *varied]].reset_index(drop=True), varied


def _searches_frame(tables: Sequence[SearchTable], trials: pd.DataFrame, objective: Objective) -> pd.DataFrame:
    """A row for each search, the one with the best trial first; see `Comparison.searches`."""
    by_name, rows = {table.name: table for table in tables}, []
    units = dict.fromkeys(f"{table.unit.name}s" for table in tables)
    names = dict.fromkeys(name for table in tables for name in table.settings if name not in OWN)
    varying = [name for name in names if len({table.settings.get(name) for table in tables}) > 1]
    tested = not all(math.isnan(table.test) for table in tables)  # a function has no test figure
    for name, group in trials.groupby("search", sort=False):
        table = by_name[str(name)]
        # A failed trial with a result counts by its result.
        lost = group["outcome"].isin(LOST) & group[objective.key].isna()
        rows.append(
            {
                "search": name,
                f"best {objective.key}": group[objective.key].iloc[0],
                **({objective.test_key: table.test} if tested else {}),
                "searcher": table.algorithms,
                **{name: table.settings.get(name, "") for name in varying},
                "trials": tally(group["outcome"]),
                **{name: group[name].sum(min_count=1) for name in units},
                "seconds": group["seconds"].sum(),
                "seconds of failed trials": group.loc[lost, "seconds"].sum(),
                "seconds of stopped trials": group.loc[group["outcome"] == "stopped_early", "seconds"].sum(),
                **({"cost": group["cost"].sum()} if "cost" in group else {}),
            }
        )
    return pd.DataFrame(rows)


def comparisons_as_csv(comparisons: Sequence[Comparison], top: int) -> str:
    """The best `top` trials of each task (0: all) as CSV. Several tasks have a column `task`."""
    return str(_records(comparisons, top).to_csv(index=False))


def comparisons_as_json(comparisons: Sequence[Comparison], top: int) -> str:
    """The rows of `comparisons_as_csv` as a JSON list with an object for each trial."""
    compact = _records(comparisons, top).to_json(orient="records", double_precision=15)
    return json.dumps(json.loads(compact), indent=2) + "\n"


def _records(comparisons: Sequence[Comparison], top: int) -> pd.DataFrame:
    frames = [comparison.best(top).copy() for comparison in comparisons]
    if len(frames) == 1:
        return frames[0]
    for frame, comparison in zip(frames, comparisons, strict=True):
        frame.insert(0, "task", comparison.task)
    return pd.concat(frames, ignore_index=True)


def differing(grid: Grid) -> tuple[Grid, list[str]]:
    """The columns whose cells differ, with those of `NAMES`; and `HEADING VALUE` of each other column that has a value.

    A table of one row stays as it is.
    """
    kept, same = [], []
    for place, head in enumerate(grid.heads):
        cells = {row[place] for row in grid.rows}
        if len(cells) > 1 or len(grid.rows) == 1 or head in NAMES:
            kept.append(place)
        elif cells and (text := cells.pop()):
            same.append(f"{head} {text}")
    return Grid([grid.heads[place] for place in kept], [[row[place] for place in kept] for row in grid.rows]), same


def _grid(frame: pd.DataFrame, exact: Collection[str] = ()) -> Grid:
    """The texts of a table. Numbers have four significant digits, except in the columns `exact` (hyperparameters)."""

    def text(name: str, cell: object) -> str:
        if pd.isna(cell):
            return ""
        return figure(cell) if isinstance(cell, float) and name not in exact else value(cell)

    columns = [[text(str(name), cell) for cell in cells] for name, cells in frame.items()]
    return Grid([visible(str(name)) for name in frame.columns], list(zip(*columns, strict=True)))
