"""What the commands do. This module is imported when one runs, so that `--help` stays fast."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from rich.console import Console

from search.cli.preparation import (
    check_no_secret,
    check_writable,
    commit_here,
    connect_again,
    fit_epochs,
    prepare_data,
    prepare_data_again,
    share_gpus,
)
from search.core.config import SearchConfig, check_config, digest, load_config
from search.core.events import WarmStarted
from search.core.journal import Journal
from search.core.redaction import redacted, remember
from search.core.replay import described, extend, open_to_run, replay
from search.core.searchers import make_searcher, searcher_note
from search.core.space import check_values
from search.core.store import SearchFolder, Store
from search.core.warm_start import from_all, from_search
from search.runtime.cluster import connect, disconnect
from search.runtime.placement import fits_here
from search.session import DONE, FAILED, NEEDED, Finals, next_commands, sum_up, take_up
from trainables import (
    Checked,
    Fusable,
    InputError,
    Limited,
    Objective,
    SelfTrained,
    Splits,
    Task,
    get_task,
    offered,
    task_names,
)
from trainables.base.storage import is_remote
from trainables.base.task import source_line
from trainables.base.values import suggestion

P = ParamSpec("P")
T = TypeVar("T")
#: Opens an address in the browser once a server answers; run in a process of its own.
_OPEN = """
import sys, time, urllib.request, webbrowser
for _ in range(240):
    try:
        urllib.request.urlopen(sys.argv[1], timeout=2).close()
    except OSError:
        time.sleep(0.25)
    else:
        webbrowser.open(sys.argv[2])
        break
