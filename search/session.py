"""One session of a search: from the start or the resume until it ends, is interrupted or fails."""

from __future__ import annotations

import math
import os
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from search.core.config import SearchConfig, parse_duration
from search.core.events import WarmStarted
from search.core.journal import Journal
from search.core.redaction import redacted
from search.core.state import SearchState
from search.core.store import SearchFolder, Store
from search.guard import Guard
from search.runtime.cluster import Cluster, disconnect
from trainables import DataInfo, Exported, Fusable, InputError, Mergeable, SelfTrained, Splits, get_task

if TYPE_CHECKING:
    from search.runtime.search import Search

#: Imported while Ray starts, as a session needs them next.
NEEDED = (
    "search.runtime.trials",
    "search.final.variants",
    "search.final.retrain",
    "search.tracking.events_to_runs",
    "optuna",
)
#: Exit codes.
DONE, FAILED, INTERRUPTED = 0, 1, 130
#: Seconds that the end of a command waits for a tracking server that does not answer.
PATIENCE = 10.0
#: Lines of a model's own text that are printed at the end; a file has them all.
SAMPLES = 2


@dataclass(frozen=True)
class Finals:
    """Final trainings to do: `count` finalists with `seeds` seeds each."""

    seeds: int
    count: int = 1
    #: False: the best trial's own model is taken as it is.
    merged: bool = True
    #: Another number of epochs than was best in the search, by the time budget.
    planned: int | None = None


def take_up(
    console: Console, store: Store, config: SearchConfig, folder: SearchFolder, description: dict[str, Any],
    splits: Splits, cluster: Cluster, journal: Journal, finals: Finals | None = None, warm: WarmStarted | None = None,
    verbose: bool = False,
) -> int:  # fmt: skip
    """Runs the trials, the comparison, the audit and the final training, and prints the summary.

    However the session ends, the journal and MLflow record it.

    Args:
        journal: the search's, which the caller holds until everything is delivered.
        finals: if given, only these final trainings run.
        warm: the trials of an earlier search, for the searcher.
        verbose: whether every epoch has a line where output is no terminal.

    Returns:
        The exit code.

    Raises:
        InputError: the journal could not be written.
    """
    again = f"resume {folder.name}"
    if finals is not None:
        again = f"retrain {folder.name} --finalists {finals.count} --seeds {finals.seeds}"
    with Guard(_command(again, store), store, folder, description["id"]):
        return _session(
            console, store, config, folder, description, splits, cluster, journal, finals, warm, verbose, again
        )


def _session(  # noqa: C901
    console: Console, store: Store, config: SearchConfig, folder: SearchFolder, description: dict[str, Any],
    splits: Splits, cluster: Cluster, journal: Journal, finals: Finals | None, warm: WarmStarted | None, verbose: bool,
    again: str,
) -> int:  # fmt: skip
    """See `take_up`."""
    from search.core.failures import cause, told
    from search.core.time_plan import TimePlan, TrialsSoFar
    from search.final.audit import audit
    from search.final.retrain import retrain as train_final
    from search.final.variants import compare
    from search.live.console import Reporter
    from search.reports.plan import Plan
    from search.reports.screen import show
    from search.reports.summary import trials_of
    from search.runtime.budget import Budget
    from search.runtime.checkpoints import prune
    from search.runtime.interrupts import Interrupts
    from search.runtime.pace import plan_final
    from search.runtime.search import Search
    from search.runtime.trials import run_trials
    from search.tracking.tracker import Tracker

    search = Search(config, folder, journal)
    limit = config.search.time_budget if finals is None else None
    budget = Budget(math.inf if limit is None else parse_duration(limit))
    reporter = Reporter(console, search, verbose, budget.began)
    tracker = Tracker(store, folder, config, description, splits.info, search.objective, reporter.say)
    search.listeners += [tracker, reporter]
    local = not (description["address"] or os.environ.get("RAY_ADDRESS"))
    _greet(console, store, search, splits.info, cluster, local)
    tracker.start(search.journal.events)

    plan = TimePlan.from_config(
        config, splits.info.sizes, cluster.placement.concurrency, budget.seconds,
        most_final_epochs=description.get("most_epochs"), alone_ratio=description.get("alone", 1.0),
        worker_start_seconds=description.get("worker_start", 0.0), retrain=description["retrain"],
        fused=isinstance(search.task, Fusable),
    )  # fmt: skip

    status = "failed"
    try:
        with reporter.live(), Interrupts(search.stop):
            search.record({"event": "session"}, *([warm] if warm else []))
            if finals is None:
                search.reopen()
                run_trials(search, splits, cluster.placement, budget, plan)
                if description["retrain"] and not search.cut_off:
                    trials = TrialsSoFar.from_state(config, search.state)
                    seeds = plan.after_trials(trials, budget.left).comparison_seeds
                    compare(search, splits, cluster.placement, seeds)
                if not search.cut_off:
                    audit(search, splits, cluster.placement)
                if description["retrain"]:
                    final = plan_final(plan, search, splits, cluster.placement, budget)
                    finals = Finals(config.search.retrain_seeds, 1, final.retrain, final.epochs)
            if finals and not search.cut_off and search.state.best() is not None:
                if finals.merged and not isinstance(search.task, Mergeable):
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
    sum_up(console, config, folder, search.state)
    if forecast := description["plan"]:
        show(console, Plan(**forecast).beside(search.journal.events))
    for line in tracker.registered:
        show(console, f"registry: {line}")
    if left:
        again_later = _command(f"resume {folder.name}", store)
        show(console, f"MLflow lacks {left} events, which are kept; send them: {again_later}")
    if search.stopping == "failures":
        failed = search.state.failed_in_a_row
        show(console, f"{trials_of(len(failed))} failed in a row, the last one so:")
        console.print(told(failed[-1]), markup=False, soft_wrap=True)
    next_commands(console, store, config, folder, search.state, again)
    if tracker.pages:
        show(console, "in MLflow" + (f", once `{_command('ui', store)}` runs:" if store.is_local else ":"))
    for page in tracker.pages:
        show(console, redacted(page))
    if search.stopping == "disk full":
        return FAILED
    return {"finished": DONE, "interrupted": INTERRUPTED}.get(status, FAILED)


