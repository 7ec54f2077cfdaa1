"""Shows a running search: a live table on a terminal, plain lines in a pipe."""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from search.analysis.summary import configuration, shown, tally, trials_of
from search.config.load import parse_duration
from search.engine.failures import in_a_line, place
from search.engine.search import Search
from search.record.events import Event, Failed, Notice, Retried, StepsDone
from search.record.redaction import redacted
from search.record.state import SearchState, Trial

#: Rows of the live table: running trials first, then the best of the others.
ROWS = 16
#: Seconds without a line after which one tells how far the search is, where there is no live table.
MINUTE = 60.0


class Reporter:
    """Prints what happens in one search; a listener of the search."""

    def __init__(self, console: Console, search: Search, verbose: bool = False) -> None:
        """
        Args:
            verbose: whether every epoch has a line where there is no live table.
        """
        self.console, self.search, self.verbose = console, search, verbose
        self.begun = time.monotonic()
        self._epochs_before = sum(t.epoch for t in search.state.trials.values())
        self._live: Live | _NotebookTable | None = None
        self._final = ""
        #: How far long epochs are, by trial; and when a line was last printed.
        self._progress: dict[int, StepsDone] = {}
        self._said = time.monotonic()

    def live(self) -> AbstractContextManager[Any]:
        """Shows the live table while the block runs; does nothing where output is no terminal and no notebook."""
        if Console().is_jupyter:
            self._live = _NotebookTable(self._render)
            return self._live
        if not self.console.is_terminal:
            return nullcontext()
        self._live = Live(
            get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        return self._live

    def __call__(self, event: Event | Notice, state: SearchState) -> None:  # noqa: C901
        """Listens to the search: says what a person should know of an event, or keeps it for the live table."""
        epochs = self.search.config.search.epochs
        match event["event"]:
            case "stopping":
                self.say(f"stopping ({event['why']}): running trials finish their epoch and save"
                         + ("; Ctrl-C again stops at once" if event["why"] == "interrupted" else ""))  # fmt: skip
            case "stalled":
                numbers = ", ".join(map(str, event["numbers"]))
                limit = f"{event['limit']} (search.stall_timeout)"
                self.say(f"trial {numbers} ended no epoch within {limit}: its worker is ended")
            case "timed_out":
                self.say(f"trial {event['number']} is over its time (search.trial_timeout) and ends with what it has")
            case "hint":
                self.say(f"trial {event['number']}: {event['text']}")
            case "unclean":
                self.say(f"a new worker: {in_a_line(event['traceback'])}")
            case "apart":
                numbers = ", ".join(map(str, event["numbers"]))
                self.say(f"trials {numbers} failed together; each goes on alone: {in_a_line(event['traceback'])}")
            case "damaged":
                self.say(f"{event['file']} is damaged ({event['why']}) and is passed over")
            case "retry":
                halved = f", in {event['micro_batches']} parts a batch" if event["micro_batches"] > 1 else ""
                self.say(f"trial {event['number']} failed and is taken up again{halved}: {self._reason(event)}")
            case "failed":
                self.say(f"trial {event['number']} failed: {self._reason(event)}")
            case "completed":
                trial = state.trials[event["number"]]
                short = f" (its own loop ended before epoch {event['of']})" if trial.ended_itself else ""
                self._say_epoch(trial, trial.curve[trial.epoch], f"completed{short}", state)
            case "final_result":
                which = f"trial {event['trial']}, seed {event['seed']}"
                self._final = f"final training of {which}: epoch {event['epoch']} of {event['epochs']}"
                if self._due(self.verbose):
                    self.say(f"{self._final}  {shown(event['metrics'], 'train_')}")
                for line in event.get("samples", ()):
                    self.say(f"  epoch {event['epoch']}: {line}")
            case "audit_result":
                self._final = f"audit of trial {event['number']}: epoch {event['epoch']} of {epochs}"
                if self._due(self.verbose):
                    self.say(f"{self._final}  {shown(event['metrics'], 'val_')}")
            case "repeat_result":
                self._final = f"comparison: {event['value']}, epoch {event['epoch']} of {epochs}"
            case "repeat_finished":
                self.say(f"comparison: {event['value']}, seed {event['seed']}: {shown(event['test'], '')} on test")
            case "progress":
                self._progress[event["number"]] = event
                if self._due():
                    self.say("; ".join(self._standing()))
            case "result":
                self._progress.pop(event["number"], None)
                if event["outcome"] or self.verbose:
                    self._say_epoch(state.trials[event["number"]], event["metrics"], event["outcome"], state)
                elif self._due():
                    self.say("; ".join(self._standing()))

    def _reason(self, event: Failed | Retried) -> str:
        """Why a trial failed, and where: a line of the user's own code, or the file with what its command printed."""
        if event["why"] == "crowded":
            return "other processes have taken the GPU's memory, the trial being within its share"
        if event["why"] == "lost":
            return "its worker was lost"
        if (where := place(event["traceback"])) is None:
            log = self.search.folder.path / "trials" / f"{event['number']:04d}" / "output.log"
            where = f"its output: {log}" if log.exists() else None
        return in_a_line(event["traceback"]) + (f" ({where})" if where else "")

    def _due(self, always: bool = False) -> bool:
        """Whether to print a line that repeats what the live table shows: `always`, or after a minute without one."""
        return not self._live and (always or time.monotonic() - self._said > MINUTE)

    def _say_epoch(self, trial: Trial, metrics: dict[str, float], outcome: str | None, state: SearchState) -> None:
        if self._live:
            return
        best = state.best()
        line = f"trial {trial.number:3d}  epoch {trial.epoch:3d}  {shown(metrics, 'val_')}"
        line += f"  {outcome}" if outcome else ""
        self.say(line + (f"  best {best.best_value:.4f} (trial {best.number})" if best else ""))

    def say(self, text: str) -> None:
        """Prints a line, without secrets."""
        self._said = time.monotonic()
        self.console.print(Text(redacted(text)), soft_wrap=True)

    def _render(self) -> Group:
        state, search = self.search.state, self.search
        metric = search.objective.metric
        table = Table(box=None, header_style="bold", pad_edge=False, expand=True)
        for heading, width in (("trial", 5), ("epoch", 7), (f"val {metric}", 14), ("best", 8), ("outcome", 13)):
            table.add_column(heading, no_wrap=True, width=width)
        table.add_column("configuration", no_wrap=True, overflow="ellipsis", ratio=1)
        running = [t for t in state.trials.values() if t.outcome is None]
        over = [t for t in state.ranked() if t.outcome is not None]
        rest = [t for t in state.trials.values() if t.outcome is not None and not t.can_win]
        for trial in [*running, *over, *rest][:ROWS]:
            last = trial.curve.get(trial.epoch, {}).get(f"val_{metric}")
            table.add_row(
                f"{trial.number}",
                f"{trial.epoch}/{search.config.search.epochs}",
                "" if last is None else f"{last:.4f}",
                f"{trial.best_value:.4f}" if trial.best_epoch else "",
                trial.outcome or "running",
                configuration(trial, search.config),
                style="green" if trial is state.best() else ("dim" if trial.over else ""),
            )
        rungs = "  ".join(f"epoch {epoch}: {len(rung)}" for epoch, rung in search.scheduler.rungs().items())
        lines = [*self._standing(), *([f"rungs  {rungs}"] if rungs else []), *([self._final] if self._final else [])]
        return Group(table, Text("\n".join(lines), style="cyan"))

    def _standing(self) -> list[str]:
        """How far the search is, in a few phrases."""
        state, best = self.search.state, self.search.state.best()
        outcomes = tally(trial.outcome for trial in state.trials.values())
        return [
            f"{len(state.trials)} of {trials_of(self.search.total)}: {outcomes}",
            f"best {best.best_value:.4f} by trial {best.number}" if best else "no result yet",
            *(f"trial {number}: {_step(event)}" for number, event in self._in_an_epoch()),
            f"elapsed {_clock(time.monotonic() - self.begun)}, about {self._estimate()} to go",
        ]

    def _in_an_epoch(self) -> list[tuple[int, StepsDone]]:
        """The latest word of each trial that is in that epoch still: words may come later than the epoch's result."""
        trials = self.search.state.trials
        return [
            (number, event) for number, event in sorted(self._progress.items())
            if trials[number].outcome is None and event["epoch"] > trials[number].epoch
        ]  # fmt: skip

    def _estimate(self) -> str:
        """Time to go: what is left of the time budget, else if coming trials train as many epochs as those that are
        over."""
        state, budget = self.search.state, self.search.config.search.time_budget
        if math.isinf(self.search.total):
            return "?" if budget is None else _clock(max(0.0, parse_duration(budget) - time.monotonic() + self.begun))
        over = [t for t in state.trials.values() if t.over]
        trained = sum(t.epoch for t in state.trials.values()) - self._epochs_before
        if not over or not trained:
            return "?"
        each = sum(t.epoch for t in over) / len(over)
        missing = (self.search.total - len(state.trials)) * each
        missing += sum(max(0.0, each - t.epoch) for t in state.trials.values() if not t.over)
        return _clock((time.monotonic() - self.begun) / trained * missing)


#: How a table stands in a notebook: columns line up in a monospaced font alone, and a theme may give `pre` another.
_NOTEBOOK = "<pre style=\"line-height: 1.2; font-family: Menlo, Consolas, 'DejaVu Sans Mono', monospace\">{code}</pre>"


class _NotebookTable:
    """The live table in a notebook: one output of the cell, written anew every second; it stays as it ends."""

    def __init__(self, render: Callable[[], Group]) -> None:
        self._render, self._over = render, threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="table", daemon=True)

    def __enter__(self) -> None:
        from IPython.display import HTML, display

        self._shown = display(HTML(self._html()), display_id=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _refresh(self) -> None:
        from IPython.display import HTML

        over = False
        while not over:
            over = self._over.wait(1.0)
            self._shown.update(HTML(self._html()))

    def _html(self) -> str:
        console = Console(file=io.StringIO(), record=True, width=120, force_jupyter=False)
        console.print(self._render())
        return console.export_html(inline_styles=True, code_format=_NOTEBOOK)


def data_progress(console: Console) -> tuple[Progress, Any]:
    """A progress bar, and the function that a task calls while it reads data."""
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    bars: dict[str, Any] = {}

    def progress(done: int, total: int, what: str) -> None:
        if what not in bars:
            bars[what] = bar.add_task(what, total=total)
        bar.update(bars[what], completed=done)

    return bar, progress


def _step(event: StepsDone) -> str:
    """How far an epoch is: `step 40 of 366, loss 5.2, 2600 samples/s, 1:20 to go`."""
    pace = f"{event['samples_per_second']:.0f} samples/s, {_clock(event['left'])} to go"
    return f"step {event['done']} of {event['of']}, loss {event['loss']:.3f}, {pace}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
