"""Prints how a search ended: its summary, the commands that may come next, and its pages in MLflow."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console

from search.core.config import SearchConfig
from search.core.failures import cause
from search.core.redaction import redacted
from search.core.state import SearchState
from search.core.store import SearchFolder
from search.live.screen import say, show, show_link
from search.outcome import SearchOutcome, command_line
from search.reports.plan import Plan
from search.reports.summary import conclusion, parts, trials_of
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
    if outcome.pages:
        once = f", once `{command_line('ui', outcome.store)}` runs:" if outcome.store.is_local else ":"
        show(console, f"in MLflow{once}")
    for page in outcome.pages:
        show_link(console, redacted(page))
    print_next_commands(console, outcome)
    print_conclusion(console, outcome.config, outcome.state)


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
    """Prints what a search found, without its conclusion, and the first lines of text that its model wrote."""
    for part in parts(state, config):
        show(console, part)
    samples = folder.samples(state.final)
    for line in samples[:SAMPLES]:
        show(console, f"  {line}")
    if state.final and len(samples) > SAMPLES:
        show(console, f"  and {len(samples) - SAMPLES} more in")
        show(console, str(folder.samples_file(state.final)))


def print_conclusion(console: Console, config: SearchConfig, state: SearchState) -> None:
    """Prints the test figure beside the baseline, or the best value of a search that tested nothing."""
    line, beats = conclusion(state, config.search.unit)
    show(console, line, "bold" if beats is None else "bold green" if beats else "bold yellow")


def _predicts(task: Task) -> bool:
    return isinstance(task, Exported) and (not isinstance(task, SelfTrained) or task.predicts)


def print_next_commands(console: Console, outcome: SearchOutcome) -> None:
    """Prints the commands that may come next, each with what it does if the terminal is wide enough."""
    trials = outcome.state.trials.values()
    if outcome.state.best() is None and any(trial.outcome == "failed" for trial in trials):
        show(console, "the tracebacks are artifacts of the runs in MLflow")
    lines = [(f"  {command_line(command, outcome.store)}", does) for command, does in _next_commands(outcome)]
    if not lines:
        return
    show(console, "next:")
    longest = max(cell_len(line) for line, _ in lines)
    explained = longest + max(len(does) for _, does in lines) + 4 <= console.width
    for line, does in lines:
        say(console, f"{line:{longest}}  # {does}" if explained else line)


def _next_commands(outcome: SearchOutcome) -> list[tuple[str, str]]:
    """The two or three commands that may come next, and what each does."""
    name, state = outcome.folder.name, outcome.state
    if state.status == "interrupted" or (state.status == "failed" and state.best() is not None):
        commands = [(outcome.continue_with, "go on")]
        if state.best() is not None and state.final is None:
            commands.append((f"retrain {name}", "make a model of what there is"))
        return commands
    if state.status == "finished":
        commands = [(f"report {name} --open", "curves, hyperparameters, costs")]
        if state.best() is None:  # none is feasible
            return commands
        if _predicts(outcome.task):
            commands.append((f"predict {outcome.config.task} INPUT...", "use the model"))
        if not isinstance(outcome.task, SelfTrained) or outcome.task.tests:
            commands.append((f"retrain {name} --finalists 3", "compare the best three on test"))
        return commands
    lost = [trial for trial in state.trials.values() if trial.outcome in ("failed", "diverged")]
    return [(f"why {name} {lost[-1].number}", f"why it {lost[-1].outcome}")] if lost else []
