"""Runs a command of the user after a search."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress

from search.core.readable import duration, visible
from search.core.redaction import redacted
from search.core.state import SearchState
from search.core.store import SearchFolder, Store

#: Seconds after which the command is killed.
LIMIT = 600.0
#: The number of last lines of the command's output that are shown.
LINES = 20


def run_on_end(
    command: str, store: Store, folder: SearchFolder, status: str, state: SearchState, say: Callable[[str], None],
    limit: float = LIMIT,
) -> None:  # fmt: skip
    """Runs a command in the shell `/bin/sh`, and says its last lines and its exit code if that is not 0.

    The environment has `SEARCH_NAME`, `SEARCH_STATUS` (`finished`, `interrupted` or `failed`), `SEARCH_METRIC`,
    `SEARCH_BEST`, `SEARCH_TRIAL`, `SEARCH_TEST`, `SEARCH_FOLDER` and `SEARCH_STORE`. A figure that is missing is empty.

    Args:
        limit: seconds after which the command and its children are killed.
    """
    best, test = state.best(), state.final.test if state.final else None
    about = {
        "NAME": folder.name, "STATUS": status, "METRIC": state.objective.key,
        "BEST": _text(math.nan if best is None else best.best_value), "TRIAL": "" if best is None else str(best.number),
        "TEST": _text((test or {}).get(state.objective.metric, math.nan)), "FOLDER": str(folder.path),
        "STORE": str(store.root),
    }  # fmt: skip
    environment = {**os.environ, **{f"SEARCH_{name}": text for name, text in about.items()}}
    # A file, as a process that the command leaves in the background would keep a pipe open.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            say(f"on-end: cannot be run: {error.strerror}")
            return
        ended = f"ended with exit code {_wait(process, limit)}"
        output.seek(0)
        lines = output.read().decode(errors="replace").splitlines()[-LINES:]
    for line in lines:
        say(redacted(f"on-end: {visible(line)}"))
    if process.returncode == -signal.SIGKILL:
        ended = f"was killed; it may take {duration(limit)}"
    if process.returncode:
        say(f"on-end: the command {ended}")


def _wait(process: subprocess.Popen[bytes], limit: float) -> int:
    """Waits for a process. At the limit, and if the user interrupts, its group is killed."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        _kill(process)
    except BaseException:
        _kill(process)
        raise
    return process.returncode


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _text(number: float) -> str:
    return "" if math.isnan(number) else repr(number)