"""
#: Number of seeds over which finalists are compared by default.
FINALIST_SEEDS = 5


@dataclass(frozen=True)
class RunOptions:
    """The flags of `run` that are no part of the configuration."""

    #: A path or URI; None: the task's demo.
    data: str | None
    name: str | None
    address: str | None
    retrain: bool
    #: The search whose trials the searcher is told first.
    start_from: str | None
    #: Whether only a forecast is asked for.
    plan: bool = False
    #: What `--gpus` said; a machine without one is then refused rather than used.
    gpus: str | None = None
    #: Whether every epoch has a line where output is no terminal.
    verbose: bool = False


def tells_full_disk(
    command: Callable[Concatenate[Console, Store, P], T],
) -> Callable[Concatenate[Console, Store, P], T]:
    """Has a command raise InputError where the disk has no room, so that the user reads a line and not a traceback."""

    @wraps(command)
    def called(console: Console, store: Store, *arguments: P.args, **named: P.kwargs) -> T:
        try:
            return command(console, store, *arguments, **named)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            place = error.filename or store.root
            raise InputError(f"{place}: {error.strerror}; make room and give the command again") from error

    return called


def check_name(task: str, store: Store | None = None) -> None:
    """Raises InputError if there is no such task; one that only a search of the store knows is there too."""
    known = task_names()
    if store is not None and task not in known:
        known += sorted({about["task"] for _, about in store.descriptions()})
    if task not in known:
        raise InputError(f"task {task!r}: unknown; there are {', '.join(known)}{suggestion(task, known)}")


def list_tasks(console: Console) -> int:
    """Prints each task with its objective, its data source and its spaces; returns the exit code."""
    for name in task_names():
        task, demo, own = get_task(name), load_config(name), load_config(name, profile="data")
        objective = f"{task.objective.mode} {task.objective.metric}"
        console.print(f"[bold]{name}[/]  objective: {objective} on validation")
        source = f"{source_line(task, demo.data)}; {_extent(demo)}"
        console.print(f"  without --data   {source}", markup=False, soft_wrap=True)
        console.print(f"  with --data      {_extent(own)}", markup=False, soft_wrap=True)
        other = {parameter.name: parameter.describe() for parameter in demo.space.parameters}
        for parameter in own.space.parameters:
            text = parameter.describe()
            differs = f"   (demo: {other[parameter.name]})" if other[parameter.name] != text else ""
            console.print(f"  {parameter.name:18} {text}{differs}", markup=False, soft_wrap=True)
    return DONE


def _extent(config: SearchConfig) -> str:
    """How much a search does: `8 trials of up to 12 epochs`."""
    from search.reports.summary import trials_of

    _, total = make_searcher(config, get_task(config.task).objective)
    budget = config.search.time_budget
    held = f", {budget} in all" if budget else ""
    return f"{trials_of(total)}{held}, of up to {config.search.epochs} epochs"


def dry_run(console: Console, config: SearchConfig, data: str | None) -> int:
    """Prints what a run would do: the merged configuration, the placement and five configurations."""
    from omegaconf import OmegaConf

    task = _check_task(config)
    placement = fits_here(config)
    searcher, total = make_searcher(config, task.objective)
    console.print(redacted(OmegaConf.to_yaml(OmegaConf.create(config.raw))), markup=False)
    profile = "with its section `demo`, as no --data is given" if data is None else "as it stands, for your data"
    console.print(f"configuration: {config.place} {profile}", markup=False, soft_wrap=True)
    console.print(f"placement: {placement.describe()} (on this machine)")
    console.print(_extent(config), markup=False)
    if note := searcher_note(config):
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for number in range(int(min(5, total))):
        console.print(f"configuration {number}: {json.dumps(searcher.ask(number))}", markup=False, soft_wrap=True)
    return DONE


def _check_task(config: SearchConfig) -> Task:
    """The task of a configuration; raises InputError if the task cannot do what it asks for."""
    task = get_task(config.task)
    own = task.objective
    if config.objectives and config.objectives[0] != Objective(own.metric, own.mode):
        raise InputError(
            f"{config.place}: search.objective: {config.search.objective}: the first must be the task's own, "
            f"{own.metric} {own.mode}, which early stopping and the final training go by"
        )
    if isinstance(task, Limited):
        check_values(config.space, task.allowed, lambda name: f"{config.place}: space.{name}")
    if isinstance(task, Checked):
        task.check(config.space.fixed())
    if config.search.fuse > 1 and not isinstance(task, Fusable):
        place = f"{config.place}: search.fuse: {config.search.fuse}"
        raise InputError(f"{place}: {config.task} trains its trials one by one; allowed is 1")
    return task


def new(console: Console, name: str, function: str | None, space: Path | None, objective: str | None) -> int:
    """Makes a task of the user's own in a folder of that name; returns the exit code."""
    from search.new import new_from_function, new_task

    target = Path(name)
    if function is None:
        if space is not None or objective is not None:
            raise InputError("--space and --objective belong to --from-function FILE:FUNC")
        files = new_task(name, target)
    else:
        if space is None or objective is None:
            raise InputError("--from-function: give its --space FILE and its --objective 'val_loss min' too")
        files = new_from_function(name, target, function, space, objective)
    for file in files:
        console.print(f"  {file}", markup=False, soft_wrap=True)
    for line in ("next:", f"  pip install -e {target}", f"  python -m search run {name}"):
        console.print(line, markup=False, soft_wrap=True)
    return DONE


def new_name(task: str) -> str:
    """A name for a search of which the user gave none: the task and the time."""
    return time.strftime(f"{task}-%Y%m%d-%H%M%S")


@tells_full_disk
def run(
    console: Console, store: Store, config: SearchConfig, options: RunOptions, journal: Journal | None = None
) -> int:
    """Starts a search and runs its first session; returns the exit code.

    Args:
        journal: the search's, where the caller took its name (`SearchFolder.begin`).
    """
    store.check()
    remember(options.data)
    check_no_secret(config.search.storage)
    folder = store.search(options.name or new_name(config.task))
    with journal or folder.begin() as held:
        return _run(console, store, config, options, folder, held)


