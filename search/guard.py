"""Prints the command that continues a search if the driver of the search dies.

A driver can end without a chance to say anything: the kernel kills it for memory, or Ray's core ends the process
because its raylet is gone. A small process therefore waits for the end of the driver. If the driver did not end by
itself, the process prints the command that continues the search, and ends the runs that MLflow still shows as running.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from trainables.base.errors import InputError

if TYPE_CHECKING:
    from search.core.store import SearchFolder, Store


class Guard:
    """While entered, a process of its own waits for the end of this one."""

    def __init__(self, again: str, store: Store, folder: SearchFolder, search_id: str) -> None:
        """
        Args:
            again: the command that continues the search.
            search_id: the id of the search, by which its runs in MLflow are found.
        """
        self._again = again
        self._about = {"again": again, "store": str(store.root), "name": folder.name, "search_id": search_id}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Guard:
        package = str(Path(__file__).parents[1])
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "search.guard", json.dumps(self._about)], stdin=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
            )  # fmt: skip
        except OSError:  # no process can be started: the search runs without a guard
            self._process = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the guard. An error that nobody expected gets a note that says how to continue."""
        if isinstance(error, Exception) and not isinstance(error, InputError):
            error.add_note(f"go on with: {self._again}")
        if self._process is not None:
            self._process.communicate(b"ended")


def watch(again: str, store: str, name: str, search_id: str) -> None:
    """Waits until standard input ends. Speaks if the driver died before it wrote there."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read():
        return
    with suppress(OSError):  # the terminal may be gone too
        print("\nthe search ended without warning; what it recorded is kept", file=sys.stderr)
        print(f"go on with: {again}", file=sys.stderr, flush=True)
    # Whoever reads the output of the dead command must not wait for what follows.
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(silence, stream)
    from search.core.store import Store
    from search.tracking.orphans import end_orphans

    place = Store.open(Path(store))
    end_orphans(place, place.search(name), search_id)


if __name__ == "__main__":
    watch(**json.loads(sys.argv[1]))
