"""The commands that look at data and at searches, and start nothing."""

from __future__ import annotations

import sys
import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli import options as given
from search.cli.finish import finish

if TYPE_CHECKING:
    from rich.console import Console

    from search.core.store import Store


def data(
    task: given.TaskArgument,
    data: given.DataOption = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    set_: given.SetOption = [],  # noqa: B006 - typer copies it
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Write an HTML page about a data set: splits, classes, lengths, samples that splits share, doubtful labels."""

    def command(console: Console, kept: Store) -> int:
        from search.core.config import load_config
        from search.live.observer import ConsoleObserver
        from search.preparation import read_data
        from search.reports.data import write_data_page
        from search.runs import check_task_name
        from trainables import get_task

        check_task_name(task)
        kept.check()
        config = load_config(task, set_, {}, "demo" if data is None else "data")
        splits = read_data(ConsoleObserver(console), kept, config, get_task(task), data)
        page = write_data_page(kept, config, splits)
        for line in page.lines:
            console.print(line, markup=False, soft_wrap=True)
        if open_:
            webbrowser.open(page.path.as_uri())
        return 0

    finish(command, store, debug)


def ui(
    port: Annotated[int, typer.Option(metavar="N", help="Serve on this port of 127.0.0.1.")] = 5000,
    open_: Annotated[bool, typer.Option("--open", help="Open the newest search in the browser.")] = False,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Start the web page of MLflow on the store, on 127.0.0.1 only."""
    from search.cli import commands

    finish(lambda console, kept: commands.ui(console, kept, port, open_), store, debug)


def report(
    name: given.NameArgument,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Write an HTML page about a search: curves, hyperparameters, early stopping, costs, model. MLflow gets a copy."""

    def command(console: Console, kept: Store) -> int:
        from search import runs

        path = runs.report(kept, name)
        console.print(f"report: {path}", markup=False, soft_wrap=True)
        if open_:
            webbrowser.open(path.as_uri())
        if not kept.is_writable:
            console.print(f"{kept.root} can only be read: the report is here, and not in MLflow", markup=False)
        return 0

    finish(command, store, debug)


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
    ] = given.Format.table,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Compare the searches of a task, and list their best trials."""

    def command(console: Console, kept: Store) -> int:
        from search.live.screen import show_columns
        from search.reports.compare import compare_searches, comparisons_as_csv, comparisons_as_json
        from search.runs import check_task_name
        from search.tracking.results import searches_of_server

        def warn(line: str) -> None:
            print(line, file=sys.stderr)

        if task is not None:
            check_task_name(task, kept)
        comparisons = compare_searches(kept, task, search, searches_of_server(kept, task, warn))
        if form.value == "csv":
            sys.stdout.write(comparisons_as_csv(comparisons, top))
        elif form.value == "json":
            sys.stdout.write(comparisons_as_json(comparisons, top))
        elif form.value == "md":
            pages = [[f"# {one.task}", ""] * (len(comparisons) > 1) + one.markdown(top) for one in comparisons]
            sys.stdout.write("\n\n".join("\n".join(page) for page in pages) + "\n")
        else:
            for one in comparisons:
                if len(comparisons) > 1:
                    console.print(f"task {one.task}", markup=False)
                for grid in one.grids(top):
                    show_columns(console, grid)
                if top and top < len(one.trials):
                    console.print(f"{top} of {len(one.trials)} trials; --top 0 shows all", markup=False)
        for line in (line for one in comparisons for line in one.left_out):
            warn(line)
        return 0

    finish(command, store, debug)


def why(
    name: given.NameArgument,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="Number of a trial. Example: 7")],
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Explain each decision on a trial: why it was proposed, continued, stopped or won, with the figures."""

    def command(console: Console, kept: Store) -> int:
        from search.reports.why import why as explain

        for line in explain(kept, name, trial):
            console.print(line, markup=False, soft_wrap=True)
        return 0

    finish(command, store, debug)
