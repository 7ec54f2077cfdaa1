"""Finds the cause of a failure in the traceback of a trial, and decides whether the trial is tried again."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from search.core.settings import SearchSection
    from search.core.state import Trial

#: `error`: an exception. `memory`: out of memory. `crowded`: out of GPU memory although the trial was within its share,
#: as other processes exceed theirs. `disk`: the disk is full. `lost`: the worker or its machine is gone, or hangs.
#: `unclean`: the trial before left threads, memory or other things in the worker. `mistake`: the user's training is
#: wrong, and a retry would fail again.
Failure = Literal["error", "memory", "crowded", "disk", "lost", "unclean", "mistake"]

#: The first pattern that matches is the cause: a process without disk or memory may raise further errors.
_SIGNS: dict[Failure, str] = {
    "disk": r"No space left on device|Disk quota exceeded",
    "memory": r"OutOfMemoryError|\bMemoryError\b|can't allocate memory|CUDA out of memory|running low on memory",
    "lost": r"\bRankDied: ",
    "unclean": r"\bUnclean\b",
    "mistake": r"\bTrainingError: ",
    "error": r"Traceback|ray::",
}
#: The figures in CUDA's message: the requested memory, the free memory, the process's memory and its limit.
_REFUSED = re.compile(
    r"Tried to allocate ([\d.]+ \w+).*?of which ([\d.]+ \w+) is free.*?this process has ([\d.]+ \w+) memory in use"
    r"(?:\. ([\d.]+ \w+) allowed)?",
    re.DOTALL,
)
#: The journal keeps `WIDTH` characters of a line, and `LINES` lines at each end of a traceback. Most tracebacks have
#: about 40 short lines.
WIDTH, LINES = 1000, 200
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_FRAME = re.compile(r'File "(.+?)", line (\d+)')
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def cause(traceback: str) -> Failure:
    """The cause of a failure; `lost` without an exception, and if a process of a group of processes died."""
    matching: Failure = next((failure for failure, sign in _SIGNS.items() if re.search(sign, traceback)), "lost")
    return "crowded" if matching == "memory" and _by_others(traceback) else matching


def may_retry(trial: Trial, cause: Failure, search: SearchSection) -> bool:
    """Whether a trial that failed is tried again.

    Each cause has its own number of retries, counted since the trial's last new epoch:

    - `error`, `disk` and `unclean`: `search.max_failures` retries
    - `lost` and `crowded`: `search.max_lost_workers` retries
    - `memory`: one retry, which splits each batch into two micro-batches
    - `mistake`: no retry
    """
    lost = search.max_lost_workers
    allowed = {"memory": 1, "lost": lost, "crowded": lost, "mistake": 0}.get(cause, search.max_failures)
    return trial.retries.count(cause) < allowed and not (cause == "memory" and trial.micro_batches > 1)


def cut(traceback: str) -> str:
    """A traceback for the journal, with long lines cut and without the middle of a long traceback."""
    lines = [line if len(line) <= WIDTH else f"{line[:WIDTH]}..." for line in traceback.splitlines()]
    if len(lines) > 2 * LINES:
        lines[LINES:-LINES] = [f"... ({len(lines) - 2 * LINES} lines)"]
    return "\n".join(lines)


def in_a_line(traceback: str) -> str:
    """The message of a traceback in a line; for a failed command the error and the last line of its output."""
    _, _, message = traceback.rpartition("TrainingError: ")
    _, _, message = message.rpartition("CommandFailed: ")
    lines = message.strip().splitlines() or ["no message"]
    if message == traceback or len(lines) == 1:
        return lines[-1].strip()
    return f"{lines[0].strip()} {'... ' if len(lines) > 2 else ''}{lines[-1].strip()}"


def failure_in_a_line(traceback: str) -> str:
    """The message of a traceback in a line, with the line of the user's code that raised it, if there is one.

    >>> failure_in_a_line('  File "/home/me/train.py", line 12, in train\\nValueError: boom')
    'ValueError: boom (/home/me/train.py:12)'
    """
    where = user_line(traceback)
    return in_a_line(traceback) + (f" ({where})" if where else "")


def sign(traceback: str) -> str:
    """The line of code and the message without numbers: equal for failures of the same kind."""
    return f"{user_line(traceback)} {re.sub(r'[0-9.]+', '#', in_a_line(traceback))}"


def user_line(traceback: str) -> str | None:
    """The innermost line of the user's own code in a traceback, such as `train.py:12`; None without such a line."""
    own = [(file, line) for file, line in _FRAME.findall(traceback) if not _is_installed(file)]
    if not own:
        return None
    file, line = own[-1]
    path = Path(file)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{line}"


def _is_installed(file: str) -> bool:
    """Whether a file of a traceback belongs to a library or to this program."""
    ours = [Path(__file__).parents[2] / package for package in ("search", "trainables")]
    folders = [*ours, *(Path(folder) for folder in sysconfig.get_paths().values())]
    packages = {"site-packages", "dist-packages"}  # on another machine
    path = Path(file)
    return file.startswith("<") or bool(packages & set(path.parts)) or any(map(path.is_relative_to, folders))


def _by_others(traceback: str) -> bool:
    """Whether a GPU had no memory although the process was within its share: other processes exceeded theirs."""
    refused = _REFUSED.search(traceback)
    if refused is None or refused[4] is None:
        return False
    wanted, free, own, share = (_bytes(figure) for figure in refused.groups())
    return wanted > free and own + wanted <= share


def _bytes(figure: str) -> float:
    number, unit = figure.split()
    return float(number) * _UNITS[unit]


def latest_traceback(error_file: str | None) -> str:
    """The latest traceback of a trial, from the file where Ray Tune appends each traceback of the trial."""
    try:
        latest = Path(str(error_file)).read_text().split("Failure # ")[-1]
    except OSError:
        return "no traceback: the worker died without one"
    return _COLOURS.sub("", latest.partition("\n")[2]).strip()
