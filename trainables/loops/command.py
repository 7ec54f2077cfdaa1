"""Any command as a training: a process of its own in any language, whose output says how it does."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import signal
import string
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from trainables.base.errors import InputError
from trainables.loops.errors import CommandFailed, TrainingError
from trainables.loops.trial import Trial

#: What a line begins with that reports an epoch: `@search {"epoch": 3, "val_loss": 0.41}`.
MARK = "@search"
#: Names that a command may have in braces, beside those of the hyperparameters.
GIVEN = ("epochs", "seed", "device", "folder", "trial")
#: Lines of the output that an error shows, and seconds from SIGTERM to SIGKILL.
TAIL, GRACE = 15, 10.0
#: The number of the system call's option by which a process is told that its parent is gone.
_PDEATHSIG = 1


@dataclass(frozen=True)
class Command:
    """A command line with names of hyperparameters in braces, such as `python train.py --lr {lr} --epochs {epochs}`.

    Each trial is a process of its own. It reports an epoch by a line `@search {"epoch": 3, "val_loss": 0.41}` on its
    output, or, where a `pattern` is given, by a line that it matches. Without `epoch` the reports are counted. It finds
    the same things that may stand in braces in its environment, as `SEARCH_EPOCHS` and so on, the hyperparameters as
    JSON in `SEARCH_PARAMS`, and in `SEARCH_FOLDER` a folder that is the same after a kill; how many epochs are known by
    then is in `SEARCH_EPOCH`, and what it trains again of them is passed over.

    Attributes:
        text: the command; it goes through no shell (`sh -c '...'` is one).
        pattern: a regular expression with named groups, such as `epoch (?P<epoch>\\\\d+) loss (?P<val_loss>\\\\S+)`.
        environment: further variables.
        folder: where it is run, which by default is where the search is started.

    >>> search.Command("python train.py --lr {lr} --epochs {epochs}").text
    'python train.py --lr {lr} --epochs {epochs}'
    """

    text: str
    pattern: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = field(default_factory=os.getcwd)

    def __post_init__(self) -> None:
        if not shlex.split(self.text):
            raise InputError("command: it is empty")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise InputError(f"pattern: {self.pattern!r}: no regular expression ({error})") from error

    @property
    def __name__(self) -> str:
        """The first word that names a file, or the first of all, without its ending."""
        words = shlex.split(self.text)
        files = [word for word in words if word.endswith((".py", ".sh", ".jl", ".R"))]
        return re.sub(r"\W", "_", Path((files or words)[0]).stem)

    def check(self, names: set[str]) -> None:
        """Raises InputError where braces hold what is neither a hyperparameter (`names`) nor given."""
        asked = [name for word in shlex.split(self.text) for _, name, *_ in string.Formatter().parse(word) if name]
        for name in asked:
            if name not in names and name not in GIVEN:
                allowed = ", ".join([*sorted(names), *GIVEN])
                raise InputError(f"command: {{{name}}}: no hyperparameter of that name; there are {allowed}")

    def __call__(self, trial: Trial) -> Iterator[dict[str, float]]:
        """Runs the command for a trial and yields what it reports; closing the generator ends the process."""
        going = _Going()
        log = None if trial.folder is None else (trial.folder / "output.log").open("a")
        process: subprocess.Popen[str] | None = None
        try:
            for epoch in trial.epochs(command=going):
                process = process or self._start(trial, epoch - 1)
                yield self._report(process, epoch, going, log)
            if process is not None:
                process.wait()
        finally:
            if process is not None:
                _end(process)
            if log is not None:
                log.close()

    def _start(self, trial: Trial, done: int) -> subprocess.Popen[str]:
        given = {
            "epochs": trial.of, "seed": trial.seed, "device": str(trial.device), "folder": trial.folder or "",
            "trial": trial.number,
        }  # fmt: skip
        words = [word.format_map({**given, **trial.params}) for word in shlex.split(self.text)]
        told = {f"SEARCH_{key.upper()}": str(value) for key, value in given.items()}
        told |= {"SEARCH_PARAMS": json.dumps(trial.params), "SEARCH_EPOCH": str(done), "PYTHONUNBUFFERED": "1"}
        try:
            return subprocess.Popen(
                words, cwd=self.folder, env={**os.environ, **told, **self.environment}, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, errors="replace",
                start_new_session=True, preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )  # fmt: skip
        except OSError as error:
            raise TrainingError(
                f"{shlex.join(words)}: cannot be started: {error.strerror}: {error.filename}"
            ) from error

    def _report(self, process: subprocess.Popen[str], due: int, going: _Going, log: IO[str] | None) -> dict[str, float]:
        """The metrics of the epoch `due`; those of earlier ones are passed over."""
        assert process.stdout is not None
        for line in process.stdout:
            if log is not None:
                log.write(line)
                log.flush()
            going.tail.append(line.rstrip())
            if (told := self._read(line)) is None:
                continue
            going.reports += 1
            epoch = int(told.pop("epoch", going.reports))
            if epoch > due:
                raise TrainingError(f"the command reports epoch {epoch} where epoch {due} is due")
            if epoch == due:
                return told
        code, said = process.wait(), "\n".join(going.tail)
        # By convention 2 says that the arguments are wrong, 126 and 127 that there is no such program.
        error = TrainingError if code in (0, 2, 126, 127) else CommandFailed
        raise error(f"the command ended with code {code} before epoch {due}; its last lines:\n{said}")

    def _read(self, line: str) -> dict[str, float] | None:
        """The metrics that a line reports, `epoch` among them; None where it reports nothing."""
        if self.pattern is not None:
            found = re.search(self.pattern, line)
            if found is None:
                return None
            raw: Any = found.groupdict()
        elif line.startswith(MARK):
            try:
                raw = json.loads(line.removeprefix(MARK))
            except json.JSONDecodeError as error:
                raise TrainingError(f"{line.strip()}: not JSON after {MARK} ({error.msg})") from error
        else:
            return None
        try:
            return {name: float(value) for name, value in raw.items()}
        except (TypeError, ValueError, AttributeError) as error:
            raise TrainingError(f"{line.strip()}: expected metrics that are numbers ({error})") from error


class _Going:
    """What a command has printed lately. As a part of its trial's state it is empty: the command keeps its own state,
    and goes on where the search knows that it was."""

    def __init__(self) -> None:
        self.reports = 0
        self.tail: deque[str] = deque(maxlen=TAIL)

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None: ...


def _die_with_parent() -> None:
    """In the new process: it gets SIGTERM when the worker dies, which then cannot end it."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM)


def _end(process: subprocess.Popen[str]) -> None:
    """Ends a process and all that it started, in sessions of their own too: SIGTERM, and SIGKILL after a while."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(process.pid)
        family = [first, *first.children(recursive=True)]
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    _, left = psutil.wait_procs(family, GRACE)
    for one in left:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
