"""Tells from its traceback why a trial failed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

#: An exception; out of memory; a GPU whose memory others took, the trial being within its share; a full disk; a lost or
#: hanging worker or machine; a worker that the trial before left unclean; a mistake in somebody's training, which comes
#: again however often it is tried.
Failure = Literal["error", "memory", "crowded", "disk", "lost", "unclean", "mistake"]

#: The first that matches counts: a process without disk or memory may raise other errors on its way.
_SIGNS: dict[Failure, str] = {
    "disk": r"No space left on device|Disk quota exceeded",
    "memory": r"OutOfMemoryError|\bMemoryError\b|can't allocate memory|CUDA out of memory|running low on memory",
    "unclean": r"\bUnclean\b",
    "mistake": r"\bTrainingError: ",
    "error": r"Traceback|ray::",
}
#: What CUDA says where memory is refused: asked for, free, the process's own, and its share of the GPU.
_REFUSED = re.compile(
    r"Tried to allocate ([\d.]+ \w+).*?of which ([\d.]+ \w+) is free.*?this process has ([\d.]+ \w+) memory in use"
    r"(?:\. ([\d.]+ \w+) allowed)?",
    re.DOTALL,
)
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def cause(traceback: str) -> Failure:
    """The cause that a traceback shows; `lost` where nothing was raised."""
    found: Failure = next((failure for failure, sign in _SIGNS.items() if re.search(sign, traceback)), "lost")
    return "crowded" if found == "memory" and _by_others(traceback) else found


def told(traceback: str) -> str:
    """What a person needs of a traceback: of a mistake in a training only what it says, else all of it."""
    return traceback.rpartition("TrainingError: ")[2] if cause(traceback) == "mistake" else traceback


def _by_others(traceback: str) -> bool:
    """Whether a GPU refused memory that was within the process's own share: others have taken more than theirs."""
    refused = _REFUSED.search(traceback)
    if refused is None or refused[4] is None:
        return False
    wanted, free, own, share = (_bytes(figure) for figure in refused.groups())
    return wanted > free and own + wanted <= share


def _bytes(figure: str) -> float:
    number, unit = figure.split()
    return float(number) * _UNITS[unit]


def latest_traceback(error_file: str | None) -> str:
    """The latest error of a trial of Tune, from the file to which Tune appends each."""
    try:
        latest = Path(str(error_file)).read_text().split("Failure # ")[-1]
    except OSError:
        return "no traceback: the worker died without one"
    return _COLOURS.sub("", latest.partition("\n")[2]).strip()
