"""Tells from its traceback why a trial failed."""

from __future__ import annotations

import re
import sysconfig
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
#: Characters of a line, and lines at either end, that are kept of a traceback. Real ones have some forty short lines.
WIDTH, LINES = 1000, 200
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_FRAME = re.compile(r'File "(.+?)", line (\d+)')
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def cause(traceback: str) -> Failure:
    """The cause that a traceback shows; `lost` where nothing was raised."""
    found: Failure = next((failure for failure, sign in _SIGNS.items() if re.search(sign, traceback)), "lost")
    return "crowded" if found == "memory" and _by_others(traceback) else found


def told(traceback: str) -> str:
    """What a person needs of a traceback: of a mistake in a training only what it says, else all of it."""
    return traceback.rpartition("TrainingError: ")[2] if cause(traceback) == "mistake" else traceback


def cut(traceback: str) -> str:
    """A traceback as the journal keeps it: long lines, such as a printed array, and the middle of many are left out."""
    lines = [line if len(line) <= WIDTH else f"{line[:WIDTH]}..." for line in traceback.splitlines()]
    if len(lines) > 2 * LINES:
        lines[LINES:-LINES] = [f"... ({len(lines) - 2 * LINES} lines)"]
    return "\n".join(lines)


def in_a_line(traceback: str) -> str:
    """What a traceback says in the end, in one line: of a command what was wrong, and the last line of its output."""
    _, _, said = traceback.rpartition("TrainingError: ")
    _, _, said = said.rpartition("CommandFailed: ")
    lines = said.strip().splitlines() or ["no message"]
    if said == traceback or len(lines) == 1:
        return lines[-1].strip()
    return f"{lines[0].strip()} {'... ' if len(lines) > 2 else ''}{lines[-1].strip()}"


def sign(traceback: str) -> str:
    """What failures of one kind have in common: what they say, without numbers, and where."""
    return f"{place(traceback)} {re.sub(r'[0-9.]+', '#', in_a_line(traceback))}"


def place(traceback: str) -> str | None:
    """The innermost line of the user's own code in a traceback, such as `train.py:12`; None where there is none."""
    own = [(file, line) for file, line in _FRAME.findall(traceback) if not _is_installed(file)]
    if not own:
        return None
    file, line = own[-1]
    path = Path(file)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{line}"


def _is_installed(file: str) -> bool:
    """Whether a file of a traceback is a library's, or this program's."""
    ours = [Path(__file__).parents[2] / package for package in ("search", "trainables")]
    known = [*ours, *(Path(folder) for folder in sysconfig.get_paths().values())]
    packages = {"site-packages", "dist-packages"}  # those of another machine, whose worker it was
    path = Path(file)
    return file.startswith("<") or bool(packages & set(path.parts)) or any(map(path.is_relative_to, known))


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
