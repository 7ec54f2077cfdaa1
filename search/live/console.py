"""Shows a running search: a live table on a terminal, lines with their time in a log."""

from __future__ import annotations

import io
import math
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from search.core.config import parse_duration
from search.core.events import (
    AuditResult,
    Event,
    Failed,
    FinalResult,
    Notice,
    RepeatResult,
    Requested,
    Retried,
    StepsDone,
    Stopping,
)
from search.core.failures import failure_in_a_line, in_a_line, user_line
from search.core.readable import clock, figure, value, visible
from search.core.redaction import redacted
from search.core.requests import in_words
from search.core.state import SearchState, Trial
from search.live.heartbeat import SILENCE, Heartbeat, shows_bars, stamped
from search.live.table import TrialTable, budget_bar
from search.reports.columns import RunningImportance, ordered, varied
from search.reports.remaining import epochs_to_go
from search.reports.summary import OUTCOMES, best_so_far, counted, shown, tally
from search.runtime.search import Search

#: Width and height of the live table in a notebook.
NOTEBOOK = (120, 24)
#: A log gets a line about the progress of the search after this share of the time so far without a line, but after
#: `SILENCE` seconds at the earliest and after a minute at the latest: a long search would fill its log otherwise.
SHARE, MINUTE = 0.02, 60.0


