"""The commands with their flags. `commands.py` runs them and returns their exit codes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli import exchange, look
from search.cli import options as given
from search.cli.finish import finish

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from rich.console import Console

    from search.core.store import Store
    from search.programs import Program

app = typer.Typer(
    help="Searches hyperparameters of deep-learning tasks with Ray Tune, early stopping and MLflow.",
    no_args_is_help=True, pretty_exceptions_enable=False,
)  # fmt: skip


app.add_typer(exchange.import_, name="import")
app.command("export")(exchange.export)


@app.callback()
def main_(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=lambda asked: _version(asked), help="Say which it is.")
    ] = False,
) -> None:
    """Takes the flags that stand before a command."""


def _version(asked: bool) -> None:
    if asked:
        from search import __version__

        print(f"trial-search {__version__}")
        raise typer.Exit


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the task, and of its Python package.")],
    function: Annotated[
        str | None, typer.Option("--from-function", metavar="FILE:FUNC", help="Make it around a training function.")
    ] = None,
    space: Annotated[Path | None, typer.Option(metavar="FILE", help="With --from-function: its space.")] = None,
    objective: Annotated[
        str | None, typer.Option(metavar="GOAL", help="With --from-function: what counts, such as `val_loss min`.")
    ] = None,
    debug: given.DebugOption = False,
) -> None:
    """Make a task of your own: a package that runs at once, to be changed."""

    def command(console: Console, _: Store) -> int:
        from search.cli import commands

        return commands.new(console, name, function, space, objective)

    finish(command, None, debug)


@app.command("list")
def list_(debug: given.DebugOption = False) -> None:
    """Tasks, their objective, their data source now, their search space."""
    from search.cli import commands

    finish(lambda console, _: commands.list_tasks(console), None, debug)


@app.command()
def run(
    task: given.TaskOrNothing = None,
    command_: given.CommandOption = None,
    space: given.SpaceOption = None,
    objective: given.ObjectiveOption = None,
    pattern: given.PatternOption = None,
    data: given.DataOption = None,
    name: given.NewNameOption = None,
    trials: Annotated[int | None, typer.Option(metavar="N", help="Configurations to try.")] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Most epochs a trial.")] = None,
    searcher: Annotated[given.Searcher | None, typer.Option(help="Who proposes configurations.")] = None,
    scheduler: Annotated[given.Scheduler | None, typer.Option(help="Who stops weak trials.")] = None,
    concurrency: Annotated[int | None, typer.Option(metavar="N", help="Trials at once. [default: what fits]")] = None,
    cpus: Annotated[float | None, typer.Option(metavar="X", help="CPUs a trial.")] = None,
    gpus: given.GpusOption = None,
    time_budget: Annotated[str | None, typer.Option(metavar="TIME", help="Stop after 90s, 30m, 1h30m.")] = None,
    storage: Annotated[str | None, typer.Option(metavar="URI", help="Where checkpoints are kept: s3://...")] = None,
    audit_stopping: given.AuditOption = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of everything drawn.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="In rounds, so that it does not matter which trial is faster.")
    ] = False,
    address: given.AddressOption = None,
    set_: given.SetOption = [],  # noqa: B006 - typer copies it
    from_: given.FromOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run, start nothing.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Train two epochs, forecast epochs, hours and disk, start no search.")
    ] = False,
    retrain: Annotated[bool, typer.Option(help="Train the best configuration on train+validation and test it.")] = True,
    verbose: given.VerboseOption = False,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Search the hyperparameters of a task, retrain the best, test and register it."""
    flags = {
        "search.trials": trials, "search.epochs": epochs, "search.searcher": searcher and searcher.value,
        "search.scheduler": scheduler and scheduler.value, "search.concurrency": concurrency,
        "search.time_budget": time_budget, "search.seed": seed, "resources.cpus": cpus, "resources.gpus": gpus,
        "search.deterministic": deterministic or None, "search.audit_stopping": audit_stopping,
        "search.storage": storage,
    }  # fmt: skip

    def command(console: Console, kept: Store) -> int:
        from search.cli import commands
        from search.core.config import load_config
        from search.runs import RunOptions, check_task_name

        options = RunOptions(data, name, address, retrain, from_, gpus)
        if command_ is not None or task is None:
            program = _program(task, command_, space, objective, pattern, data, plan, flags, set_)
            return commands.run_command(console, kept, program, options, dry_run, verbose)
        check_task_name(task)
        config = load_config(task, set_, flags, "demo" if data is None else "data")
        if dry_run:
            return commands.dry_run(console, config, data)
        if plan:
            return commands.plan(console, kept, config, options)
        return commands.run(console, kept, config, options, verbose)

    finish(command, store, debug)


def _program(
    task: str | None, command: str | None, space: Path | None, objective: str | None, pattern: str | None,
    data: str | None, plan: bool, flags: Mapping[str, Any], sets: Sequence[str],
) -> Program:  # fmt: skip
    """The program that `run --command` searches; raises InputError where an option is missing or does not fit."""
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
    return Program(Command(command, pattern), read_space(space), objective, flags, sets)


