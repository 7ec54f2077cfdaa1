"""The commands with their flags. `commands.py` runs them and returns their exit codes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli import control, exchange, look, upkeep
from search.cli import options as given
from search.cli.finish import command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from search.core.config import SearchConfig
    from search.core.store import Store
    from search.programs import Program

app = typer.Typer(
    help="Search the hyperparameters of deep-learning tasks. To begin: `run windows`, or `new NAME` for your own task.",
    no_args_is_help=True, pretty_exceptions_enable=False,
)  # fmt: skip


app.add_typer(exchange.import_, name="import")
app.command("export")(exchange.export)


@app.callback()
def main_(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=lambda asked: _version(asked), help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Takes the options before a command."""


def _version(asked: bool) -> None:
    if asked:
        from search import __version__

        print(f"trial-search {__version__}")
        raise typer.Exit


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the new task and of its Python package. Example: engines")
    ],
    function: Annotated[
        str | None,
        typer.Option(
            "--from-function",
            metavar="FILE:FUNC",
            help="Make the task from this training function. Example: train.py:train",
        ),
    ] = None,
    space: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read the search space of --from-function from this YAML file.")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(metavar="GOAL", help="Optimize this metric of --from-function. Example: 'val_loss min'"),
    ] = None,
    debug: given.DebugOption = False,
) -> None:
    """Create a Python package with a task of your own. It runs at once; edit it step by step."""
    with command(None, debug) as (console, _):
        from search.cli import commands

        commands.new(console, name, function, space, objective)


@app.command("list")
def list_(debug: given.DebugOption = False) -> None:
    """List the tasks with their metric, the source of their demo data, and their search space."""
    with command(None, debug) as (console, _):
        from search.cli import commands

        commands.list_tasks(console)


@app.command()
def run(
    task: given.TaskOrNothing = None,
    data: given.DataOption = None,
    command_: given.CommandOption = None,
    space: given.SpaceOption = None,
    objective: given.ObjectiveOption = None,
    pattern: given.PatternOption = [],  # noqa: B006 - typer copies it
    report_at: given.ReportAtOption = None,
    template: given.TemplateOption = None,
    shell: given.ShellOption = False,
    final: given.FinalOption = None,
    trials: given.TrialsOption = None,
    epochs: given.EpochsOption = None,
    steps: given.StepsOption = None,
    report_every: given.ReportEveryOption = None,
    searcher: given.SearcherOption = None,
    set_: given.SetOption = [],  # noqa: B006 - typer copies it
    from_: given.FromOption = None,
    seed: given.SeedOption = None,
    deterministic: given.DeterministicOption = False,
    scheduler: given.SchedulerOption = None,
    audit_stopping: given.AuditOption = None,
    time_budget: given.TimeBudgetOption = None,
    target: given.TargetOption = None,
    cost_budget: given.CostBudgetOption = None,
    worth: given.WorthOption = None,
    concurrency: given.ConcurrencyOption = None,
    cpus: given.CpusOption = None,
    gpus: given.GpusOption = None,
    address: given.AddressOption = None,
    dry_run: given.DryRunOption = False,
    plan: given.PlanOption = False,
    notify: given.NotifyOption = [],  # noqa: B006 - typer copies it
    on_end: given.OnEndOption = None,
    log_to: given.LogToOption = [],  # noqa: B006 - typer copies it
    name: given.NewNameOption = None,
    retrain: given.RetrainOption = True,
    storage: given.StorageOption = None,
    store: given.StoreOption = None,
    watch: given.WatchOption = False,
    verbose: given.VerboseOption = False,
    debug: given.DebugOption = False,
) -> None:
    """Search the hyperparameters of a task or script, then retrain, test and register the best model."""
    flags = {
        "search.trials": trials, "search.epochs": epochs, "search.steps": steps,
        "search.report_every": report_every, "search.searcher": searcher,
        "search.scheduler": scheduler, "search.concurrency": concurrency,
        "search.time_budget": time_budget, "search.target": target, "search.cost_budget": cost_budget,
        "search.worth": worth,
        "search.seed": seed, "resources.cpus": cpus, "resources.gpus": gpus,
        "search.deterministic": deterministic or None, "search.audit_stopping": audit_stopping,
        "search.storage": storage, "search.notify": notify or None, "search.on_end": on_end,
        "search.writers": log_to or None,
    }  # fmt: skip

    with command(store, debug) as (console, opened):
        from search.core.config import load_config
        from search.core.task_names import check_task_name
        from search.live.heartbeat import data_progress
        from search.runtime.cluster import start_early

        more = {
            "pattern": pattern or None, "report_at": report_at, "template": template, "shell": shell, "final": final,
        }  # fmt: skip
        config = None
        if command_ is None and task is not None:
            _check_no_program({"space": space, "objective": objective, **more})
            check_task_name(task)
            config = load_config(task, set_, flags, "demo" if data is None else "data")
            if data is None and not dry_run:  # mistakes in data of your own are reported before Ray starts
                _check_at_once(opened, config, name, address)
                with data_progress(console, "starting Ray")[0]:
                    start_early(config, address, ("search.cli.commands", "search.session", "optuna"))
        from search.cli import commands
        from search.runs import RunOptions

        options = RunOptions(data, name, address, retrain, from_, gpus)
        if config is None:
            program = _program(task, command_, space, objective, more, data, plan, flags, set_)
            sys.exit(commands.run_command(console, opened, program, options, dry_run, verbose, watch))
        if dry_run:
            commands.dry_run(console, opened, config, options, data)
        elif plan:
            commands.plan(console, opened, config, options)
        else:
            sys.exit(commands.run(console, opened, config, options, verbose, watch))


