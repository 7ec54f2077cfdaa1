"""One session of a search: from the start or the resume until it ends, is interrupted or fails."""

from __future__ import annotations

import math
import os
import textwrap
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from search.config.load import SearchConfig, parse_duration
from search.engine.cluster import Cluster, disconnect
from search.record.events import WarmStarted
from search.record.redaction import redacted
from search.record.state import SearchState
from search.record.store import SearchFolder, Store
from trainables import DataInfo, Exported, InputError, Mergeable, SelfTrained, Splits, get_task

if TYPE_CHECKING:
    from search.engine.search import Search

#: Imported while Ray starts, as a session needs them next.
NEEDED = (
    "search.engine.trials",
    "search.finals.variants",
    "search.finals.retrain",
    "search.tracking.events_to_runs",
    "optuna",
)
#: Exit codes.
DONE, FAILED, INTERRUPTED = 0, 1, 130
#: Seconds that the end of a command waits for a tracking server that does not answer.
PATIENCE = 10.0


@dataclass(frozen=True)
class Finals:
    """Final trainings to do: `count` finalists with `seeds` seeds each."""

    seeds: int
    count: int = 1
    #: False: the best trial's own model is taken as it is.
    merged: bool = True
    #: Another number of epochs than was best in the search, by the time budget.
    planned: int | None = None


def take_up(  # noqa: C901
    console: Console, store: Store, config: SearchConfig, folder: SearchFolder, description: dict[str, Any],
    splits: Splits, cluster: Cluster, finals: Finals | None = None, warm: WarmStarted | None = None,
    verbose: bool = False,
) -> int:  # fmt: skip
    """Runs the trials, the comparison, the audit and the final training, and prints the summary.

    However the session ends, the journal and MLflow record it.

    Args:
        finals: if given, only these final trainings run.
        warm: the trials of an earlier search, for the searcher.
        verbose: whether every epoch has a line where output is no terminal.

    Returns:
        The exit code.

    Raises:
        InputError: the journal could not be written.
    """
    from search.analysis.plan import Plan
    from search.analysis.summary import summary, trials_of
    from search.console import Reporter
    from search.engine.budget import Budget
    from search.engine.checkpoints import prune
    from search.engine.failures import cause, told
    from search.engine.interrupts import Interrupts
    from search.engine.search import Search
    from search.engine.trials import run_trials
    from search.finals.audit import audit
    from search.finals.ending import AROUND, Ending, Measured, plan_ending, settle_ending
    from search.finals.retrain import retrain as train_final
    from search.finals.variants import compare
    from search.tracking.tracker import Tracker

    again = f"resume {folder.name}"
    if finals is not None:
        again = f"retrain {folder.name} --finalists {finals.count} --seeds {finals.seeds}"
    search = Search(config, folder)
    reporter = Reporter(console, search, verbose)
    tracker = Tracker(store, folder, config, description, splits.info, search.objective, reporter.say)
    search.listeners += [tracker, reporter]
    _greet(console, store, search, splits.info, cluster)
    tracker.start(search.journal.events, search.state)
    limit = config.search.time_budget if finals is None else None
    budget = Budget(math.inf if limit is None else parse_duration(limit))

    measured = Measured(
        description.get("most_epochs", config.search.epochs), description.get("alone", 1.0),
        description.get("worker_start", 0.0),
    )  # fmt: skip

    def ending() -> Ending:
        if not description["retrain"]:
            return Ending(0, False, None, AROUND if limit else 0.0)
        return plan_ending(search, splits, cluster.placement, budget, measured)

    status = "failed"
    try:
        with reporter.live(), Interrupts(search.stop):
            search.record({"event": "session"}, *([warm] if warm else []))
            if finals is None:
                search.reopen()
                run_trials(search, splits, cluster.placement, budget, lambda: ending().seconds)
                if description["retrain"] and not search.cut_off:
                    compare(search, splits, cluster.placement, ending().seeds)
                if not search.cut_off:
                    audit(search, splits, cluster.placement)
                if description["retrain"]:
                    planned = settle_ending(search, splits, cluster.placement, budget, measured)
                    finals = Finals(config.search.retrain_seeds, 1, planned.retrain, planned.epochs)
            if finals and not search.cut_off and search.state.best() is not None:
                if finals.merged and not isinstance(get_task(config.task), Mergeable):
                    reporter.say(f"the final training is on train alone, as {config.task} has no `merge`")
                train_final(
                    search, splits, cluster.placement, finals.seeds, finals.count, finals.merged, finals.planned
                )
        if search.stopping in ("interrupted", "disk full"):
            status = "interrupted"
        elif not search.cut_off and search.state.best() is not None:
            status = "finished"
            prune(search)
    except KeyboardInterrupt:
        status = "interrupted"
    except Exception:
        if cause(traceback.format_exc()) != "disk":
            raise
        search.stop("disk full")
        status = "interrupted"
    finally:
        search.end(status)
        disconnect()  # while MLflow catches up
        left = tracker.close(PATIENCE)
        if search.journal.refused:
            why = search.journal.refused.strerror
            raise InputError(f"{folder.journal}: {why}; make room and go on with: {_command(again, store)}")
    for line in (*summary(search.state, config), *folder.samples(search.state.final)):
        console.print(line, markup=False, soft_wrap=True)
    if forecast := description["plan"]:
        console.print(Plan(**forecast).beside(search.journal.events), markup=False)
    for line in tracker.registered:
        console.print(f"registry: {line}", markup=False, soft_wrap=True)
    if left:
        console.print(
            f"MLflow lacks {left} events, which are kept; send them: {_command(f'resume {folder.name}', store)}"
        )
    if search.stopping == "failures":
        failed = search.state.failed_in_a_row
        console.print(f"{trials_of(len(failed))} failed in a row, the last one so:", markup=False)
        console.print(told(failed[-1]), markup=False, soft_wrap=True)
    next_commands(console, store, config, folder, search.state, again)
    if tracker.pages:
        console.print("in MLflow" + (f", once `{_command('ui', store)}` runs:" if store.is_local else ":"))
    for page in tracker.pages:
        console.print(f"  {page}", markup=False, soft_wrap=True)
    if search.stopping == "disk full":
        return FAILED
    return {"finished": DONE, "interrupted": INTERRUPTED}.get(status, FAILED)


