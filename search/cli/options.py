"""Arguments and options of the commands, with their help texts, panels and completion in the shell.

The help text of an option that sets a setting comes from search/core/settings.py, through the generated module
`help_texts.py`. A default is the argument `show_default`: rich removes `[default: ...]` from a help text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from search.cli.help_texts import DEFAULT, HELP

Format = Literal["table", "csv", "json", "md"]
PredictionFormat = Literal["table", "csv", "json"]


# These functions complete a word in the shell. Each imports what it needs, so that `--help` does not.


def _searchers() -> list[str]:
    from search.core.registry import SEARCHERS

    return SEARCHERS.names()


def _schedulers() -> list[str]:
    from search.core.registry import SCHEDULERS

    return SCHEDULERS.names()


def _writers() -> list[str]:
    from search.core.registry import WRITERS

    return WRITERS.names()


def _task_names() -> list[str]:
    from trainables import task_names

    return task_names()


def _search_names() -> list[str]:
    from search.core.store import Store

    return Store.open(None).names()


def _setting(flag: str, panel: str, metavar: str | None = None, **more: Any) -> Any:
    """An option that sets a setting; `DEFAULT` is what a search has without it."""
    return typer.Option(
        flag, metavar=metavar, help=HELP[flag], show_default=DEFAULT[flag], rich_help_panel=panel, **more
    )


# Arguments

TaskArgument = Annotated[
    str,
    typer.Argument(metavar="TASK", help="Name of a task; `list` shows all.", autocompletion=_task_names),
]
#: The argument of `run`, which takes a task or `--command`.
TaskOrNothing = Annotated[
    str | None,
    typer.Argument(
        metavar="TASK", help="Name of a task; `list` shows all. Leave it out with --command.",
        autocompletion=_task_names,
    ),
]  # fmt: skip
NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of a search, as `run` printed it.", autocompletion=_search_names),
]

# Data

DataOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATH|URI", rich_help_panel="Data", show_default="the task's demo, with smaller settings",
        help="Read your data from a file, folder, zip, s3://... or hf:NAME (a data set of the Hugging Face hub). "
        "Example: photos/",
    ),
]  # fmt: skip
DataAgainOption = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="URI", rich_help_panel="Data", show_default="where the search read it",
        help="New path or URI of the same data. Needed if the data moved, or if the URI contains a password or token, "
        "which are not stored.",
    ),
]  # fmt: skip

# Your own script

CommandOption = Annotated[
    str | None,
    typer.Option(
        "--command", metavar="CMD", rich_help_panel="Your own script",
        help="Run this command for each trial, instead of a task. Words in braces are replaced: a "
        "hyperparameter by its value, {epochs} or {steps} by the length of the trial. Needs --space and --objective. "
        "Example: 'python train.py --lr {lr} --epochs {epochs}'",
    ),
]  # fmt: skip
SpaceOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", rich_help_panel="Your own script",
        help="Read the search space of --command from this YAML file. Example: space.yaml",
    ),
]  # fmt: skip
ObjectiveOption = Annotated[
    str | None,
    typer.Option(
        metavar="GOAL", rich_help_panel="Your own script",
        help="Optimize this metric of --command; min or max says which values are better. Example: 'val_loss min'",
    ),
]  # fmt: skip
PatternOption = Annotated[
    list[str],
    typer.Option(
        metavar="REGEX", rich_help_panel="Your own script",
        show_default='lines such as @search {"epoch": 3, "val_loss": 0.41}',
        help="Read metrics from the output lines of --command that match this regular expression; may be given several "
        "times. A named group gives a metric. "
        r"Example: 'epoch (?P<epoch>\d+) loss (?P<val_loss>\S+)'",
    ),
]  # fmt: skip
ReportAtOption = Annotated[
    str | None,
    typer.Option(
        metavar="METRIC", rich_help_panel="Your own script", show_default="the metric of --objective",
        help="The metric that --command prints last in each epoch. Needed if it prints the objective in an earlier "
        "line of the epoch. Example: valid_accuracy",
    ),
]  # fmt: skip
TemplateOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", rich_help_panel="Your own script",
        help="Fill each trial's hyperparameters into a copy of this config file, in place of names in doubled braces: "
        "`lr: {{lr}}`. {template} in --command is the path of the copy. Example: config.yaml",
    ),
]  # fmt: skip
ShellOption = Annotated[
    bool,
    typer.Option(
        "--shell", rich_help_panel="Your own script", show_default=False,
        help="Let a shell run --command, for pipes, `cd`, `&&` and $HOME. Without it no shell runs, and "
        "characters such as ; and | reach the program as they are.",
    ),
]  # fmt: skip

FinalOption = Annotated[
    str | None,
    typer.Option(
        "--final", metavar="CMD", rich_help_panel="Your own script",
        help="Command that trains, tests and saves the final model. It runs once, after the trials of --command. "
        "{epochs} is the best number of epochs. The last value that it prints of each metric is the test figure. The "
        "files that it writes into {folder} are the model. "
        "Example: 'python train.py --lr {lr} --epochs {epochs} --train-on all --test'",
    ),
]  # fmt: skip

# Search

TrialsOption = Annotated[int | None, _setting("--trials", "Search", "N")]
SearcherOption = Annotated[str | None, _setting("--searcher", "Search", "NAME", autocompletion=_searchers)]
SeedOption = Annotated[int | None, _setting("--seed", "Search", "N")]
DeterministicOption = Annotated[bool, _setting("--deterministic", "Search")]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", rich_help_panel="Search", show_default=False,
        help="Change a setting, or a hyperparameter of the search space. May be given several times. --dry-run shows "
        "the result. An unknown key is an error. "
        "`search.grace_period=3` changes a setting of configs/defaults.yaml or of the task's YAML. `lr=0.01` fixes the "
        "hyperparameter lr at 0.01. `'lr={loguniform: [1e-4, 1e-2]}'` searches lr in this range.",
    ),
]  # fmt: skip
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="NAME", rich_help_panel="Search", show_default="no earlier results",
        help="Start from the results of the search NAME: give its trials to the searcher, and try its best "
        "configuration first. auto: try the best configurations of all earlier searches of the task first, without "
        "giving their trials to the searcher. "
        "Example: first",
    ),
]  # fmt: skip

# Length of a trial

EpochsOption = Annotated[int | None, _setting("--epochs", "Length of a trial", "N")]
StepsOption = Annotated[
    int | None,
    typer.Option(
        "--steps", metavar="N", rich_help_panel="Length of a trial", show_default="count in epochs",
        help="Largest number of steps of a trial of --command, in place of --epochs. Needs --report-every. "
        "Example: 2000",
    ),
]  # fmt: skip
ReportEveryOption = Annotated[int | None, _setting("--report-every", "Length of a trial", "N")]

# Early stopping, budget, resources

SchedulerOption = Annotated[str | None, _setting("--scheduler", "Early stopping", "NAME", autocompletion=_schedulers)]
AuditOption = Annotated[int | None, _setting("--audit-stopping", "Early stopping", "K")]
TimeBudgetOption = Annotated[str | None, _setting("--time-budget", "Budget", "TIME")]
TargetOption = Annotated[float | None, _setting("--target", "Budget", "X")]
CostBudgetOption = Annotated[float | None, _setting("--cost-budget", "Budget", "X")]
WorthOption = Annotated[float | None, _setting("--worth", "Budget", "X")]
ConcurrencyOption = Annotated[int | None, _setting("--concurrency", "Resources", "N")]
CpusOption = Annotated[float | None, _setting("--cpus", "Resources", "X")]
GpusOption = Annotated[str | None, _setting("--gpus", "Resources", "X")]
AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDR", rich_help_panel="Resources", show_default="start Ray on this machine",
        help="Run the trials on this Ray cluster: HOST:PORT, or auto for a cluster that runs on this machine. "
        "Example: head:6379",
    ),
]  # fmt: skip
AgainOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDR", rich_help_panel="Resources", show_default="the cluster of the search",
        help="Run on this Ray cluster: HOST:PORT or auto. local: start Ray on this machine. Example: head:6379",
    ),
]  # fmt: skip

# Notifications

NotifyOption = Annotated[list[str], _setting("--notify", "Notifications", "URL")]
OnEndOption = Annotated[str | None, _setting("--on-end", "Notifications", "CMD")]
LogToOption = Annotated[list[str], _setting("--log-to", "Notifications", "TOOL", autocompletion=_writers)]
NotifyAgainOption = Annotated[
    list[str],
    typer.Option(
        "--notify", metavar="URL", rich_help_panel="Notifications", show_default="the addresses that are stored",
        help="Address in place of the stored ones, as of `run --notify`. Needed if an address has a path, which is not "
        "stored; an address env:NAME is. May be given several times. Example: env:SLACK_WEBHOOK",
    ),
]  # fmt: skip

# Output

NewNameOption = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="NAME", rich_help_panel="Output", show_default="task and time",
        help="Name the search. Other commands take this name, such as `resume NAME`. Example: first",
    ),
]  # fmt: skip
StorageOption = Annotated[str | None, _setting("--storage", "Output", "URI")]
RetrainOption = Annotated[
    bool,
    typer.Option(
        "--retrain/--no-retrain", rich_help_panel="Output",
        help="After the trials, train the best configuration on train and validation together, test it and register "
        "the model.",
    ),
]  # fmt: skip
StoreOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", rich_help_panel="Output", show_default="$SEARCH_STORE, else mlruns",
        help="Folder of all searches and of MLflow's data. Example: results/",
    ),
]  # fmt: skip
WatchOption = Annotated[
    bool,
    typer.Option(
        "--watch", rich_help_panel="Output", show_default=False,
        help="Serve the page of the search on 127.0.0.1 while it runs, from a process of its own. `watch NAME` does "
        "the same from another terminal.",
    ),
]  # fmt: skip
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", rich_help_panel="Output", show_default=False,
        help="In a pipe or log file, print a line for each epoch too. In a terminal, the table shows the epochs.",
    ),
]  # fmt: skip
DebugOption = Annotated[
    bool,
    typer.Option(
        "--debug", rich_help_panel="Output", show_default=False, help="Print the Python traceback of an error."
    ),
]

# Preview

DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", rich_help_panel="Preview", show_default=False,
        help="Print the merged configuration and five sampled configurations, then exit. Nothing is trained.",
    ),
]  # fmt: skip
PlanOption = Annotated[
    bool,
    typer.Option(
        "--plan", rich_help_panel="Preview", show_default=False,
        help="Train a few configurations for two epochs, print a forecast of epochs, hours and disk space, then exit.",
    ),
]  # fmt: skip

# Options of `resume`

MoreTrialsOption = Annotated[
    str | None,
    typer.Option(
        metavar="N|+N", rich_help_panel="Budget", show_default="the total that it has",
        help="Give the search more trials. 50: 50 in total, including those that ran. +20: 20 more than the total that "
        "it has, so a search of 20 trials that was interrupted at 12 gets 40. "
        "A search that has only a time budget continues with --time-budget instead.",
    ),
]  # fmt: skip
MoreEpochsOption = Annotated[
    str | None,
    typer.Option(
        metavar="N|+N", rich_help_panel="Budget", show_default="no more epochs",
        help="Give each trial more epochs. 60: 60 in total. +10: 10 more. Trials that reached the old number continue "
        "to the new one. Trials that were stopped early stay stopped.",
    ),
]  # fmt: skip
MoreStepsOption = Annotated[
    str | None,
    typer.Option(
        "--steps", metavar="N|+N", rich_help_panel="Budget", show_default="no more steps",
        help="Give each trial more steps, in a search that counts in steps. 3000: 3000 in total. +500: 500 more.",
    ),
]  # fmt: skip
MoreTimeOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", rich_help_panel="Budget", show_default="the time budget of `run`, in full again",
        help="Wall-clock time of this command. Example: 30m",
    ),
]  # fmt: skip
MoreAuditsOption = Annotated[
    str | None,
    typer.Option(
        metavar="K|+K", rich_help_panel="Early stopping", show_default="no more audits",
        help="Train stopped trials to the end, to measure what early stopping cost. 5: 5 in total, including those "
        "of earlier commands. +5: 5 more.",
    ),
]  # fmt: skip

# Options of `retrain`

FinalistsOption = Annotated[
    int,
    typer.Option(
        metavar="K", min=1,
        help="Train the K best configurations and compare them on test data, to see whether the best one is better "
        "than chance. Example: 3",
    ),
]  # fmt: skip
SeedsOption = Annotated[
    int | None,
    typer.Option(
        metavar="S", min=1, show_default="5 for several finalists, else 1",
        help="Train each configuration with S seeds. Example: 3",
    ),
]  # fmt: skip

# Options of `simulate`

SimulatedScheduler = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", show_default="the scheduler of the search", autocompletion=_schedulers,
        help="Stop trials by this scheduler. Example: asha",
    ),
]  # fmt: skip
SimulatedConcurrency = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, show_default="that of the search", help="Run this many trials at the same time. Example: 8"
    ),
]  # fmt: skip
SimulatedEpochs = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, show_default="those of the search",
        help="Train trials for at most this many epochs. Example: 20",
    ),
]  # fmt: skip
SimulatedSet = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", show_default=False,
        help="Change another setting of the search. Example: search.reduction_factor=4",
    ),
]  # fmt: skip
