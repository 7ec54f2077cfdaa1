"""Shows that long work goes on: a bar on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text

from search.core.readable import clock, visible
from search.runtime.budget import command_began

#: Seconds without a line after which a log gets a line on the work that goes on.
SILENCE = 10.0


class Heartbeat:
    """Calls `beat` several times in `SILENCE` seconds, from a thread, while the block runs."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat, self._over = beat, threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(SILENCE / 20):
            self._beat()


def shows_bars(console: Console) -> bool:
    """Whether the console can move its cursor, so that a bar or a table can be drawn again. A log cannot."""
    return console.is_terminal and not console.is_dumb_terminal


def data_progress(console: Console, what: str = "reading the data") -> tuple[AbstractContextManager[Any], Any]:
    """A context that shows the progress of long work, and the function that the work calls with its progress.

    A terminal shows a bar with `what` from the beginning, a log gets lines. In both the time goes on while the work
    calls nothing.

    Args:
        what: words for the work until it calls the function, and again after its last step.
    """
    if not shows_bars(console):
        log = _WorkLog(console, what)
        return log, log
    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), TaskProgressColumn(), _Time(),
        console=console, transient=True,
    )  # fmt: skip
    unknown = bar.add_task(visible(what), total=None)
    bars: dict[str, Any] = {}

    def progress(done: int, total: int, what: str) -> None:
        if what not in bars:
            for earlier in bars.values():
                bar.update(earlier, visible=False)
            bars[what] = bar.add_task(visible(what), total=total if total > 1 else None)
        over = done >= total
        bar.update(bars[what], completed=done, visible=total > 1 or not over)
        bar.update(unknown, visible=over)  # all steps are done, and the work goes on

    return bar, progress


class _Time(ProgressColumn):
    """The time that is left; where it is unknown, the time since the beginning."""

    def render(self, task: Task) -> Text:
        begun = task.total is not None and task.completed and not task.finished
        left = task.time_remaining if begun else None
        return Text(f"{clock(task.elapsed or 0)}" if left is None else f"{clock(left)} to go", "cyan")


class _WorkLog:
    """Prints a line on long work after `SILENCE` seconds in which the console printed nothing."""

    def __init__(self, console: Console, what: str) -> None:
        self._console, self._begun, self._what = console, command_began(), what
        self._step, self._since, self._printed = what, time.monotonic(), time.monotonic()
        self._steps = ""
        self._heartbeat = Heartbeat(self._beat)

    def __call__(self, done: int, total: int, what: str) -> None:
        over = done >= total
        step = self._what if over else what
        if step != self._step:
            self._step, self._since = step, time.monotonic()
        self._steps = f": {done:,} of {total:,}" if total > 1 and not over else ""

    def __enter__(self) -> None:
        # Earlier work may have been as silent, and shorter than SILENCE.
        self._since = time.monotonic()
        self._printed = getattr(self._console, "printed", self._since)
        self._heartbeat.__enter__()

    def __exit__(self, *_: object) -> None:
        self._heartbeat.__exit__()

    def _beat(self) -> None:
        now = time.monotonic()
        self._printed = max(self._printed, getattr(self._console, "printed", self._printed))
        if now - self._printed < SILENCE:
            return
        self._printed = now
        line = f"{self._step}{self._steps}, {now - self._since:.0f} s"
        self._console.print(Text(stamped(self._begun) + visible(line)), soft_wrap=True)


def stamped(begun: float) -> str:
    """The beginning of a line of a log: time of day, and time since `begun` (by `time.monotonic`)."""
    return f"{time.strftime('%H:%M:%S')}  {clock(time.monotonic() - begun)}  "
