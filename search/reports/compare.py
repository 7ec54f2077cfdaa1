"""Prints the searches of a task side by side, and their best trials in one table."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Collection

import pandas as pd
from rich.console import Console

from search.core.config import parse_objective
from search.core.readable import Grid, figure, value, visible
from search.core.store import Store
from search.reports.columns import is_learning_rate
from search.reports.screen import columns_that_fit, show
from search.reports.summary import tally
from search.tracking import results
from trainables import InputError

#: Columns of the trials' table that stand after the hyperparameters on a screen, and how headings read there.
LAST = ("behind", "epochs", "seconds", "cost")
HEADINGS = {"behind": "worse by", "epoch": "best epoch", "epochs": "epochs trained"}
#: Most characters of a heading and a cell: the name of a search has that many.
WIDE = 32


def compare(console: Console, store: Store, task: str, names: list[str], top: int, form: str) -> None:
    """Prints the comparison in the format `form`; csv and json hold the trials alone.

    Searches on other data than the newest search's cannot be ranked with it; they are named with the reason.

    Raises:
        InputError: no search of the task, or none of such a name.
    """
    runs = results.read_runs(store, task)
    found = results.searches(runs)
    if not len(found):
        raise InputError(f"{task}: no search of this task in {store.shown}; there is one after `search run {task}`")
    if unknown := [name for name in names if name not in found.index]:
        raise InputError(f"--search {unknown[0]}: no such search of {task}; there are {', '.join(found.index)}")
    chosen = found.loc[names] if names else found
    newest = chosen.iloc[-1] if names else chosen.loc[chosen["tag.created"].astype(int).idxmax()]
    objectives = [parse_objective(text, "objective") for text in newest["tag.objective"].split(", ")]
    metric = objectives[0].metric
    same = chosen["tag.data.fingerprint"] == newest["tag.data.fingerprint"]
    frame = results.trials(runs, list(chosen.index[same]), objectives)
    shown = frame.head(top) if top else frame
    measured = ("search", "trial", "outcome", *(one.metric for one in objectives), "front", "epoch", *LAST)
    plain = [name for name in shown.columns if name not in measured]
    if form == "csv":
        shown.to_csv(sys.stdout, index=False)
    elif form == "json":
        sys.stdout.write(json.dumps(json.loads(shown.to_json(orient="records", double_precision=15)), indent=2) + "\n")
    elif form == "md":
        tables = (grid.markdown() for grid in (_grid(_overview(chosen[same], frame, metric)), _grid(shown, plain)))
        sys.stdout.write("\n\n".join("\n".join(table) for table in tables) + "\n")
    else:
        alone = shown["search"].nunique() == 1
        _print(console, _overview(chosen[same], frame, metric))
        _print(console, _by_weight(shown.drop(columns=["search"] if alone else [])), plain)
        if len(shown) < len(frame):
            console.print(f"{len(shown)} of {len(frame)} trials; --top 0 shows all", markup=False)
    if not same.all():
        others = ", ".join(f"{name} ({row['tag.data.fingerprint'][:8]})" for name, row in chosen[~same].iterrows())
        text = f"not compared, as their data is other than {newest.name}'s ({newest['tag.data.fingerprint'][:8]}): "
        print(text + others, file=sys.stderr)


def _overview(searches: pd.DataFrame, frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A row for each search: its trials by outcome, its best trial, its test figure and its cost."""
    rows = []
    for name, group in frame.groupby("search", sort=False):
        search = searches.loc[name]
        rows.append(
            {
                "search": name,
                "searcher": f"{search['tag.searcher']} + {search['tag.scheduler']}",
                "trials": tally(group["outcome"]),
                f"best val {metric}": group[metric].iloc[0],
                f"test {metric}": search.get(f"metric.test_{metric}", float("nan")),
                "epochs": int(group["epochs"].sum()),
                "seconds": group["seconds"].sum(),
                # Nothing was kept of these trials. A failed trial with a result counts by its result.
                "seconds of failed trials": group.loc[
                    group["outcome"].isin(["diverged", "failed"]) & group[metric].isna(), "seconds"
                ].sum(),
                "seconds of stopped trials": group.loc[group["outcome"] == "stopped_early", "seconds"].sum(),
                **({"cost": group["cost"].sum()} if "cost" in group else {}),
            }
        )
    return pd.DataFrame(rows)


def _by_weight(frame: pd.DataFrame) -> pd.DataFrame:
    """The trials with the columns that matter most first: what came out, then the hyperparameters, then the costs."""
    last = [name for name in LAST if name in frame]
    first = [name for name in frame.columns if name not in last]
    rates = [name for name in first if is_learning_rate(str(name))]
    place = first.index("epoch") + 1
    ordered = [*first[:place], *rates, *(name for name in first[place:] if name not in rates), *last]
    return frame[ordered].rename(columns=HEADINGS)


def _print(console: Console, frame: pd.DataFrame, plain: Collection[str] = ()) -> None:
    """A table of as many columns as the terminal holds; of all of them in a log."""
    grid = _grid(frame, plain)
    columns = [(head, [row[place] for row in grid.rows]) for place, head in enumerate(grid.heads)]
    lines = columns_that_fit(columns, console.width if console.is_terminal else math.inf, WIDE)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    if re.search(r"\+\d+$", lines[0]):
        show(console, "(a wider terminal shows more columns, `--format csv` all of them)")


def _grid(frame: pd.DataFrame, plain: Collection[str] = ()) -> Grid:
    """Texts of a table; in the columns `plain` stand hyperparameters, elsewhere what was measured."""

    def text(name: str, given: object) -> str:
        if pd.isna(given):
            return ""
        return figure(given) if isinstance(given, float) and name not in plain else value(given)

    columns = [[text(str(name), given) for given in cells] for name, cells in frame.items()]
    return Grid([visible(str(name)) for name in frame.columns], list(zip(*columns, strict=True)))
