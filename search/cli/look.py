"""The commands that show data and searches, and train nothing."""

from __future__ import annotations

import sys
import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli import options as given
from search.cli.finish import command

if TYPE_CHECKING:
    from rich.console import Console

    from search.core.readable import Grid


def data(
    task: given.TaskArgument,
    data: given.DataOption = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    set_: given.SetOption = [],  # noqa: B006 - typer copies it
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Write an HTML page about a data set: splits, classes, lengths, samples that splits share, doubtful labels."""
    with command(store, debug) as (console, opened):
        from search.core.config import load_config
        from search.core.task_names import check_task_name
        from search.live.observer import ConsoleObserver
        from search.live.screen import say
        from search.preparation import read_data
        from search.reports.data import write_data_page
        from trainables import get_task

        check_task_name(task)
        opened.check()
        config = load_config(task, set_, {}, "demo" if data is None else "data")
        observer = ConsoleObserver(console)
        splits = read_data(observer, opened, config, get_task(task), data)
        with observer.progress("looking for near-copies across splits"):
            page = write_data_page(opened, config, splits)
        for line in page.lines:
            say(console, line)
        if open_:
            webbrowser.open(page.path.as_uri())


def ui(
    port: Annotated[int, typer.Option(metavar="N", help="Serve on this port of 127.0.0.1.")] = 5000,
    open_: Annotated[bool, typer.Option("--open", help="Open the newest search in the browser.")] = False,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Start the web page of MLflow on the store, on 127.0.0.1 only."""
    with command(store, debug) as (console, opened):
        from search.cli import commands

        commands.ui(console, opened, port, open_)


def report(
    name: given.NameArgument,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Write an HTML page about a search: curves, hyperparameters, early stopping, costs, model. MLflow gets a copy."""
    with command(store, debug) as (console, opened):
        from search import runs
        from search.live.screen import say

        path = runs.report(opened, name)
        say(console, f"report: {path}")
        if open_:
            webbrowser.open(path.as_uri())
        if not opened.is_writable:
            say(console, f"{opened.root} can only be read: the report is here, and not in MLflow")


def watch(
    name: given.NameArgument,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Serve the page of a search on 127.0.0.1, running or finished: it shows what is new and takes requests."""
    with command(store, debug) as (console, opened):
        from search.live.screen import say
        from search.watch.process import address_of, listen, new_token
        from search.watch.server import make_server

        token = new_token()
        server, listening = make_server(opened, name, token), listen()
        say(console, f"page: {address_of(listening, token)}")
        say(console, "who has this address can change the search; Ctrl-C ends the page and not the search")
        if open_:
            webbrowser.open(address_of(listening, token))
        server.run([listening])


def compare(
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="Only searches of this task.")] = None,
    search: Annotated[
        list[str],
        typer.Option(
            "--search",
            metavar="NAME",
            show_default="all searches of the task",
            help="Show this search only; may be given several times.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    top: Annotated[int, typer.Option(metavar="N", min=0, help="Show the N best trials. 0: all trials.")] = 20,
    form: Annotated[
        given.Format, typer.Option("--format", metavar="FORMAT", help="Print as table, csv, json or md (Markdown).")
    ] = "table",
    wide: Annotated[
        bool, typer.Option("--wide", help="Show all columns: also those that do not fit, or are the same in all rows.")
    ] = False,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Compare the searches of a task, and list their best trials."""
    with command(store, debug) as (console, opened):
        from search.core.readable import visible
        from search.core.task_names import check_task_name
        from search.live.screen import say
        from search.reports.compare import compare_searches, comparisons_as_csv, comparisons_as_json
        from search.tracking.results import searches_of_server

        def warn(line: str) -> None:
            print(visible(line), file=sys.stderr)

        if task is not None:
            check_task_name(task, opened)
        comparisons = compare_searches(opened, task, search, searches_of_server(opened, task, warn))
        if form == "csv":
            table = comparisons_as_csv(comparisons, top)
            sys.stdout.write(visible(table) if console.is_terminal else table)
        elif form == "json":
            sys.stdout.write(comparisons_as_json(comparisons, top))
        elif form == "md":
            several = len(comparisons) > 1
            pages = [[f"# {comparison.task}", ""] * several + comparison.markdown(top) for comparison in comparisons]
            sys.stdout.write("\n\n".join("\n".join(page) for page in pages) + "\n")
        else:
            for comparison in comparisons:
                if len(comparisons) > 1:
                    say(console, f"task {comparison.task}")
                for grid in comparison.grids(top):
                    _show_grid(console, grid, wide or not console.is_terminal)
                if top and top < len(comparison.trials):
                    say(console, f"{top} of {len(comparison.trials)} trials; --top 0 shows all")
        for comparison in comparisons:
            for line in comparison.left_out:
                warn(line)


def _show_grid(console: Console, grid: Grid, wide: bool) -> None:
    """Prints all columns of a table, or those that differ between the rows, as many as fit the terminal."""
    from search.live.screen import show, show_columns
    from search.reports.compare import differing

    if wide:
        show_columns(console, grid, wide=True)
        return
    grid, same = differing(grid)
    show_columns(console, grid)
    if same:
        show(console, f"the same in all: {', '.join(same)}")


def logs(
    name: given.NameArgument,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="Number of a trial. Example: 7")],
    lines: Annotated[int, typer.Option(metavar="N", min=0, help="Print the last N lines. 0: all lines.")] = 50,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", show_default=False, help="Print each new line too, until the trial or the search ends."
        ),
    ] = False,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Print what a trial of your own function or script printed: its output, warnings and errors."""
    with command(store, debug) as (console, opened):
        from search.live.screen import say
        from search.reports.logs import follow_log, log_lines

        printed = False
        for line in (follow_log if follow else log_lines)(opened, name, trial, lines):
            say(console, line)
            printed = True
        if not printed:
            say(console, f"trial {trial} has printed nothing")


def why(
    name: given.NameArgument,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="Number of a trial. Example: 7")],
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Explain each decision on a trial: why it was proposed, continued, stopped or won, with the figures."""
    with command(store, debug) as (console, opened):
        from search.live.screen import say
        from search.reports.why import why as explain

        for line in explain(opened, name, trial):
            say(console, line)