def _greet(console: Console, store: Store, search: Search, info: DataInfo, cluster: Cluster, local: bool) -> None:
    """Prints what begins, and where it can be watched.

    Args:
        local: whether Ray runs here, for this command alone.
    """
    from search.core.searchers import searcher_note
    from search.reports.screen import show
    from search.reports.summary import counted, trials_of

    config = search.config
    sizes = ", ".join(f"{count} {name}" for name, count in info.sizes.items())
    about = f"{info.source} ({sizes})" if sizes else info.source
    lines = [
        f"search {search.folder.name}: task {config.task}, {trials_of(search.total)} of up to {config.search.epochs} "
        f"epochs, {config.search.searcher} + {config.search.scheduler}, {cluster.placement.describe()}",
        f"data: {about}, fingerprint {info.fingerprint}",
        *(f"note: {note}" for note in (*info.notes, searcher_note(config)) if note),
    ]
    if cluster.dashboard:
        until = ", and is there only while this command runs" if local else ""
        lines.append(f"Ray dashboard: {cluster.dashboard}")
        lines.append(f"  its page asks for a token, which `ray get-auth-token` prints{until}")
    lines.append(f"MLflow: {store.tracking_uri} (open with `{_command('ui', store)}`)")
    if trials := search.state.trials.values():
        over, paused = counted(sum(t.over for t in trials), "trial"), len(search.state.paused())
        waiting = f", {paused} at a rung wait to be promoted" if paused else ""
        going_on = len(search.state.unfinished())
        kept = "what they kept" if search.study.ends_itself else "their checkpoints"
        lines.append(f"resumed: {over} over, {going_on} to go on from {kept}{waiting}")
    for line in lines:
        show(console, redacted(line))


def sum_up(console: Console, config: SearchConfig, folder: SearchFolder, state: SearchState) -> None:
    """Prints what a search came to: the test figure first, and the first of the texts that its model wrote."""
    from search.reports.screen import show
    from search.reports.summary import headline, parts

    first, *rest = parts(state, config)
    found = headline(state)
    show(console, first, "bold" if found is None else "bold green" if found[1] else "bold yellow")
    for part in rest:
        show(console, part)
    samples = folder.samples(state.final)
    for line in samples[:SAMPLES]:
        show(console, f"  {line}")
    if state.final and len(samples) > SAMPLES:
        show(console, f"  and {len(samples) - SAMPLES} more in")
        show(console, str(folder.samples_file(state.final)))


def next_commands(
    console: Console, store: Store, config: SearchConfig, folder: SearchFolder, state: SearchState, again: str = ""
) -> None:
    """Prints the commands that may come next; after an interruption `again`, which goes on."""
    from search.reports.screen import show

    status = state.status
    if status == "interrupted" or (status == "failed" and state.best() is not None):
        show(console, f"go on with: {_command(again, store)}")
        if state.best() is not None and state.final is None and not isinstance(get_task(config.task), SelfTrained):
            made = _command(f"retrain {folder.name}", store)
            show(console, f"or make a model of what there is: {made}")
    elif status == "finished":
        show(console, "next:")
        task = get_task(config.task)
        for command in (
            "ui",
            f"report {folder.name}",
            *([] if isinstance(task, SelfTrained) else [f"retrain {folder.name} --finalists 3"]),
            *([f"predict {config.task} INPUT..."] if isinstance(task, Exported) else []),
        ):
            show(console, f"  {_command(command, store)}")
    else:
        show(console, "no trial succeeded; the tracebacks are artifacts of their runs in MLflow")


def _command(rest: str, store: Store) -> str:
    """A command as the user types it, with `--store` where that is needed."""
    where = "" if store.root == Path("mlruns").resolve() or os.environ.get("SEARCH_STORE") else f" --store {store.root}"
    return f"python -m search {rest}{where}"
