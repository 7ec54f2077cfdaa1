"""The code of the commands that start, resume and retrain searches, list tasks, make a task and open MLflow's page.

A command imports this module when it runs, so that `--help` stays fast.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from search import runs
from search.cli.finish import DONE, FAILED, INTERRUPTED
from search.core.config import SearchConfig, load_config
from search.core.redaction import redacted
from search.core.searchers import make_searcher, searcher_note
from search.core.store import Store
from search.live.observer import ConsoleObserver
from search.live.screen import say, show
from search.outcome import SearchOutcome
from search.preparation import supported_task
from search.programs import Program, run_program
from search.resume import resume as resume_search
from search.runs import RunOptions
from search.runtime.placement import fits_here
from trainables import InputError, Task, get_task, task_names
from trainables.base.task import source_line

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


def exit_code(outcome: SearchOutcome) -> int:
    """0 for a finished search, 130 for an interrupted one, 1 for a failed one or a full disk."""
    if outcome.record.elsewhere:
        return FAILED if outcome.undelivered else DONE
    if outcome.stopping == "disk full":
        return FAILED
    return {"finished": DONE, "interrupted": INTERRUPTED}.get(outcome.state.status, FAILED)


def _show(console: Console, outcome: SearchOutcome) -> int:
    """Prints the outcome and returns the exit code."""
    from search.live.outcome import print_outcome

    print_outcome(console, outcome)
    return exit_code(outcome)


def run(
    console: Console, store: Store, config: SearchConfig, options: RunOptions, verbose: bool = False,
    watch: bool = False,
) -> int:  # fmt: skip
    """Starts a search and runs its first session; returns the exit code."""
    return _show(console, runs.run(store, config, options, ConsoleObserver(console, verbose, watch)))


def run_command(
    console: Console, store: Store, program: Program, options: RunOptions, dry: bool = False, verbose: bool = False,
    watch: bool = False,
) -> int:  # fmt: skip
    """Searches a command (`run --command`) or a training function; returns the exit code.

    Args:
        dry: prints what the search would do, and starts none.
    """
    observer = ConsoleObserver(console, verbose, watch)
    if dry:
        code = program.pack()
        store.check()
        dry_run(console, store, program.configure(store, code, observer), options, code.folder)
        return DONE
    return _show(console, run_program(store, program, options, observer))


def plan(console: Console, store: Store, config: SearchConfig, options: RunOptions) -> None:
    """Prints the forecast of a search (`run --plan`)."""
    forecast = runs.plan(store, config, options, ConsoleObserver(console))
    for line in (*forecast.lines(), "start it with the same command without --plan"):
        say(console, line)


def resume(
    console: Console, store: Store, name: str, changes: Mapping[str, str | None], address: str | None,
    verbose: bool = False, data: str | None = None, notify: Sequence[str] = (),
) -> int:  # fmt: skip
    """Continues a search; returns the exit code. See `search.resume`."""
    observer = ConsoleObserver(console, verbose)
    return _show(console, resume_search(store, name, changes, observer, address=address, data=data, notify=notify))


def retrain(
    console: Console, store: Store, name: str, seeds: int | None, finalists: int, address: str | None,
    data: str | None = None, notify: Sequence[str] = (),
) -> int:  # fmt: skip
    """Runs final trainings of a search; returns the exit code. See `search.runs.retrain`."""
    observer = ConsoleObserver(console)
    outcome = runs.retrain(
        store, name, observer, finalists=finalists, seeds=seeds, address=address, data=data, notify=notify
    )
    return _show(console, outcome)


def list_tasks(console: Console) -> None:
    """Prints each task with its objective, its data source and its spaces."""
    for name in task_names():
        task, demo, own = get_task(name), load_config(name), load_config(name, profile="data")
        objective = f"{task.objective.mode} {task.objective.metric}"
        show(console, f"{name}  objective: {objective} on validation", "bold")
        say(console, f"  without --data   {source_line(task, demo.data)}; {_extent(demo, task)}")
        say(console, f"  with --data      {_extent(own, task)}")
        in_demo = {parameter.name: parameter.describe() for parameter in demo.space.parameters}
        for parameter in own.space.parameters:
            text = parameter.describe()
            differs = f"   (demo: {in_demo[parameter.name]})" if in_demo[parameter.name] != text else ""
            say(console, f"  {parameter.name:18} {text}{differs}")


def _extent(config: SearchConfig, task: Task) -> str:
    """The size of a search, such as `8 trials, of up to 12 epochs`."""
    from search.reports.summary import trials_of

    _, total = make_searcher(config, task.objective)
    budget = config.search.time_budget
    limit = f", {budget} in all" if budget and math.isfinite(total) else ""
    return f"{trials_of(total, config.search)}{limit}, of up to {config.search.unit.count(config.search.epochs)}"


def dry_run(
    console: Console, store: Store, config: SearchConfig, options: RunOptions, data: str | None = None
) -> None:  # fmt: skip
    """Prints the merged configuration, the placement and five configurations of a search.

    Args:
        data: the user's data, or the folder of a command; None for the demo of a task.

    Raises:
        InputError: the search could not begin.
    """
    from omegaconf import OmegaConf

    runs.check_start(store, config, options)
    task = supported_task(config)
    placement = fits_here(config)
    searcher, total = make_searcher(config, task.objective)
    console.print(redacted(OmegaConf.to_yaml(OmegaConf.create(config.raw))), markup=False)
    profile = "with its section `demo`, as no --data is given" if data is None else "as it stands, for your data"
    say(console, f"configuration: {config.place} {profile}")
    say(console, f"placement: {placement.describe()} (on this machine)")
    say(console, _extent(config, task))
    if note := searcher_note(config):
        say(console, f"note: {note}")
    for number in range(int(min(5, total))):
        say(console, f"configuration {number}: {json.dumps(searcher.ask(number))}")


def new(console: Console, name: str, function: str | None, space: Path | None, objective: str | None) -> None:
    """Creates the package of a task in a folder of that name."""
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
        say(console, f"  {file}")
    for line in ("next:", f"  pip install -e {target}", f"  python -m search run {name}"):
        say(console, line)


def ui(console: Console, store: Store, port: int, browse: bool) -> None:
    """Prints the page of the last search of each task, and replaces this process by MLflow's server on the store.

    Args:
        browse: opens the page of the newest search in the browser.
    """
    from search.tracking.client import mlflow_client
    from search.tracking.views import latest_searches, search_pages

    if not store.is_local:
        raise InputError(
            f"MLFLOW_TRACKING_URI={store.tracking_uri}: the server runs there already; open it in a browser"
        )
    searches = latest_searches(mlflow_client(store))
    for name, experiment, key in searches:
        table, curves = search_pages(store, experiment, key, port)
        say(console, f"{name}: {table}\n  curves: {curves}")
    if browse:
        address = search_pages(store, *searches[0][1:], port)[0] if searches else f"http://127.0.0.1:{port}"
        subprocess.Popen([sys.executable, "-c", _OPEN, f"http://127.0.0.1:{port}/health", address])
    options = ["--backend-store-uri", store.tracking_uri, "--default-artifact-root", store.artifacts.as_uri()]
    options += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # By default MLflow starts fifteen processes with 2.3 GiB, most of them for jobs on traces of language models.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    command = [sys.executable, "-m", "mlflow", "server", *options]
    os.execv(sys.executable, command)  # noqa: S606 - signals then reach the server itself
