"""The commands that read searches of other tools and write them for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli import options as given
from search.cli.finish import command

if TYPE_CHECKING:
    from rich.console import Console

    from search.core.store import Store
    from search.exchange.imported import Imported

import_ = typer.Typer(
    help="Import a search of Optuna or Ray Tune, so that `run --from NAME` can begin with its results.",
    no_args_is_help=True,
)
UrlArgument = Annotated[
    str, typer.Argument(metavar="URL", help="Address of an Optuna storage. Example: sqlite:///study.db")
]


@import_.command()
def optuna(
    url: UrlArgument,
    study: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default="the only study", help="Import this study. Example: digits"),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="the name in the study, else value",
            help="Name the objective. Example: val_loss",
        ),
    ] = None,
    name: given.NewNameOption = None,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Import a study of Optuna: search space, trials, intermediate values."""
    with command(store, debug) as (console, opened):
        from search.exchange.studies import read_study

        _keep(console, opened, name, read_study(url, study, metric))


@import_.command()
def ray(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Folder of an experiment, with a folder for each trial. Example: ~/ray_results/digits",
        ),
    ],
    objective: Annotated[
        str,
        typer.Option(
            metavar="GOAL", help="Metric that the search optimizes, and its direction. Example: 'val_loss min'"
        ),
    ],
    name: given.NewNameOption = None,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Import an experiment of Ray Tune from its folder of results."""
    with command(store, debug) as (console, opened):
        from search.core.config import parse_objective
        from search.exchange.ray_results import read_experiment

        goal = parse_objective(objective, "--objective")
        _keep(console, opened, name, read_experiment(folder, goal.metric, goal.mode))


def _keep(console: Console, store: Store, name: str | None, imported: Imported) -> None:
    """Writes an imported search into the store, and prints how to begin a search with its results."""
    from search.core.readable import figure
    from search.core.redaction import redacted
    from search.exchange.imported import keep_imported, space_file
    from search.live.screen import say
    from search.reports.summary import tally

    def show(line: str) -> None:
        say(console, redacted(line))

    name, state = keep_imported(store, name, imported, show)
    outcomes = tally(trial.outcome for trial in state.trials.values())
    show(f"search {name}: {imported.name} of {imported.source}; {outcomes}")
    for note in imported.notes:
        show(f"note: {note}")
    if (best := state.best()) is not None:
        show(f"best: trial {best.number}, {imported.metric} {figure(best.best_value)} at epoch {best.best_epoch}")
    show("begin a search with its results:")
    goal = f"'{imported.metric} {imported.mode}'"
    show(f"  python -m search run --command CMD --space {space_file(store, name)} --objective {goal} --from {name}")
    show(f"  search.run(train, space, objective={goal}, start_from={name!r})")


def export(
    name: given.NameArgument,
    optuna: Annotated[
        str, typer.Option(metavar="URL", help="Address of the Optuna storage to write to. Example: sqlite:///out.db")
    ],
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Export a search as a study of Optuna, for optuna-dashboard and Optuna's analyses."""
    with command(store, debug) as (console, opened):
        from search.core.redaction import redacted
        from search.core.replay import open_search, replay
        from search.exchange.studies import write_study
        from search.live.screen import say

        folder, _, config = open_search(opened, name)
        state, events = replay(folder)
        for line in write_study(config, state, folder.name, optuna, events):
            say(console, redacted(line))