def _run(
    console: Console, store: Store, config: SearchConfig, options: RunOptions, folder: SearchFolder, journal: Journal
) -> int:
    _check_task(config)
    if not (options.address or os.environ.get("RAY_ADDRESS")):
        fits_here(config)
    splits = prepare_data(console, store, config, options.data, warn=True)
    warm = _warm_start(console, store, config, options.start_from, splits) if options.start_from else None
    settled: dict[str, Any] = {}
    if config.search.storage:
        settled["storage"] = check_writable(f"{config.search.storage.rstrip('/')}/{folder.name}-{uuid.uuid4().hex[:8]}")
    cluster = connect(config, options.address, NEEDED)
    if options.gpus is not None and config.resources.gpu_share and not cluster.placement.gpus:
        disconnect()
        raise InputError(
            f"--gpus {options.gpus}: there is no GPU here; leave it out, or give 0, to train on processors"
        )
    if config.resources.gpus == "auto" and cluster.placement.gpus:
        config, cluster = share_gpus(console, config, splits, cluster)
    forecast = store.plan(digest([config.raw, splits.info.fingerprint]))  # before what differs from run to run
    measured: dict[str, float] = {}
    if config.search.fit_epochs and config.search.time_budget:
        config, measured = fit_epochs(console, config, splits, cluster)
    # Values that were found now and decide what is tried hold for every later session.
    if config.search.deterministic:
        settled["concurrency"] = cluster.placement.concurrency
    chosen = {
        **config.raw, "search": {**config.raw["search"], **settled},
        "data": {**config.raw["data"], **splits.info.chosen},
    }  # fmt: skip
    config = check_config(config.task, chosen, config.place)
    from search.reports.plan import Plan, plan

    if options.plan:
        found = plan(config, splits, cluster.placement)
        found.save(forecast)
        for line in (*found.lines(), "start it with the same command without --plan"):
            console.print(line, markup=False, soft_wrap=True)
        disconnect()
        return DONE
    description = {
        "id": uuid.uuid4().hex,
        "task": config.task,
        "offered": offered(config.task),
        "objective": described(config.task),
        "config": config.raw,
        "place": config.place,
        "data": options.data if not options.data or is_remote(options.data) else str(Path(options.data).resolve()),
        "fingerprint": splits.info.fingerprint,
        "address": options.address,
        "retrain": options.retrain and not isinstance(get_task(config.task), SelfTrained),
        "start_from": options.start_from,
        **measured,
        "plan": asdict(Plan.read(forecast)) if forecast.exists() else None,
        "commit": commit_here(),
        "created": int(time.time() * 1000),
    }
    folder.write(description)
    return take_up(
        console, store, config, folder, description, splits, cluster, journal, warm=warm, verbose=options.verbose
    )


def _warm_start(
    console: Console, store: Store, config: SearchConfig, name: str, splits: Splits
) -> WarmStarted | None:  # fmt: skip
    """What the searcher is told of earlier searches (`--from NAME`, or `auto`); prints what was taken."""
    if name == "auto":
        warm, said = from_all(store, config)
    else:
        warm, said = from_search(store, name, config, splits.info.fingerprint)
    for line in said:
        console.print(line, markup=False, soft_wrap=True)
    return warm


@tells_full_disk
def resume(
    console: Console, store: Store, name: str, more: dict[str, str | None], address: str | None, verbose: bool = False,
    data: str | None = None, journal: Journal | None = None,
) -> int:  # fmt: skip
    """Goes on with a search; one that is finished, also in MLflow, is only summed up. Returns the exit code.

    Args:
        more: new values of `search.trials`, `epochs`, `time_budget` or `audit_stopping`; `+N` adds to a number, None
            leaves it.
        address: another cluster than before; `local` starts one here.
        verbose: as `RunOptions.verbose`.
        data: the address of the same data, where the search keeps it without its secret; None: as it was.
        journal: the search's, where the caller holds it (`SearchFolder.hold`).
    """
    with journal or store.search(name).hold(store) as held:
        return _resume(console, store, name, more, address, verbose, data, held)


def _resume(
    console: Console, store: Store, name: str, more: dict[str, str | None], address: str | None, verbose: bool,
    data: str | None, journal: Journal,
) -> int:  # fmt: skip
    from search.tracking.results import has_whole

    if source := store.search(name).read(store).get("imported"):
        return _deliver(console, store, name, source, any(more.values()))
    folder, description, config = open_to_run(store, name)
    state, events = replay(folder)
    if any(more.values()):
        config = extend(config, more)
        description = {**description, "config": config.raw, "extended_after": state.sessions}
    # A command that gave the search more may have been killed before its session began.
    waits = description.get("extended_after") == state.sessions
    over = state.status == "finished" and not state.unfinished() and not waits
    if over and has_whole(store, config.task, description["id"], len(events)):
        console.print(f"search {name} is finished", markup=False, soft_wrap=True)
        sum_up(console, config, folder, state)
        next_commands(console, store, config, folder, state)
        return DONE
    splits = prepare_data_again(console, store, config, folder, description, data)
    warm, begun = None, any(event["event"] in ("warm_start", "trial") for event in events)
    if (earlier := description.get("start_from")) and not begun:  # a kill came before the event
        warm = _warm_start(console, store, config, earlier, splits)
    cluster, description = connect_again(config, description, address)
    folder.write(description)
    return take_up(console, store, config, folder, description, splits, cluster, journal, warm=warm, verbose=verbose)


