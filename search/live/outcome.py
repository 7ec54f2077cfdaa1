"""Prints how a search ended: its summary, the commands that may come next, and its pages in MLflow."""

from __future__ import annotations

from rich.console import Console

from search.core.config import SearchConfig
from search.core.failures import cause
from search.core.redaction import redacted
from search.core.state import SearchState
from search.core.store import SearchFolder
from search.live.screen import say, show
from search.outcome import SearchOutcome, command_line
from search.reports.plan import Plan
from search.reports.summary import headline, parts, trials_of
from search.runs import NO_TEST
from trainables import Exported, SelfTrained, Task

#: The number of lines of a model's own text that are printed; a file has all of them.
SAMPLES = 2


def print_outcome(console: Console, outcome: SearchOutcome) -> None:
    """Prints what a person should know after a command: what was found, what is missing, and what may come next."""
    if outcome.note:
        show(console, outcome.note)
    if outcome.record.elsewhere:
        return
    print_summary(console, outcome.config, outcome.folder, outcome.state)
    if isinstance(outcome.task, SelfTrained) and not outcome.task.tests and outcome.state.best() is not None:
        show(console, f"nothing was tested: {NO_TEST}")
    if outcome.trained:
        _print_session(console, outcome)
    print_next_commands(console, outcome)
    if outcome.pages:
        once = f", once `{command_line('ui', outcome.store)}` runs:" if outcome.store.is_local else ":"
        show(console, f"in MLflow{once}")
    for page in outcome.pages:
        show(console, redacted(page))


def _print_session(console: Console, outcome: SearchOutcome) -> None:
    """Prints the forecast beside the figures, the registered models, what MLflow lacks, and the last failure."""
    if forecast := outcome.record.plan:
        show(console, Plan(**forecast).beside(outcome.events))
    for line in outcome.registered:
        show(console, f"registry: {line}")
    if outcome.undelivered:
        again = command_line(f"resume {outcome.folder.name}", outcome.store)
        show(console, f"MLflow lacks {outcome.undelivered} events, which are kept; send them: {again}")
    if outcome.stopping == "failures":
        failed = outcome.state.failed_in_a_row
        known = cause(failed[-1]) == "mistake"  # its one line was printed when the trial failed
        show(console, f"{trials_of(len(failed))} failed in a row{'' if known else ', the last one so:'}")
        if not known:
            say(console, failed[-1])


def print_summary(console: Console, config: SearchConfig, folder: SearchFolder, state: SearchState) -> None:
    """Prints the result of a search: the test figure first, and the first lines of text that its model wrote."""
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


def _predicts(task: Task) -> bool:
    return isinstance(task, Exported) and (not isinstance(task, SelfTrained) or task.predicts)


def print_next_commands(console: Console, outcome: SearchOutcome) -> None:
    """Prints the commands that may come next; after an interruption the one that continues the search."""
    store, name, state = outcome.store, outcome.folder.name, outcome.state
    tests = not isinstance(outcome.task, SelfTrained) or outcome.task.tests
    if state.status == "interrupted" or (state.status == "failed" and state.best() is not None):
        show(console, f"go on with: {command_line(outcome.continue_with, store)}")
        if state.best() is not None and state.final is None:
            show(console, f"or make a model of what there is: {command_line(f'retrain {name}', store)}")
    elif state.status == "finished":
        show(console, "next:")
        for command in (
            "ui",
            f"report {name}",
            *([f"retrain {name} --finalists 3"] if tests else []),
            *([f"predict {outcome.config.task} INPUT..."] if _predicts(outcome.task) else []),
        ):
            show(console, f"  {command_line(command, store)}")
    else:
        outcomes = {number: trial.outcome for number, trial in state.trials.items()}
        if "failed" in outcomes.values():
            show(console, "the tracebacks are artifacts of the runs in MLflow")
        diverged = [number for number, outcome in outcomes.items() if outcome == "diverged"]
        if diverged:
            show(console, f"why a trial diverged: {command_line(f'why {name} {diverged[-1]}', store)}")