def _greet(console: Console, store: Store, search: Search, info: DataInfo, cluster: Cluster) -> None:
    from search.analysis.summary import trials_of

    config = search.config
    sizes = ", ".join(f"{count} {name}" for name, count in info.sizes.items())
    about = f"{info.source} ({sizes})" if sizes else info.source
    lines = [
        f"search {search.folder.name}: task {config.task}, {trials_of(search.total)} of up to {config.search.epochs} "
        f"epochs, {config.search.searcher} + {config.search.scheduler}, {cluster.placement.describe()}",
        f"data: {about}, fingerprint {info.fingerprint}",
        *(f"note: {note}" for note in info.notes),
        *([f"Ray dashboard: {cluster.dashboard} (its token: ray get-auth-token)"] if cluster.dashboard else []),
        f"MLflow: {store.tracking_uri} (open with `{_command('ui', store)}`)",
    ]
    if trials := search.state.trials.values():
        over, paused = sum(t.over for t in trials), len(search.state.paused())
        waiting = f", {paused} wait to be promoted" if paused else ""
        going_on = len(search.state.unfinished())
        lines.append(f"resumed: {over} trials are over, {going_on} go on from their checkpoints{waiting}")
    for line in lines:
        console.print(_fitted(console, redacted(line)), markup=False, soft_wrap=True)


def _fitted(console: Console, line: str) -> str:
    """A line in as many as it takes on this screen, cut between words; in a pipe or log it stays one."""
    if not console.is_terminal:
        return line
    width = max(20, console.width)
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def next_commands(
    console: Console, store: Store, config: SearchConfig, folder: SearchFolder, state: SearchState, again: str = ""
) -> None:
    """Prints the commands that may come next; after an interruption `again`, which goes on."""
    status = state.status
    if status == "interrupted" or (status == "failed" and state.best() is not None):
        console.print(f"go on with: {_command(again, store)}", markup=False, soft_wrap=True)
        if state.best() is not None and state.final is None and not isinstance(get_task(config.task), SelfTrained):
            made = _command(f"retrain {folder.name}", store)
            console.print(f"or make a model of what there is: {made}", markup=False, soft_wrap=True)
    elif status == "finished":
        console.print("next:", markup=False)
        task = get_task(config.task)
        for command in (
            "ui",
            f"report {folder.name}",
            *([] if isinstance(task, SelfTrained) else [f"retrain {folder.name} --finalists 3"]),
            *([f"predict {config.task} INPUT..."] if isinstance(task, Exported) else []),
        ):
            console.print(f"  {_command(command, store)}", markup=False, soft_wrap=True)
    else:
        console.print("no trial succeeded; the tracebacks are artifacts of their runs in MLflow", markup=False)


def _command(rest: str, store: Store) -> str:
    """A command as the user types it, with `--store` where that is needed."""
    where = "" if store.root == Path("mlruns").resolve() or os.environ.get("SEARCH_STORE") else f" --store {store.root}"
    return f"python -m search {rest}{where}"
