"""The commands for a running search: each sends a request, which the process that runs the search takes up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli import options as given
from search.cli.finish import command

if TYPE_CHECKING:
    from search.core.requests import Request

TrialsArgument = Annotated[
    list[int] | None, typer.Argument(metavar="[TRIAL]...", help="Numbers of trials. Example: 3 5", show_default=False)
]


def stop(
    name: given.NameArgument,
    trials: TrialsArgument = None,
    retrain: Annotated[
        bool,
        typer.Option(
            "--retrain/--no-retrain",
            help="When the search ends, train the best configuration on train and validation together, test it and "
            "register the model.",
        ),
    ] = True,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """End trials of a running search now, or without TRIAL the search after its running epochs.

    The search ends as at the end of a time budget, with the final training; with --no-retrain as after Ctrl-C.
    """

    def request() -> Request:
        from search.core.requests import StopSearch, StopTrials

        return StopTrials(tuple(trials)) if trials else StopSearch(retrain)

    _send(name, store, debug, request)


def pause(
    name: given.NameArgument,
    trials: TrialsArgument = None,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Pause trials of a running search after their epoch; without TRIAL all, and no new trial starts.

    They wait for `continue`. The time budget goes on.
    """

    def request() -> Request:
        from search.core.requests import PauseTrials

        return PauseTrials(tuple(trials or ()))

    _send(name, store, debug, request)


def continue_(
    name: given.NameArgument,
    trials: TrialsArgument = None,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Continue paused trials of a running search; without TRIAL everything that `pause` paused."""

    def request() -> Request:
        from search.core.requests import ContinueTrials

        return ContinueTrials(tuple(trials or ()))

    _send(name, store, debug, request)


def add(
    name: given.NameArgument,
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Values of hyperparameters; the search chooses the others. Example: lr=1e-3 width=64",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Read configurations from a file: a list in YAML or JSON, or the rows of a CSV."
        ),
    ] = None,
    from_trial: Annotated[
        int | None, typer.Option(metavar="TRIAL", help="Take the missing values from this trial. Example: 7")
    ] = None,
    from_checkpoint: Annotated[
        bool,
        typer.Option(
            "--from-checkpoint",
            show_default=False,
            help="Start from the latest checkpoint of --from-trial, whose network must have the same shape.",
        ),
    ] = False,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Try configurations of yours next, beside the trials that a running search has."""

    def request() -> Request:
        from search.core.configurations import configuration, read_configurations
        from search.core.requests import AddTrials, Configuration

        several = [configuration(values)] if values else []
        if file is not None:
            several += read_configurations(file)
        if (from_trial is not None or from_checkpoint) and not several:
            several = [{}]
        return AddTrials(tuple(Configuration(params, from_trial, from_checkpoint) for params in several))

    _send(name, store, debug, request)


def set_(
    name: given.NameArgument,
    settings: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE...",
            help="Settings with their new values; + adds. Example: time-budget=+1h trials=+20 "
            "space.lr='{loguniform: [1e-4, 1e-2]}'",
        ),
    ],
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Change settings of a running search: its budgets, its concurrency, ranges of its space.

    Earlier trials inside a new range still inform the searcher.
    """

    def request() -> Request:
        from search.core.configurations import settings_of
        from search.core.requests import ChangeSettings

        return ChangeSettings(settings_of(settings))

    _send(name, store, debug, request)


def _send(name: str, store: Path | None, debug: bool, request: Callable[[], Request]) -> None:
    """Sends a request and prints the answer."""
    with command(store, debug) as (console, opened):
        from search.core.requests import send
        from search.live.screen import say

        say(console, send(opened.search(name), request()).text)
