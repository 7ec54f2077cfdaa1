"""The commands that look at data and at searches, and start nothing."""

from __future__ import annotations

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
        from search.cli import commands
        from search.cli.preparation import read_data
        from search.core.config import load_config
        from search.reports.data import show_data

        commands.check_name(task)
        kept.check()
        config = load_config(task, set_, {}, "demo" if data is None else "data")
        show_data(console, kept, config, read_data(console, kept, config, data), open_)
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
        from search.reports.report import report

        report(console, kept, name, open_)
        return 0

    finish(command, store, debug)


def compare(
    task: given.TaskArgument,
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
        from search.cli import commands
        from search.reports.compare import compare

        commands.check_name(task, kept)
        compare(console, kept, task, search, top, form.value)
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
