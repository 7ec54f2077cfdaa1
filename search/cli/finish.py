"""Ends every command with its exit code, and prints an error in one or two lines."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from search.core.store import Store

#: Exit codes: success, a failed search or an unexpected error, wrong input, an interruption.
DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


@contextmanager
def command(store: Path | None, debug: bool) -> Iterator[tuple[Console, Store]]:
    """Runs the block as a command, and exits with its code: 0, or the code that the block gives to `sys.exit`.

    Args:
        store: the option `--store`.
        debug: whether an error is printed with its traceback.

    Yields:
        The console, and the opened store.
    """
    from search.core.redaction import redacted
    from search.core.store import Store
    from search.live.screen import Screen, show
    from search.output import PatientFile
    from trainables import InputError

    sys.stdout, sys.stderr = PatientFile(sys.stdout), PatientFile(sys.stderr)
    code = DONE
    try:
        yield Screen(highlight=False), Store.open(store)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        if debug:
            print(redacted(traceback.format_exc()), file=sys.stderr)
        if isinstance(error, InputError):
            code, message = WRONG_INPUT, f"error: {error}"
        else:
            code, message = FAILED, _unexpected(error)
        show(Screen(stderr=True), redacted(message))
    finally:
        if (cluster := sys.modules.get("search.runtime.cluster")) is not None:
            cluster.leave_early()
        # At exit the garbage collector would visit the objects of torch and Ray, which takes more than a second.
        gc.freeze()
    sys.exit(code)


def _unexpected(error: Exception) -> str:
    """The lines on an error that nobody expected: its first line, and its notes."""
    cause = getattr(error, "cause", None) or error  # Ray wraps what a worker raised
    first = (str(cause).strip() or "no message").split("\n")[0]
    return "\n".join([
        f"error: {type(cause).__name__}: {first}", "(--debug shows where)", *getattr(error, "__notes__", [])
    ])  # fmt: skip