def _check_at_once(store: Store, config: SearchConfig, name: str | None, address: str | None) -> None:
    """Raises InputError for common mistakes, which `run` itself finds once Ray has started."""
    from search.runtime.placement import fits_here, local_cpus, place
    from trainables import InputError

    if name is not None:
        store.search(name).check_free()
    if not (address or os.environ.get("RAY_ADDRESS")):
        try:
            place(config, [(local_cpus(), 0.0)])
        except InputError:
            fits_here(config)  # it imports torch to count the GPUs


def _program(
    task: str | None, command: str | None, space: Path | None, objective: str | None, more: Mapping[str, Any],
    data: str | None, plan: bool, flags: Mapping[str, Any], sets: Sequence[str],
) -> Program:  # fmt: skip
    """The program that `run --command` searches; raises InputError where an option is missing or does not fit.

    Args:
        more: the other arguments of `Command`.
    """
    from search.core.program_config import read_space
    from search.programs import Program
    from trainables import InputError
    from trainables.loops.command import Command

    if command is None:
        raise InputError("run: what? a TASK that `python -m search list` shows, or --command")
    if task is not None:
        raise InputError(f"run {task} --command ...: give a task or a command, not both")
    if data is not None:
        raise InputError(f"--data {data}: a command has its own data")
    if plan:
        raise InputError("--plan: only a TASK has a forecast; time a short run: --trials 2 --epochs 2")
    if space is None or objective is None:
        raise InputError("--command: give its --space FILE and its --objective 'val_loss min' too")
    return Program(Command(command, **more), read_space(space), objective, flags, sets)


def _check_no_program(given: Mapping[str, Any]) -> None:
    """Raises InputError if an option for a command is given with a task."""
    from trainables import InputError

    for name, value in given.items():
        if value:
            raise InputError(f"--{name.replace('_', '-')}: belongs to --command; a task has its own")


@app.command()
def resume(
    name: given.NameArgument,
    trials: given.MoreTrialsOption = None,
    epochs: given.MoreEpochsOption = None,
    steps: given.MoreStepsOption = None,
    time_budget: given.MoreTimeOption = None,
    audit_stopping: given.MoreAuditsOption = None,
    data: given.DataAgainOption = None,
    address: given.AgainOption = None,
    notify: given.NotifyAgainOption = [],  # noqa: B006 - typer copies it
    store: given.StoreOption = None,
    verbose: given.VerboseOption = False,
    debug: given.DebugOption = False,
) -> None:
    """Continue a search that was interrupted or killed, or give a finished search more trials, epochs or time.

    Settings that you do not change stay as they were. At the end the best model is trained and registered as by `run`.
    """
    more = {
        "trials": trials, "epochs": epochs, "steps": steps, "time_budget": time_budget,
        "audit_stopping": audit_stopping,
    }  # fmt: skip
    with command(store, debug) as (console, opened):
        from search.cli import commands

        sys.exit(commands.resume(console, opened, name, more, address, verbose, data, notify))


