"""The observer that prints on a terminal, into a log or into a notebook."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Console

from search.core.redaction import redacted
from search.live.console import Reporter
from search.live.heartbeat import data_progress
from search.live.screen import Screen, show
from search.observer import Observer, Progress
from search.output import PatientFile
from search.runtime.budget import command_began
from search.runtime.search import Search
from search.watch.process import PageProcess


class ConsoleObserver(Observer):
    """Prints lines, a bar for long preparations, and the live table of trials. One observer serves one command."""

    def __init__(self, console: Console, verbose: bool = False, watch: bool = False) -> None:
        """
        Args:
            verbose: whether each epoch has a line where no live table is shown.
            watch: whether a process serves the page of the search while it runs.
        """
        self.console, self.verbose, self._serves = console, verbose, watch
        if isinstance(console, Screen):
            console.printed = min(console.printed, command_began())  # the imports of the command were silent, too
        self._reporter: Reporter | None = None

    def say(self, line: str) -> None:
        """Prints a line without secrets. From the first trial on, a log has the time of day before each line."""
        if self._reporter is not None:
            self._reporter.say(line)
        else:
            show(self.console, redacted(line))

    @contextmanager
    def progress(self, text: str) -> Iterator[Progress]:
        """Shows a bar on a terminal, and in a log a line after every ten seconds without a line."""
        bar, progress = data_progress(self.console, text)
        with bar:
            yield progress

    @contextmanager
    def watch(self, search: Search, began: float) -> Iterator[None]:
        """Shows the live table on a terminal and in a notebook, and lines in a log."""
        self._reporter = Reporter(self.console, search, self.verbose, began)
        search.listeners.append(self._reporter)
        with ExitStack() as shown:
            if self._serves:
                try:
                    page = shown.enter_context(PageProcess(search.folder))
                    self.say(f"page: {page.address}")
                except OSError as error:  # the search goes on without it
                    self.say(f"the page cannot be served: {error}")
            shown.enter_context(self._reporter.live())
            yield


def default_console() -> Console:
    """The console of a script or a notebook. A notebook has plain lines; its live table is an output of its own."""
    terminal = False if Console().is_jupyter else None
    output: Any = PatientFile(sys.stdout)
    return Screen(file=output, highlight=False, force_jupyter=False, force_terminal=terminal)
