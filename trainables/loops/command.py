"""Any command as a training: a process of its own in any language, whose output says how it does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import signal
import string
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import regex

from trainables.base.errors import InputError
from trainables.loops.errors import CommandFailed, TrainingError
from trainables.loops.process import Process
from trainables.loops.reports import MARK, Epochs, reported
from trainables.loops.trial import Trial

#: Names that a command may have in braces, beside those of the hyperparameters.
GIVEN = ("epochs", "seed", "device", "folder", "trial")
#: What only a shell understands, where it stands as a word of its own or begins the command.
_SHELL = {"|", "||", "&&", "&", ";", ">", ">>", "<", "2>", "2>&1", "&>"}
_BUILTINS = {"cd", "export", "source", "set", "."}
#: Endings of files that are programs, whose content is compared when a search goes on.
_PROGRAMS = {".py", ".sh", ".bash", ".jl", ".r", ".pl", ".rb", ".lua", ".js", ".ts", ".m"}
#: A program that runs for so many seconds before its first report and ends with it has kept its output back.
BUFFERED = 5.0
#: Seconds in which a program ends after its last output.
_END = 0.2


@dataclass(frozen=True)
class Command:
    """A command line with names of hyperparameters in braces, such as `python train.py --lr {lr} --epochs {epochs}`.

    Each trial is a process of its own. It reports an epoch by `@search {"epoch": 3, "val_loss": 0.41}` anywhere in a
    line of its output, or, where a `pattern` is given, by a line that the pattern matches. A program may count epochs
    from 0 or from 1. Without `epoch` the reports are counted; a report whose `step` is 0 is passed over, as its model
    is untrained. Reports without the objective are added to the next report, so that a line on training and a line on
    validation make one epoch. `98.00%` is read as 98, `1,234.5` as 1234.5.

    The trial is complete when the process ends with code 0, also before its last epoch; after the last epoch it has
    `search.stall_timeout` for that. Another code makes the trial fail; its epochs count all the same. Only a trial that
    is stopped gets SIGTERM, or a program that goes on to epochs beyond the last.

    The process finds the same things that may stand in braces in its environment, as `SEARCH_EPOCHS` and so on, the
    hyperparameters as JSON in `SEARCH_PARAMS`, and in `SEARCH_FOLDER` a folder that is the same after a kill. The
    number of epochs that are known by then is in `SEARCH_EPOCH`. What the process trains again of them is passed over;
    a program that goes on after them has to name its epochs.

    A hyperparameter that has no value in a trial, as its `when` does not hold, leaves its word out of the command. A
    flag that stands before it alone is left out too: `--dropout {dropout}` as well as `dropout={dropout}`. An empty
    text leaves its word out, so that `{amp}` with `{choice: ["--amp", ""]}` is a flag without a value. Braces that mean
    themselves are doubled: `{{`.

    Attributes:
        text: the command; it goes through no shell (`sh -c '...'` is one).
        pattern: a regular expression with named groups, such as `epoch (?P<epoch>\\\\d+) loss (?P<val_loss>\\\\S+)`.
        environment: further variables.
        folder: where it is run, which by default is where the search is started.

    Raises:
        InputError: the text or the pattern cannot be meant.

    >>> search.Command("python train.py --lr {lr} --epochs {epochs}").text
    'python train.py --lr {lr} --epochs {epochs}'
    """

    text: str
    pattern: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = field(default_factory=os.getcwd)

    def __post_init__(self) -> None:
        try:
            words = shlex.split(self.text)
            shown = shlex.split(self.text, posix=False)  # with quotes: a quoted `|` is a word like others
        except ValueError as error:
            raise InputError(f"command: {self.text}: {str(error).lower()}") from error
        if not words:
            raise InputError("command: it is empty")
        for word in words:
            self._fields(word)
        if (shell := _SHELL & set(shown)) or words[0] in _BUILTINS:
            what = min(shell, default=words[0])
            raise InputError(
                f"command: {what!r} is understood by a shell alone: give the line to one as `sh -c '...'`, in quotes"
            )
        if self.pattern is not None:
            try:
                named = regex.compile(self.pattern).groupindex
            except regex.error as error:
                raise InputError(f"pattern: {self.pattern!r}: no regular expression ({error})") from error
            if not named:
                raise InputError(f"pattern: {self.pattern!r}: has no named group, such as (?P<val_loss>\\S+)")

    @staticmethod
    def _fields(word: str) -> list[tuple[str, str | None, str, str | None]]:
        """The parts of a word: a text, and the name, format and conversion of what follows it; raises InputError."""
        try:
            parts = [(text, name, spec or "", how) for text, name, spec, how in string.Formatter().parse(word)]
        except ValueError as error:
            raise InputError(f"command: {word}: {error}; braces that mean themselves are doubled: {{{{ }}}}") from error
        if any(name == "" for _, name, _, _ in parts):
            raise InputError(f"command: {word}: {{}} has no name; braces that mean themselves are doubled: {{{{ }}}}")
        return parts

    @property
    def __name__(self) -> str:
        """The first word that names a file, or the first of all, without its ending."""
        words = shlex.split(self.text)
        files = [word for word in words if word.endswith((".py", ".sh", ".jl", ".R"))]
        return re.sub(r"\W", "_", Path((files or words)[0]).stem)

    def check(self, names: Collection[str], optional: Collection[str] = ()) -> None:
        """Checks the names in braces.

        Args:
            names: of the hyperparameters.
            optional: those of them that may have no value in a trial.

        Raises:
            InputError: braces hold what is neither a hyperparameter nor given, or a name that may have no value inside
                a line for a shell, where its word cannot be left out.
        """
        for word in shlex.split(self.text):
            for _, name, _, _ in self._fields(word):
                if name is None:
                    continue
                if name not in names and name not in GIVEN:
                    allowed = ", ".join([*sorted(names), *GIVEN])
                    raise InputError(
                        f"command: {{{name}}}: no hyperparameter of that name; there are {allowed}; braces that mean "
                        "themselves are doubled: {{ }}"
                    )
                if name in optional and len(word.split()) > 1:
                    raise InputError(f"command: {_no_value(name, word)}")

    def fingerprint(self) -> str:
        """The command as text, and a line for each program that its words name, with a hash of its content.

        Programs are files that end as such, such as `train.py`, modules after `-m`, and executables in `folder`. Data
        and what programs import is not among them.
        """
        lines = [repr(self)]
        for path in sorted(set(self._programs())):
            content = (Path(self.folder) / path).read_bytes()
            lines.append(f"# {path}: {hashlib.blake2b(content, digest_size=12).hexdigest()}")
        return "\n".join(lines) + "\n"

    def changed(self, fingerprint: str) -> list[str]:
        """What is other than when `fingerprint` was made: `the command`, or names of programs."""
        before, now = fingerprint.splitlines(), self.fingerprint().splitlines()
        if before[0] != now[0]:
            return ["the command"]
        if len(before) == 1:  # by an earlier version, which compared no programs; or it names none
            return []
        return sorted({line[2:].rpartition(": ")[0] for line in set(before) ^ set(now)})

    def _programs(self) -> Iterator[str]:
        folder = Path(self.folder).resolve()
        words = [part for word in shlex.split(self.text) for part in word.split()]
        for before, word in zip(["", *words], words, strict=False):
            module = word.replace(".", "/")
            for name in (f"{module}.py", f"{module}/__main__.py") if before == "-m" else (word,):
                path = folder / name
                if not path.is_file():
                    continue
                own = os.access(path, os.X_OK) and path.resolve().is_relative_to(folder)
                if own or path.suffix.lower() in _PROGRAMS:
                    yield name

    def __call__(self, trial: Trial) -> Iterator[dict[str, float]]:
        """Runs the command for a trial and yields the metrics of its epochs; closing the generator ends the process."""
        epochs = Epochs(trial.objective)
        done = trial.restore(command=epochs)
        log = None if trial.folder is None else trial.folder / "output.log"
        process = Process(self._words(trial), self.folder, {**self._told(trial, done), **self.environment}, log)
        try:
            came = self._epochs(process, epochs, trial, done)
            for due in range(done + 1, trial.of + 1):
                told = next((one for one in came if one[0] >= due), None)
                if told is None:
                    self._check_end(process, epochs, trial, done, due)
                    return
                epoch, metrics = told
                if epoch > due:
                    raise TrainingError(_too_far(epochs, epoch, due))
                if due == 1 and trial.of > 1 and process.seconds > BUFFERED and process.wait(_END) is not None:
                    trial.said.append(
                        "its first report came as the command ended, too late to stop it: it keeps its output back; "
                        "flush it after each line, or put `stdbuf -oL` before the command"
                    )
                yield metrics
            if not self._goes_on(came, epochs, trial):
                self._check_end(process, epochs, trial, done, trial.of + 1)
        finally:
            process.end()

    def _epochs(
        self, process: Process, epochs: Epochs, trial: Trial, done: int
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """The epochs that a process reports, with those that are known already."""
        for line in process.lines():
            for told in reported(line, self.pattern):
                if (epoch := epochs.take(told)) is None:
                    continue
                if done and epochs.named and epoch[0] == 1:
                    trial.said.append("the command began anew; the epochs that are known already are passed over")
                yield epoch

    @staticmethod
    def _goes_on(came: Iterator[tuple[int, dict[str, float]]], epochs: Epochs, trial: Trial) -> bool:
        """Reads what comes after the last epoch, up to the end; returns True as soon as there is another epoch.

        Raises:
            TrainingError: the epochs that were taken are those before the ones that were meant.
        """
        # A report that names no epoch may be a line on the best or the last one.
        beyond = trial.of + (epochs.first == 0 or not epochs.named)
        last = 0
        for last, _ in came:
            if last > beyond:
                return True
        if last > trial.of and epochs.first == 0 and epochs.named:
            raise TrainingError(
                f"the command reports epochs 0 to {trial.of}, one more than the {trial.of} of a trial: if 0 is before "
                "the training, leave it out; the epochs that were taken are each one too early"
            )
        return False

    def _words(self, trial: Trial) -> list[str]:
        """The words of the command with the values of a trial."""
        values = {**self._given(trial), **trial.params}
        words: list[str] = []
        flag = False
        for word in shlex.split(self.text):
            parts = self._fields(word)
            names = [name for _, name, _, _ in parts if name is not None]
            alone = len(parts) == 1 and not parts[0][0] and names[0] in trial.params
            missing = [name for name in names if values[name] is None]
            if missing and len(word.split()) > 1:
                raise TrainingError(f"command: {_no_value(missing[0], word)}")
            if missing or (alone and values[names[0]] == ""):
                if missing and alone and flag:
                    del words[-1]
                flag = False
                continue
            words.append(_filled(parts, values, word))
            flag = not names and word.startswith("-")
        return words

    def _given(self, trial: Trial) -> dict[str, Any]:
        return {
            "epochs": trial.of, "seed": trial.seed, "device": str(trial.device), "folder": trial.folder or "",
            "trial": trial.number,
        }  # fmt: skip

    def _told(self, trial: Trial, done: int) -> dict[str, str]:
        told = {f"SEARCH_{key.upper()}": str(value) for key, value in self._given(trial).items()}
        return told | {"SEARCH_PARAMS": json.dumps(trial.params), "SEARCH_EPOCH": str(done), "PYTHONUNBUFFERED": "1"}

    def _check_end(self, process: Process, epochs: Epochs, trial: Trial, done: int, due: int) -> None:
        """Raises where a command did not end as it should: with code 0, after at least one epoch."""
        code, said = process.wait() or 0, "\n".join(process.tail)
        known = due > 1
        when = "after its last epoch" if due > trial.of else f"before epoch {due}"
        if code:
            how = f"was ended by {_signal(-code)}" if code < 0 else f"ended with code {code}"
            # By convention 2 says that the arguments are wrong, 126 and 127 that there is no such program.
            error = TrainingError if code in (2, 126, 127) and not known else CommandFailed
            flag = self._flag(trial) if code == 2 else ""
            raise error(f"the command {how} {when}{flag}; its last lines:\n{said}")
        if done and epochs.count and not epochs.named and epochs.count == trial.of - done:
            raise TrainingError(
                f"the command was started again after epoch {done} and reported {epochs.count} epochs without their "
                "numbers, so that nobody knows which they are: a program that goes on has to report `epoch`"
            )
        if known:
            return
        if epochs.lacks:
            raise TrainingError(epochs.lacking("metrics"))
        sought = f"{MARK} {{...}}" if self.pattern is None else f"the pattern {self.pattern!r}"
        raise TrainingError(
            f"the command ended with code 0 before epoch 1: no line of its output has {sought}; its last lines:\n{said}"
        )

    def _flag(self, trial: Trial) -> str:
        """A hint where a truth value was given as the text `True`: most programs take no value there."""
        names = {name for word in shlex.split(self.text) for _, name, _, _ in self._fields(word)}
        flags = [name for name in names if name is not None and isinstance(trial.params.get(name), bool)]
        if not flags:
            return ""
        return f' (a flag without a value is `{{{flags[0]}}}` with choice: ["--{flags[0]}", ""])'


def _filled(parts: list[tuple[str, str | None, str, str | None]], values: Mapping[str, Any], word: str) -> str:
    formatter, filled = string.Formatter(), ""
    for text, name, spec, how in parts:
        filled += text
        if name is not None:
            try:
                filled += formatter.format_field(formatter.convert_field(values[name], how), spec)
            except (TypeError, ValueError) as error:
                raise TrainingError(f"command: {word}: {name} is {values[name]!r}: {error}") from error
    return filled


def _signal(number: int) -> str:
    """The name of a signal; real-time signals have none."""
    return signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"


def _no_value(name: str, word: str) -> str:
    return (
        f"{{{name}}} has no value where its `when` does not hold, and cannot be left out of {word!r}: give it a word "
        "of its own, outside a shell, or read SEARCH_PARAMS"
    )


def _too_far(epochs: Epochs, epoch: int, due: int) -> str:
    shift = 1 - (epochs.first or 0)
    return (
        f"the command reports epoch {epoch - shift} where epoch {due - shift} is due: report each epoch; if these are "
        "steps, call them `step`: reports are then counted, and --epochs is their number"
    )