@app.command()
def retrain(
    name: given.NameArgument,
    finalists: given.FinalistsOption = 1,
    seeds: given.SeedsOption = None,
    address: given.AgainOption = None,
    data: given.DataAgainOption = None,
    notify: given.NotifyAgainOption = [],  # noqa: B006 - typer copies it
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Train the best configurations of a search on train and validation together, then test them."""
    with command(store, debug) as (console, opened):
        from search.cli import commands

        sys.exit(commands.retrain(console, opened, name, seeds, finalists, address, data, notify))


for _command in (
    look.data, look.ui, look.report, look.watch, look.compare, look.why, look.logs,
    upkeep.ls, upkeep.delete, upkeep.rename, upkeep.gc, upkeep.du,
):  # fmt: skip
    app.command()(_command)
app.command()(control.stop)
app.command()(control.pause)
app.command("continue")(control.continue_)
app.command()(control.add)
app.command("set")(control.set_)


@app.command()
def simulate(
    name: given.NameArgument,
    scheduler: given.SimulatedScheduler = None,
    concurrency: given.SimulatedConcurrency = None,
    epochs: given.SimulatedEpochs = None,
    set_: given.SimulatedSet = [],  # noqa: B006 - typer copies it
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Replay a search with another scheduler, budget or number of workers: which trials would it have stopped?"""
    flags = {"search.scheduler": scheduler, "search.epochs": epochs}
    with command(store, debug) as (console, opened):
        from search.live.screen import say
        from search.reports.simulate import simulated_beside_logged

        for line in simulated_beside_logged(opened, name, flags, set_, concurrency):
            say(console, line)


@app.command()
def promote(
    task: given.TaskArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="Version of the registered model. Example: 3")],
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Make a model version the champion, which `predict` uses, even if another version tests better."""
    with command(store, debug) as (console, opened):
        from search import runs
        from search.core.task_names import check_task_name
        from search.live.screen import say

        check_task_name(task, opened)
        say(console, runs.promote(opened, task, version))


@app.command()
def predict(
    task: given.TaskArgument,
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files or folders to predict; for text tasks also texts.")
    ],
    form: Annotated[
        given.PredictionFormat,
        typer.Option(
            "--format", metavar="FORMAT", help="Print as table, csv or json; csv and json hold every probability."
        ),
    ] = "table",
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write predictions to this file: csv, json, jsonl or parquet. Run again to continue.",
        ),
    ] = None,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Predict with the champion: the registered model of a task that is in use."""
    with command(store, debug) as (_, opened):
        from search.core.readable import visible
        from search.core.task_names import check_task_name
        from search.tracking.predict import predict_inputs, predict_to_file

        check_task_name(task, opened)
        if output is not None:
            count = predict_to_file(opened, task, inputs, output)
            print(f"{count} prediction{'' if count == 1 else 's'} in {output}")
            return
        predictions = predict_inputs(opened, task, inputs)
        if form == "json":
            sys.stdout.write(predictions.reset_index(names="input").to_json(orient="records", indent=2) + "\n")
        elif form == "csv":
            predictions.to_csv(sys.stdout, index_label="input")
        else:
            sys.stdout.write(visible(predictions.iloc[:, :2].to_string()) + "\n")


@app.command()
def doctor(
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help="With --gpu, check these tasks only.")
    ] = None,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Compare every task on the GPU with the processor; takes ten minutes at most.")
    ] = False,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Check this machine: versions, GPUs, disk, servers, data, and a small search. Print how to fix problems."""
    with command(store, debug) as (console, opened):
        from search.cli.doctor import doctor as examine

        sys.exit(examine(console, opened, (tasks or []) if gpu else None))


def main() -> None:
    """Runs the command line."""
    # A shell completes only a command of one word, which the installed script is.
    app(prog_name="search" if Path(sys.argv[0]).name == "search" else "python -m search")
