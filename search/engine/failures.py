"""Tells from its traceback why a trial failed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

#: An exception; out of memory; a full disk; a lost or hanging worker or machine; a worker that the trial before left
#: unclean.
Failure = Literal["error", "memory", "disk", "lost", "unclean"]

#: The first that matches counts: a process without disk or memory may raise other errors on its way.
_SIGNS: dict[Failure, str] = {
    "disk": r"No space left on device|Disk quota exceeded",
    "memory": r"OutOfMemoryError|\bMemoryError\b|can't allocate memory|CUDA out of memory|running low on memory",
    "unclean": r"\bUnclean\b",
    "error": r"Traceback|ray::",
}
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def cause(traceback: str) -> Failure:
    """The cause that a traceback shows; `lost` where nothing was raised."""
    return next((failure for failure, sign in _SIGNS.items() if re.search(sign, traceback)), "lost")


def latest_traceback(error_file: str | None) -> str:
    """The latest error of a trial of Tune, from the file to which Tune appends each."""
    try:
        latest = Path(str(error_file)).read_text().split("Failure # ")[-1]
    except OSError:
        return "no traceback: the worker died without one"
    return _COLOURS.sub("", latest.partition("\n")[2]).strip()
