"""Ends every command with its exit code, and prints errors in a line."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from search.core.store import Store

#: Exit codes of a search: finished, failed, interrupted.
DONE, FAILED, INTERRUPTED = 0, 1, 130


def finish(command: Callable[[Console, Store], int], store: Path | None, debug: bool) -> None:
    """Runs a command and exits with its code. An error is printed in one or two lines; `debug` adds its traceback."""
    from search.core.redaction import redacted
    from search.core.store import Store
    from search.live.screen import Screen, show
    from search.output import PatientFile
    from trainables import InputError

    sys.stdout, sys.stderr = PatientFile(sys.stdout), PatientFile(sys.stderr)
    try:
        code = command(Screen(highlight=False), Store.open(store))
    except InputError as error:
        if debug:
            print(redacted(traceback.format_exc()), file=sys.stderr)
        show(Screen(stderr=True), redacted(f"error: {error}"))
        code = 2
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if debug:
            print(redacted(traceback.format_exc()), file=sys.stderr)
        cause = getattr(error, "cause", None) or error  # Ray wraps what a worker raised
        first = (str(cause).strip() or "no message").split("\n")[0]
        lines = [f"error: {type(cause).__name__}: {first}", "(--debug shows where)", *getattr(error, "__notes__", [])]
        show(Screen(stderr=True), redacted("\n".join(lines)))
        code = 1
    # At exit the garbage collector would visit the objects of torch and Ray, which takes more than a second.
    gc.freeze()
    sys.exit(code)
