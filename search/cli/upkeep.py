"""The commands that list, delete and rename searches, and free disk space."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from math import isnan
from typing import Annotated, Any, Literal

import typer

from search.cli import options as given
from search.cli.finish import command

ListFormat = Annotated[
    Literal["table", "csv", "json"],
    typer.Option("--format", metavar="FORMAT", help="Print as table, csv or json.", rich_help_panel="Output"),
]
YesOption = Annotated[
    bool,
    typer.Option("--yes", help="Delete without a question.", show_default=False, rich_help_panel="Safety"),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print what would be deleted, and delete nothing.", show_default=False,
        rich_help_panel="Safety",
    ),
]  # fmt: skip


def ls(form: ListFormat = "table", store: given.StoreOption = None, debug: given.DebugOption = False) -> None:
    """List the searches of the store: task, status, trials, best value, test figure, age and size."""
    with command(store, debug) as (console, opened):
        from search.core.readable import Grid, age, figure, size
        from search.housekeeping.listing import list_searches
        from search.live.screen import say, show_columns

        found = list_searches(opened)
        if form != "table":
            _print_rows([asdict(one) for one in found], form)
            return
        now = time.time()
        rows = [
            [
                one.name, one.status, str(one.trials), "-" if isnan(one.best) else f"{one.metric} {figure(one.best)}",
                "-" if isnan(one.test) else figure(one.test), age(max(0.0, now - one.created / 1000)),
                size(one.bytes), one.task,
            ]
            for one in found
        ]  # fmt: skip
        if not found:
            say(console, f"no search in {opened.root}")
        else:
            heads = ("search", "status", "trials", "best", "test", "age", "size", "task")
            show_columns(console, _visible(Grid(heads, rows)))
        for one in found:
            if one.damage:
                say(console, f"{one.name}: {one.damage}")


def delete(
    name: given.NameArgument,
    yes: YesOption = False,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Delete a search: its folder, its runs in MLflow, and its registered models that nothing else uses."""
    with command(store, debug) as (console, opened):
        from search.core.readable import size
        from search.housekeeping.deletion import delete as delete_search
        from search.housekeeping.deletion import plan_deletion
        from search.live.screen import say
        from trainables import InputError

        planned = plan_deletion(opened, name)
        parts = [size(planned.bytes), f"{planned.runs} runs in MLflow", *planned.models]
        say(console, f"search {name}: {', '.join(parts)}")
        for line in planned.kept:
            say(console, f"kept: {line}")
        if not yes:
            if not sys.stdin.isatty():
                raise InputError(f"delete {name}: there is no terminal that could be asked; give --yes")
            if not typer.confirm(f"delete {name}?"):
                say(console, "nothing is deleted")
                return
        done = delete_search(opened, name)
        say(console, f"deleted {name}: {size(done.bytes)} are free")
        for line in done.kept:
            if line not in planned.kept:
                say(console, f"kept: {line}")


def rename(
    old: given.NameArgument,
    new: Annotated[str, typer.Argument(metavar="NEW", help="New name of the search. Example: baseline")],
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Give a search another name, in the store and in MLflow."""
    with command(store, debug) as (console, opened):
        from search.housekeeping.renaming import rename as rename_search
        from search.live.screen import say

        rename_search(opened, old, new)
        say(console, f"search {old} is {new} now")


def gc(dry_run: DryRunOption = False, store: given.StoreOption = None, debug: given.DebugOption = False) -> None:
    """Delete what no search needs: old checkpoints, caches, and what killed commands left. Running searches stay."""
    with command(store, debug) as (console, opened):
        from search.core.readable import Grid, size
        from search.housekeeping.cleaning import clean
        from search.live.screen import say, show_columns

        done = clean(opened, dry_run)
        if done.garbage:
            rows = [[one.kind, one.search or "-", size(one.bytes), one.place] for one in done.garbage]
            show_columns(console, _visible(Grid(("kind", "search", "size", "place"), rows)))
        for line in done.skipped:
            say(console, f"left alone: {line}")
        free = "would be free" if dry_run else "are free"
        say(console, f"{size(done.bytes)} {free}" if done.garbage else "there is nothing to delete")


def du(form: ListFormat = "table", store: given.StoreOption = None, debug: given.DebugOption = False) -> None:
    """Show the disk space of each search by kind of file, and of MLflow and the caches."""
    with command(store, debug) as (console, opened):
        from search.core.readable import Grid, size
        from search.housekeeping.sizes import sizes
        from search.live.screen import say, show_columns

        found = sizes(opened)
        if form != "table":
            _print_rows([asdict(one) for one in found], form)
            return
        rows = [[one.search or "-", one.kind, size(one.bytes)] for one in found]
        if rows:
            show_columns(console, _visible(Grid(("search", "kind", "size"), rows)))
        say(console, f"{size(sum(one.bytes for one in found))} in {opened.root}")


def _visible(grid: Any) -> Any:
    """The table with visible escapes in place of control characters, in each cell one line."""
    from search.core.readable import Grid, value

    return Grid(grid.heads, [[value(cell) for cell in row] for row in grid.rows])


def _print_rows(rows: Sequence[dict[str, Any]], form: str) -> None:
    """Prints rows as CSV or JSON; a missing figure is empty or null."""
    from search.core.readable import visible

    plain = [{key: None if value != value else value for key, value in row.items()} for row in rows]
    if form == "json":
        sys.stdout.write(json.dumps(plain, indent=2) + "\n")
    elif plain:
        writer = csv.DictWriter(sys.stdout, list(plain[0]), lineterminator="\n")
        writer.writeheader()
        shown = [{key: visible(v) if isinstance(v, str) else v for key, v in row.items()} for row in plain]
        writer.writerows(shown)