def _deliver(console: Console, store: Store, name: str, source: str, extended: bool) -> int:
    """Sends what MLflow lacks of an imported search, which has nothing to train; returns the exit code."""
    from search.exchange.imported import deliver

    if extended:
        raise InputError(
            f"{name}: was imported from {source} and has nothing to train; begin with it: run --from {name}"
        )
    folder = store.search(name)
    events = len(replay(folder)[1])
    left = deliver(store, folder, lambda line: console.print(line, markup=False, soft_wrap=True))
    console.print(
        f"search {name} was imported from {source} and has nothing to train; MLflow has {events - left} of its "
        f"{events} events",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return FAILED if left else DONE


@tells_full_disk
def retrain(
    console: Console, store: Store, name: str, seeds: int | None, finalists: int, address: str | None,
    data: str | None = None,
) -> int:  # fmt: skip
    """Runs final trainings of a search, of one or several finalists; returns the exit code.

    A search that was interrupted is not taken up again: what its trials have come to counts.
    """
    with store.search(name).hold(store) as journal:
        return _retrain(console, store, name, seeds, finalists, address, data, journal)


def _retrain(
    console: Console, store: Store, name: str, seeds: int | None, finalists: int, address: str | None,
    data: str | None, journal: Journal,
) -> int:  # fmt: skip
    folder, description, config = open_to_run(store, name)
    if isinstance(get_task(config.task), SelfTrained):
        raise InputError(f"{name}: {config.task} is a training of your own: its best trial's state is its model")
    state, _ = replay(folder)
    if state.best() is None:
        raise InputError(f"{name}: no trial has a result yet; go on with `python -m search resume {name}` first")
    if finalists > 1 and seeds == 1:
        raise InputError("--seeds 1: finalists can only be told apart over at least 2 seeds")
    splits = prepare_data_again(console, store, config, folder, description, data)
    cluster, description = connect_again(config, description, address)
    folder.write(description)
    seeds = seeds or max(config.search.retrain_seeds, FINALIST_SEEDS if finalists > 1 else 1)
    return take_up(console, store, config, folder, description, splits, cluster, journal, Finals(seeds, finalists))


def promote(console: Console, store: Store, name: str, version: int) -> int:
    """Makes a registered version the champion; returns the exit code."""
    from search.tracking.client import mlflow_client, quick_and_quiet
    from search.tracking.registry import promote as move

    with quick_and_quiet():
        said = move(mlflow_client(store), name, version)
    console.print(said, markup=False, soft_wrap=True)
    return DONE


def ui(console: Console, store: Store, port: int, show: bool) -> int:
    """Prints where the last search of each task is shown, and replaces this process by MLflow's server on the store."""
    from search.tracking.client import mlflow_client
    from search.tracking.views import latest, pages

    if not store.is_local:
        raise InputError(
            f"MLFLOW_TRACKING_URI={store.tracking_uri}: the server runs there already; open it in a browser"
        )
    searches = latest(mlflow_client(store))
    for name, experiment, key in searches:
        table, curves = pages(store, experiment, key, port)
        console.print(f"{name}: {table}\n  curves: {curves}", markup=False, soft_wrap=True)
    if show:
        address = pages(store, *searches[0][1:], port)[0] if searches else f"http://127.0.0.1:{port}"
        subprocess.Popen([sys.executable, "-c", _OPEN, f"http://127.0.0.1:{port}/health", address])
    backend = ["--backend-store-uri", store.tracking_uri, "--default-artifact-root", store.artifacts.as_uri()]
    here = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # By default MLflow starts fifteen processes with 2.3 GiB, most of them for jobs on traces of language models, while
    # this machine trains.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    command = [sys.executable, "-m", "mlflow", "server", *here, *backend]
    os.execv(sys.executable, command)  # noqa: S606 - signals then reach the server itself