class Reporter:
    """Shows the events of one search in the live table or as lines of a log; a listener of the search."""

    def __init__(self, console: Console, search: Search, verbose: bool = False, began: float | None = None) -> None:
        """
        Args:
            verbose: whether a log has a line for every epoch.
            began: start of the command, by `time.monotonic`; by default now.
        """
        self.console, self.search, self.verbose = console, search, verbose
        self.begun = time.monotonic() if began is None else began
        #: Start of the first epoch of this session, and number of epochs of earlier sessions.
        self._since: float | None = None
        self._epochs_before = sum(t.epoch for t in search.state.trials.values())
        self._live: _LiveTable | _NotebookTable | None = None
        #: The current training after the trials; and time and epoch of the first report of the final training.
        self._phase = ""
        self._final: tuple[float, int] | None = None
        #: The progress of long epochs, by trial; and the time of the last line.
        self._progress: dict[int, StepsDone] = {}
        self._said = time.monotonic()
        #: Trials that an earlier session stopped, and that have no new result since they were paused again.
        self._stopped_before: set[int] = set()
        self._importance = RunningImportance(search.config.space, search.objective)
        self._plain = not console.encoding.startswith("utf")
        self._table = TrialTable(search.objective.key, self._plain)

    def live(self) -> AbstractContextManager[Any]:
        """Shows the live table while the block runs; a log gets a line about the progress when nothing else happens."""
        if Console().is_jupyter:
            self._live = _NotebookTable(self._render)
            return self._live
        if not shows_bars(self.console):
            return Heartbeat(self._say_standing)
        self._live = _LiveTable(self._render(), self.console)
        return self._live

    def __call__(self, event: Event | Notice, state: SearchState) -> None:
        """Prints a line about an event that a person should know, or keeps the event for the live table."""
        if (line := self._sentence(event)) is not None:
            self.say(line)
            return
        match event["event"]:
            case "final_result" | "audit_result" | "repeat_result":
                self._follow(event)
            case "paused":
                self._stopped_before.add(event["number"])
            case "stopped_early" if event["number"] not in self._stopped_before:
                trial = state.trials[event["number"]]
                self._say_epoch(trial, trial.curve.get(trial.epoch, {}), "stopped_early", state)
            case "completed":
                trial = state.trials[event["number"]]
                most = self.search.config.search.unit.at(event.get("of", trial.epoch))
                short = f" (its own loop ended before {most})" if trial.ended_itself else ""
                self._say_epoch(trial, trial.curve[trial.epoch], f"completed{short}", state)
            case "progress":
                self._progress[event["number"]] = event
                self._say_standing()
            case "result":
                if self._since is None:
                    self._since = time.monotonic() - event["metrics"].get("epoch_seconds", 0.0)
                self._progress.pop(event["number"], None)
                self._stopped_before.discard(event["number"])
                if self.verbose or event["outcome"] not in (None, "paused"):
                    why = f" ({event.get('reason', '')})" if event["outcome"] == "infeasible" else ""
                    ended = f"{event['outcome'] or ''}{why}" or None
                    self._say_epoch(state.trials[event["number"]], event["metrics"], ended, state)
                else:
                    self._say_standing()

    def _sentence(self, event: Event | Notice) -> str | None:
        """The line about an event that is always printed; None where there is none."""
        match event["event"]:
            case "request" | "stopping":
                return self._stopping(event)
            case "stalled":
                numbers, limit = _listed(event["numbers"]), f"{event['limit']} (search.stall_timeout)"
                return f"trial {numbers} ended no epoch within {limit}: its worker is ended"
            case "infeasible":
                return f"trial {event['number']} is infeasible and ends before it trains: {event.get('reason', '')}"
            case "timed_out":
                return f"trial {event['number']} is over its time (search.trial_timeout) and ends with what it has"
            case "hint":
                return f"trial {event['number']}: {event['text']}"
            case "unclean":
                return f"a new worker: {in_a_line(event['traceback'])}"
            case "apart":
                reason = in_a_line(event["traceback"])
                return f"trials {_listed(event['numbers'])} failed together; each goes on alone: {reason}"
            case "damaged":
                return f"{event['file']} is damaged ({event['why']}) and is passed over"
            case "retry":
                halved = f", in {event['micro_batches']} parts a batch" if event["micro_batches"] > 1 else ""
                return f"trial {event['number']} failed and is taken up again{halved}: {self._reason(event)}"
            case "failed":
                return f"trial {event['number']} failed: {self._reason(event)}"
            case "repeat_finished":
                return f"comparison: {event['value']}, seed {event['seed']}: {shown(event['test'], '')} on test"
        return None

    def _stopping(self, event: Requested | Stopping) -> str | None:
        """The line about a request, or about the end of the trials; None for an end that a request announced."""
        if event["event"] == "request":
            return f"request: {in_words(event)}"
        if event["why"] == "request":
            return None
        again = "; Ctrl-C again stops at once" if event["why"] == "interrupted" else ""
        why = ": ".join(filter(None, (event["why"], event.get("reason"))))
        return f"stopping ({why}): running trials finish their epoch and save{again}"

    def _follow(self, event: FinalResult | AuditResult | RepeatResult) -> None:
        """Keeps an epoch of a training after the trials for the live table; a log gets a line."""
        unit, most = self.search.config.search.unit, self.search.config.search.epochs
        match event["event"]:
            case "final_result":
                which = f"trial {event['trial']}, seed {event['seed']}"
                self._phase = f"final training of {which}: {unit.at(event['epoch'])} of {unit(event['epochs'])}"
                if event["epoch"] >= event["epochs"]:
                    self._phase += ", then test figures, files and baselines"
                self._final = self._final or (time.monotonic(), event["epoch"])
                self._phase = ", ".join([self._phase, *self._final_to_go(event)])
                if self._due(self.verbose):
                    self.say(f"{self._phase}; {shown(event['metrics'], 'train_')}")
                for line in event.get("samples", ()):
                    self.say(f"  {unit.at(event['epoch'])}: {line}")
            case "audit_result":
                self._phase = f"audit of trial {event['number']}: {unit.at(event['epoch'])} of {unit(most)}"
                if self._due(self.verbose):
                    self.say(f"{self._phase}; {shown(event['metrics'], 'val_')}")
            case "repeat_result":
                self._phase = (
                    f"comparison: {event['value']}, seed {event['seed']}: {unit.at(event['epoch'])} of {unit(most)}"
                )

    def _say_standing(self) -> None:
        """Prints the progress of the search in a log that got no line for a while."""
        with suppress(RuntimeError):  # another thread adds trials; the next call comes soon
            if self._due():
                self.say("; ".join(self._standing()))

    def _reason(self, event: Failed | Retried) -> str:
        """Why a trial failed, with the line of the user's code, or the file with the output of the command."""
        if event["why"] == "crowded":
            return "other processes have taken the GPU's memory, the trial being within its share"
        if event["why"] == "lost":
            return "its worker was lost"
        log = self.search.folder.log(event["number"])
        known = user_line(event["traceback"]) is not None or not log.exists()
        return failure_in_a_line(event["traceback"]) + ("" if known else f" (its output: {log})")

    def _due(self, always: bool = False) -> bool:
        """Whether a log gets a line about the progress now: `always`, or after a while without a line (`SHARE`)."""
        now = time.monotonic()
        patience = min(max(SILENCE, SHARE * (now - self.begun)), MINUTE)
        return not self._live and (always or now - self._said > patience)

    def _say_epoch(self, trial: Trial, metrics: dict[str, float], outcome: str | None, state: SearchState) -> None:
        """Prints, in a log, an epoch or the end of a trial, its best value, its hyperparameters and the best trial."""
        if self._live:
            return
        best = state.best()
        ended = f" {OUTCOMES.get(outcome, outcome)}" if outcome else ""
        unit = self.search.config.search.unit
        line = f"trial {trial.number}{ended}, {unit.at(trial.epoch)}: {shown(metrics, 'val_')}"
        if trial.can_win:
            line += f"; its best {figure(trial.best_value)} at {unit.at(trial.best_epoch)}"
        differing = ordered(
            varied(self.search.config.space.parameters, list(state.trials.values())), self._importance.shares
        )
        chosen = {parameter.name: trial.params.get(parameter.name) for parameter in differing}
        if said := " ".join(f"{name}={value(one)}" for name, one in chosen.items() if one is not None):
            line += f"; {said}"
        self.say(line + (f"; best so far {figure(best.best_value)} (trial {best.number})" if best else ""))

    def say(self, text: str) -> None:
        """Prints a line without secrets; a log has the time of day and the time since the start before it."""
        self._said = time.monotonic()
        stamp = "" if self._live else stamped(self.begun)
        self.console.print(Text(stamp + visible(redacted(text))), soft_wrap=True)

    def _render(self) -> _Frame:
        return _Frame(self._lines)

    def _lines(self, width: int, height: int) -> list[Text]:
        """The live table: lines about the progress, then a line for each trial, as many as have room."""
        trials, best = list(self.search.state.trials.values()), self.search.state.best()
        self._importance.update([trial for trial in trials if trial.can_win])
        first, *phrases = map(value, [*self._standing(), *self._rungs()])  # names and values of users on one line
        while len(said := _packed(phrases, width)) > max(1, height // 2 - 1) and len(phrases) > 1:
            phrases.pop()  # the later ones matter less than the trials
        lines = [Text(line, "bold green") for line in _packed([first], width)]
        lines += [*(Text(line, "cyan") for line in said), self._budget(trials, width)]
        room = height - len(lines) - 1
        if room < 1 or not trials:
            return lines[:height]
        ranked = self.search.state.ranked()
        over = [t for t in ranked if t.outcome is not None]
        rest = [t for t in trials if t.outcome is not None and not t.can_win]
        running = [t for t in trials if t.outcome is None][: room - min(len(over), room // 3)]
        listed = [*running, *over, *rest][:room]
        searched = [parameter for parameter in self.search.config.space.parameters if parameter.searched]
        parameters = ordered(searched, self._importance.shares)
        head, *rows = self._table.lines(listed, parameters, self.search.config.search, width)
        lines.append(Text(head, "bold"))
        for trial, row in zip(listed, rows, strict=True):
            lines.append(Text(row, "green" if trial is best else "dim" if trial.over else ""))
        return lines

    def _budget(self, trials: Sequence[Trial], width: int) -> Text:
        """The bar of the time budget, with the time that is reserved for the final training.

        Without a time budget it shows the budget of epochs, or the trials.
        """
        search, reserved = self.search.config.search, self.search.reserved_seconds
        if search.time_budget is not None and reserved is not None:
            used, whole = time.monotonic() - self.begun, parse_duration(search.time_budget)
            reserved = min(reserved, max(0.0, whole - used))
            words = f"{clock(used)} of {clock(whole)}"
            if reserved:
                words += f", {clock(reserved)} reserved for the final training"
            return budget_bar(width, used, reserved, whole, words, self._plain)
        if search.epoch_budget:
            spent = sum(trial.epoch for trial in trials)
            words = f"{search.unit(spent)} of {search.unit.count(search.epoch_budget)}"
            return budget_bar(width, spent, 0, search.epoch_budget, words, self._plain)
        over, total = sum(trial.over for trial in trials), max(len(trials), 1)
        if not math.isinf(self.search.total):
            total = max(total, int(self.search.total))
        return budget_bar(width, over, 0, total, f"{over} of {counted(total, 'trial')} over", self._plain)

    def _standing(self) -> list[str]:
        """The progress of the search in a few phrases; the first one has the best value."""
        state = self.search.state
        trials, total = list(state.trials.values()), self.search.total
        if math.isinf(total):
            number = f"{counted(len(trials), 'trial')} so far"
        elif len(trials) < total:
            number = f"{len(trials)} of {counted(int(total), 'trial')} proposed"
        else:
            number = counted(len(trials), "trial") + ("" if all(trial.over for trial in trials) else " proposed")
        elapsed = f"elapsed {clock(time.monotonic() - self.begun)}"
        left = self._seconds_to_go(trials)
        to_go = (
            "paused" if state.is_paused and not self._phase else "" if left is None else f"about {clock(left)} to go"
        )
        return [
            best_so_far(state, self.search.config.search.unit),
            f"{elapsed}, {to_go}" if to_go else elapsed,
            *([self._phase] if self._phase else []),
            f"{number}: {tally(trial.outcome for trial in trials)}" if trials else number,
            *(f"trial {number}: {_step(event)}" for number, event in self._in_an_epoch()),
        ]

    def _rungs(self) -> list[str]:
        """The number of trials that reached each rung; empty after the trials."""
        reached = {epoch: len(rung) for epoch, rung in self.search.study.rungs().items() if rung}
        if self._phase or not reached:
            return []
        (first, number), *others = reached.items()
        unit = self.search.config.search.unit
        later = (f"{unit.at(epoch)}: {number}" for epoch, number in others)
        said = ", ".join([f"rung at {unit.at(first)}: {counted(number, 'trial')}", *later])
        return [said, f"the best 1 in {self.search.config.search.reduction_factor:g} of a rung continue"]

    def _in_an_epoch(self) -> list[tuple[int, StepsDone]]:
        """The latest progress of each running epoch; a progress message may come after the result of its epoch."""
        trials = self.search.state.trials
        return [
            (number, event) for number, event in sorted(self._progress.items())
            if trials[number].outcome is None and event["epoch"] > trials[number].epoch
        ]  # fmt: skip

    def _seconds_to_go(self, trials: Sequence[Trial]) -> float | None:
        """Seconds until the trials end: the epochs that are left at the pace of this session, at most the rest of the
        time budget. None after the trials, and where both are unknown."""
        now, budget = time.monotonic(), self.search.config.search.time_budget
        if self._phase or (trials and len(trials) >= self.search.total and all(trial.over for trial in trials)):
            return None
        limits = [] if budget is None else [max(0.0, parse_duration(budget) - now + self.begun)]
        trained = sum(trial.epoch for trial in trials) - self._epochs_before
        rungs = list(self.search.study.rungs())
        epochs = epochs_to_go(trials, self.search.total, self.search.config, rungs) if trained > 0 else None
        if epochs is not None and self._since is not None:
            limits.append((now - self._since) / trained * epochs)
        return min(limits, default=None)

    def _final_to_go(self, event: FinalResult) -> list[str]:
        """`about 1:20 to go` at the pace of the final training; empty for several seeds and for one epoch."""
        alone = sum(run.test is None for run in self.search.state.finals.values()) == 1
        if self._final is None or not alone or not self._final[1] < event["epoch"] < event["epochs"]:
            return []
        since, first = self._final
        left = (time.monotonic() - since) / (event["epoch"] - first) * (event["epochs"] - event["epoch"])
        return [f"about {clock(left)} to go"]


@dataclass
class _Frame:
    """The content of the live table, fitted to the size of the terminal when it is drawn."""

    lines: Callable[[int, int], list[Text]]
    #: The width of each line as it was drawn last.
    widths: tuple[int, ...] = ()
    _last: tuple[Text, ...] = ()
    #: Width and height of the terminal for which `_last` was made, until it is drawn.
    _ready: tuple[int, int] | None = None

    def prepare(self, width: int, height: int) -> None:
        """Makes the next frame for a terminal of this size."""
        # Another thread adds trials. If it does so now, the frame before is drawn again.
        with suppress(RuntimeError):
            self._last = tuple(self.lines(width, max(2, height - 1)))
        self._ready = width, height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._ready != (options.max_width, console.height):
            self.prepare(options.max_width, console.height)
        self._ready = None
        widths = []
        for line in self._last:
            line.truncate(options.max_width, overflow="ellipsis")
            widths.append(line.cell_len)
            yield line
        self.widths = tuple(widths)


class _LiveTable(Live):
    """The live table on a terminal.

    A terminal that becomes narrower wraps the lines that it shows. The next frame then starts as many rows higher. Rows
    that leave a smaller terminal at its top come back when it grows; the next frame then replaces them, too.
    """

    def __init__(self, frame: _Frame, console: Console) -> None:
        super().__init__(
            frame, console=console, refresh_per_second=4, transient=True, redirect_stdout=False, redirect_stderr=False,
            vertical_overflow="crop",
        )  # fmt: skip
        self._shown = frame
        self._size = console.size
        #: The widths of the lines of earlier frames that are above the terminal's first row.
        self._above: list[int] = []

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        if not self.console.is_interactive:
            return super().process_renderables(renderables)
        # The frame takes a while to make. The terminal's size counts at the moment of drawing.
        for _ in range(3):
            self._shown.prepare(*(size := self.console.size))
            if self.console.size == size:
                break
        rows = self._rows_to_clear()
        up = Control(*((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)) * rows)
        cleared, *rest = super().process_renderables(renderables)
        if not all(isinstance(one, Control) for one in renderables):
            self._above = []  # a printed line stands between these rows and the frame
        return [cleared, up, *rest]

    def _rows_to_clear(self) -> int:
        """The number of rows of earlier frames above the first row that the last frame had when it was drawn."""
        (width, height), (width_before, height_before) = self.console.size, self._size
        self._size = self.console.size
        lines = list(self._shown.widths)
        rows = _rows(lines, width)
        wrapped = rows - len(lines)
        if (width, height) == (width_before, height_before):
            return wrapped
        while lines and _rows(lines, width) > height:
            self._above.append(lines.pop(0))
        # At most this many rows come back from above: the rows that the terminal gained, and the rows that lines needed
        # for wrapping and need no more.
        back = height - height_before + _rows(self._shown.widths, width_before) - rows
        returned = 0
        while self._above and returned + _rows(self._above[-1:], width) <= min(back, height - rows):
            returned += _rows([self._above.pop()], width)
        return wrapped + returned


def _rows(widths: Sequence[int], width: int) -> int:
    """The number of rows of lines with these widths on a terminal of this width."""
    return sum(max(1, math.ceil(one / width)) for one in widths)


#: The HTML around a table in a notebook. Columns need a monospaced font, and a theme may give `pre` another one.
_NOTEBOOK = "<pre style=\"line-height: 1.2; font-family: Menlo, Consolas, 'DejaVu Sans Mono', monospace\">{code}</pre>"


class _NotebookTable:
    """The live table in a notebook: one output of the cell, replaced every second. The last one stays."""

    def __init__(self, render: Callable[[], _Frame]) -> None:
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
        width, height = NOTEBOOK
        console = Console(file=io.StringIO(), record=True, width=width, height=height, force_jupyter=False)
        console.print(self._render())
        return console.export_html(inline_styles=True, code_format=_NOTEBOOK)


def _packed(phrases: Iterable[str], width: int) -> list[str]:
    """The phrases, in their order, in as few lines of this width as possible; a longer phrase is wrapped."""
    lines: list[str] = []
    for phrase in phrases:
        if cell_len(phrase) > width:
            lines += textwrap.wrap(phrase, width, subsequent_indent="  ")
        elif lines and cell_len(lines[-1]) + 3 + cell_len(phrase) <= width:
            lines[-1] += f"   {phrase}"
        else:
            lines.append(phrase)
    return lines


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _step(event: StepsDone) -> str:
    """The progress of an epoch: `step 40 of 366, loss 5.200, 2600 samples/s, 1:20 to go`, or `40 % of its epoch`."""
    done, of = event["done"], event["of"]
    phrases = [f"{done / of:.0%} of its epoch" if of == 1 else f"step {done:g} of {of:g}"]
    if "loss" in event:
        phrases.append(f"loss {figure(event['loss'])}")
    if "samples_per_second" in event:
        phrases.append(f"{event['samples_per_second']:.0f} samples/s")
    return ", ".join([*phrases, f"{clock(event['left'])} to go"])