@app.command()
def resume(
    name: given.NameArgument,
    trials: Annotated[
        str | None, typer.Option(metavar="N|+N", help="More trials: so many in all, or beside those.")
    ] = None,
    epochs: Annotated[
        str | None, typer.Option(metavar="N|+N", help="More epochs; trials that were complete go on.")
    ] = None,
    time_budget: Annotated[str | None, typer.Option(metavar="TIME", help="Stop after 90s, 30m, 1h30m.")] = None,
    audit_stopping: Annotated[
        str | None, typer.Option(metavar="K|+K", help="Train K stopped trials to the end: what did stopping cost?")
    ] = None,
    address: given.AgainOption = None,
    data: given.DataAgainOption = None,
    verbose: given.VerboseOption = False,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Go on with a search that was interrupted or killed, or give a finished one more."""
    from search.cli import commands

    more = {"trials": trials, "epochs": epochs, "time_budget": time_budget, "audit_stopping": audit_stopping}
    finish(lambda console, kept: commands.resume(console, kept, name, more, address, verbose, data), store, debug)


@app.command()
def retrain(
    name: given.NameArgument,
    finalists: Annotated[
        int, typer.Option(metavar="K", min=1, help="The K best, compared on test: is the best one better than chance?")
    ] = 1,
    seeds: Annotated[
        int | None, typer.Option(metavar="S", min=1, help="Each with S seeds. [default: 5 for several finalists]")
    ] = None,
    address: given.AgainOption = None,
    data: given.DataAgainOption = None,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Train the best configurations of a finished search on train+validation and test them."""
    from search.cli import commands

    finish(lambda console, kept: commands.retrain(console, kept, name, seeds, finalists, address, data), store, debug)


for _command in (look.data, look.ui, look.report, look.compare, look.why):
    app.command()(_command)


@app.command()
def simulate(
    name: given.NameArgument,
    scheduler: Annotated[given.Scheduler | None, typer.Option(help="Who stops weak trials.")] = None,
    concurrency: Annotated[int | None, typer.Option(metavar="N", min=1, help="Trials at once.")] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", min=1, help="Most epochs a trial.")] = None,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Another key, such as search.reduction_factor=4.")
    ] = [],  # noqa: B006 - typer copies it
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """What another scheduler, budget or number of workers would have made of a search; in seconds."""
    from search.live.screen import say
    from search.reports.simulate import simulated_beside_logged

    flags = {"search.scheduler": scheduler and scheduler.value, "search.epochs": epochs}

    def command(console: Console, kept: Store) -> int:
        for line in simulated_beside_logged(kept, name, flags, set_, concurrency):
            say(console, line)
        return 0

    finish(command, store, debug)


@app.command()
def promote(
    task: given.TaskArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="A version of its registered model.")],
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Make a registered model the champion that `predict` takes, whatever it was tested at."""

    def command(console: Console, kept: Store) -> int:
        from search.live.screen import say
        from search.runs import check_task_name, promote

        check_task_name(task)
        say(console, promote(kept, task, version))
        return 0

    finish(command, store, debug)


@app.command()
def predict(
    task: given.TaskArgument,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files or folders.")],
    form: Annotated[
        given.PredictionFormat, typer.Option("--format", help="How to print it; csv and json have every probability.")
    ] = given.PredictionFormat.table,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write everything there (csv, json, jsonl, parquet), resumably.")
    ] = None,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Predict with the registered champion of a task."""

    def command(console: Console, kept: Store) -> int:
        from search.core.readable import visible
        from search.runs import check_task_name
        from search.tracking.predict import predict_inputs, predict_to_file

        check_task_name(task)
        if output is not None:
            print(f"{predict_to_file(kept, task, inputs, output)} predictions in {output}")
            return 0
        predictions = predict_inputs(kept, task, inputs)
        if form.value == "json":
            sys.stdout.write(predictions.reset_index(names="input").to_json(orient="records", indent=2) + "\n")
        elif form.value == "csv":
            predictions.to_csv(sys.stdout, index_label="input")
        else:
            sys.stdout.write(visible(predictions.iloc[:, :2].to_string()) + "\n")
        return 0

    finish(command, store, debug)


@app.command()
def doctor(
    tasks: Annotated[list[str] | None, typer.Argument(metavar="[TASK]...", help="With --gpu: of these alone.")] = None,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Check every task on a GPU beside the processor; at most ten minutes.")
    ] = False,
    store: given.StoreOption = None,
    debug: given.DebugOption = False,
) -> None:
    """Check this machine, say what to do about what is wrong, run a small search."""
    from search.cli.doctor import doctor as examine

    finish(lambda console, kept: examine(console, kept, (tasks or []) if gpu else None), store, debug)


def main() -> None:
    """Runs the command line."""
    # A shell completes only a command of one word, which the installed script is.
    app(prog_name="search" if Path(sys.argv[0]).name == "search" else "python -m search")
