"""The commands that read searches of other tools and write them for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli import options as given
from search.cli.finish import finish

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
        str | None, typer.Option(metavar="NAME", show_default="the only study", help="Import this study.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="the name in the study, else value",
            help="Call the objective so. Example: val_loss",
        ),
    ] = None,
    name: given.NewNameOption = None,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Import a study of Optuna: search space, trials, intermediate values."""

    def command(console: Console, kept: Store) -> int:
        from search.exchange.studies import read_study

        return _keep(console, kept, name, read_study(url, study, metric))

    finish(command, store, debug)


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

    def command(console: Console, kept: Store) -> int:
        from search.core.config import parse_objective
        from search.exchange.ray_results import read_experiment

        wanted = parse_objective(objective, "--objective")
        return _keep(console, kept, name, read_experiment(folder, wanted.metric, wanted.mode))

    finish(command, store, debug)


def _keep(console: Console, store: Store, name: str | None, imported: Imported) -> int:
    """Keeps an imported search and says how to go on from it; returns the exit code."""
    from search.core.readable import figure
    from search.core.redaction import redacted
    from search.exchange.imported import keep_imported, space_file
    from search.reports.summary import tally

    def say(line: str) -> None:
        console.print(redacted(line), markup=False, soft_wrap=True)

    name, state = keep_imported(store, name, imported, say)
    outcomes = tally(trial.outcome for trial in state.trials.values())
    say(f"search {name}: {imported.name} of {imported.source}; {outcomes}")
    for note in imported.notes:
        say(f"note: {note}")
    if (best := state.best()) is not None:
        say(f"best: trial {best.number}, {imported.metric} {figure(best.best_value)} at epoch {best.best_epoch}")
    say("begin with what it found out:")
    goal = f"'{imported.metric} {imported.mode}'"
    say(f"  python -m search run --command CMD --space {space_file(store, name)} --objective {goal} --from {name}")
    say(f"  search.run(train, space, objective={goal}, start_from={name!r})")
    return 0


def export(
    name: given.NameArgument,
    optuna: Annotated[
        str, typer.Option(metavar="URL", help="Address of the Optuna storage to write to. Example: sqlite:///out.db")
    ],
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Export a search as a study of Optuna, for optuna-dashboard and Optuna's analyses."""

    def command(console: Console, kept: Store) -> int:
        from search.core.redaction import redacted
        from search.core.replay import open_search, replay
        from search.exchange.studies import write_study

        folder, _, config = open_search(kept, name)
        state, events = replay(folder)
        for line in write_study(config, state, folder.name, optuna, events):
            console.print(redacted(line), markup=False, soft_wrap=True)
        return 0

    finish(command, store, debug)
