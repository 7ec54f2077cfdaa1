"""Arguments and flags that several commands share, with their completion in the shell."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from search.core.registry import SCHEDULERS, SEARCHERS

Searcher = StrEnum("Searcher", {name: name for name in SEARCHERS.names()})  # type: ignore[misc]
Scheduler = StrEnum("Scheduler", {name: name for name in SCHEDULERS.names()})  # type: ignore[misc]
Format = StrEnum("Format", "table csv json md")
PredictionFormat = StrEnum("PredictionFormat", "table csv json")


def _task_names() -> list[str]:
    from trainables import task_names

    return task_names()


def _search_names() -> list[str]:
    from search.core.store import Store

    return Store.open(None).names()


AddressOption = Annotated[
    str | None, typer.Option(metavar="ADDR", help="A Ray cluster: auto, HOST:PORT. [default: start one here]")
]
AgainOption = Annotated[
    str | None, typer.Option(metavar="ADDR", help="Another Ray cluster than before; `local` starts one here.")
]
TaskArgument = Annotated[
    str, typer.Argument(metavar="TASK", help="A task that `list` shows.", autocompletion=_task_names)
]
#: Of `run`, where a command takes the place of a task.
TaskOrNothing = Annotated[
    str | None, typer.Argument(metavar="[TASK]", help="A task that `list` shows.", autocompletion=_task_names)
]
CommandOption = Annotated[
    str | None,
    typer.Option("--command", metavar="CMD", help="Instead of a task: `python train.py --lr {lr} --epochs {epochs}`."),
]
SpaceOption = Annotated[Path | None, typer.Option(metavar="FILE", help="With --command: its space, in YAML.")]
ObjectiveOption = Annotated[
    str | None, typer.Option(metavar="GOAL", help="With --command: what counts, such as `val_loss min`.")
]
PatternOption = Annotated[
    str | None, typer.Option(metavar="REGEX", help="With --command: what a line with metrics looks like.")
]
DataOption = Annotated[str | None, typer.Option(metavar="PATH|URI", help="Your data; without it, the task's demo.")]
DataAgainOption = Annotated[
    str | None,
    typer.Option("--data", metavar="URI", help="The same data, where its address has a secret, which is not kept."),
]
NewNameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Name of the search. [default: task and time]")
]
GpusOption = Annotated[str | None, typer.Option(metavar="X", help="GPUs a trial; fractions share one; auto: measured.")]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the YAML; `lr=0.01` fixes lr.")
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="NAME", help="Begin with what that search found out; auto: with the winners of all."
    ),
]
AuditOption = Annotated[
    int | None, typer.Option(metavar="K", help="Train K stopped trials to the end: what did stopping cost?")
]
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of a search.", autocompletion=_search_names)
]
StoreOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where results are kept. [default: $SEARCH_STORE, else mlruns]")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="In a pipe or log, print a line an epoch.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
