"""Prints the searches of a task side by side, and their best trials in one table."""

from __future__ import annotations

import json
import sys

import pandas as pd
from rich.console import Console
from rich.table import Table

from search.config.load import parse_objective
from search.record.store import Store
from search.tracking import results
from trainables import InputError

#: Least width of a printed table, in characters.
WIDTH = 240


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
    if form == "csv":
        shown.to_csv(sys.stdout, index=False)
    elif form == "json":
        sys.stdout.write(json.dumps(json.loads(shown.to_json(orient="records", double_precision=15)), indent=2) + "\n")
    elif form == "md":
        sys.stdout.write("\n".join([*_markdown(_overview(chosen[same], frame, metric)), "", *_markdown(shown)]) + "\n")
    else:
        wide = Console(width=max(console.width, WIDTH), highlight=False)  # a wrapped line is better than a cut number
        for part in (_overview(chosen[same], frame, metric), shown):
            wide.print(_table(part))
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
        outcomes = group["outcome"].value_counts()
        rows.append(
            {
                "search": name,
                "searcher": f"{search['tag.searcher']} + {search['tag.scheduler']}",
                "trials": ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items()),
                f"best val {metric}": group[metric].iloc[0],
                f"test {metric}": search.get(f"metric.test_{metric}", float("nan")),
                "epochs": int(group["epochs"].sum()),
                "seconds": group["seconds"].sum(),
                # spent on trials from which nothing was kept: a failed one with a result counts by it
                "lost, s": group.loc[
                    group["outcome"].isin(["diverged", "failed"]) & group[metric].isna(), "seconds"
                ].sum(),
                "stopped, s": group.loc[group["outcome"] == "stopped_early", "seconds"].sum(),
                **({"cost": group["cost"].sum()} if "cost" in group else {}),
            }
        )
    return pd.DataFrame(rows)


def _cell(value: object) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _markdown(frame: pd.DataFrame) -> list[str]:
    rows = [frame.columns, ["---"] * frame.shape[1], *frame.itertuples(index=False)]
    return ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]


def _table(frame: pd.DataFrame) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in frame.columns:
        table.add_column(
            str(name), no_wrap=True, justify="right" if pd.api.types.is_numeric_dtype(frame[name]) else "left"
        )
    for row in frame.itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    return table
