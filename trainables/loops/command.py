"""Trains by any command: a process in any language that reports metrics in its output."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import signal
import string
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import regex

from trainables.base.errors import InputError
from trainables.base.training import step_ended
from trainables.loops.errors import CommandFailed, TrainingError
from trainables.loops.process import Process, is_system_text
from trainables.loops.reports import MARK, Epochs, epochs_of, reported
from trainables.loops.trial import Trial

#: Names that a command may have in braces, in addition to the hyperparameters, and their meanings.
STANDARD_NAMES = {
    "epochs": "the number of epochs", "seed": "the seed of the trial", "device": "the device of the trial",
    "folder": "the folder of the trial", "trial": "the number of the trial",
}  # fmt: skip
#: Values of each type that a hyperparameter may have.
_SAMPLES = (1, 0.5, "text", True)
#: Parts of a word that no shell would change: in quotes, after a backslash, or the name of a hyperparameter in braces.
_PLAIN = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.|\{[^{}]*\}""", re.DOTALL)
#: Syntax of a shell in a word: operators, substitutions and the home folder. A `&` inside a word belongs to an address.
_SHELL = re.compile(r"[|<>;`]|&&|&$|\$[A-Za-z_{(]|^~(?:/|$)")
#: A variable before the program, and the built-in commands of a shell (as the first word).
_VARIABLE = re.compile(r"[A-Za-z_]\w*=")
_BUILTINS = {"cd", "export", "source", "set", "."}
#: Suffixes of program files. Their content is compared when a search resumes.
_PROGRAMS = {".py", ".sh", ".bash", ".jl", ".r", ".pl", ".rb", ".lua", ".js", ".ts", ".m"}
#: A program buffers its output if it ran longer than `BUFFERED` seconds before its first report, and ended within
#: `END` seconds after the report. A shorter run may report its first epoch late and end early without a buffer.
BUFFERED, END = 5.0, 0.2


@dataclass(frozen=True)
class Command:
    """A command line with names of hyperparameters in braces, such as `python train.py --lr {lr} --epochs {epochs}`.

    Each trial runs the command once, as a process.

    **Reports.** A line of the output reports an epoch if it holds `@search {"epoch": 3, "val_loss": 0.41}`. If there is
    a `pattern`, each line that matches it is a report. A program may count epochs from 0 or from 1.
    Reports without `epoch` are counted; a report with `step` 0 is ignored, because its model is untrained. A report
    without the objective is added to the next report, so that a line for training and a line for validation make one
    epoch. `98.00%` is read as 98, `1,234.5` as 1234.5.

    **The end.** The trial is complete when the process ends with code 0, also before its last epoch. After the last
    epoch the process has `search.stall_timeout` to end. Another code makes the trial fail; its epochs still count. A
    process gets SIGTERM if its trial is stopped, or if it reports epochs beyond the last.

    **Environment.** All names of braces are variables too:

        SEARCH_EPOCHS, SEARCH_SEED, SEARCH_DEVICE, SEARCH_TRIAL: the number of epochs, the seed, the device, the trial.
        SEARCH_FOLDER: a folder of the trial, which is the same after a kill.
        SEARCH_PARAMS: the hyperparameters as JSON.
        SEARCH_FINAL: `1` in the final training; not set in trials.
        SEARCH_EPOCH: the number of epochs that the search knows from before a kill. Reports of these epochs are
            ignored. A program that continues after them has to report `epoch`.

    **Hyperparameters without a value.** If the `when` of a hyperparameter does not hold, its word is left out of the
    command, together with a flag directly before it: `dropout={dropout}` as well as `--dropout {dropout}`. An empty
    text leaves its word out too: `{amp}` with `{choice: ["--amp", ""]}` is a flag without a value. Literal braces are
    doubled: `{{`.

    Attributes:
        text: the command. No shell reads it; `sh -c '...'` starts one.
        pattern: a regular expression with named groups, such as `epoch (?P<epoch>\\\\d+) loss (?P<val_loss>\\\\S+)`.
        environment: additional variables. Their values are secret: no report and no text shows them.
        folder: the working directory; by default the folder where the search is started.
        final: the command of the final training, which follows the trials. The names in its braces are the same, and
            `{epochs}` is the best number of epochs. The last report of each metric is a test figure: the objective
            `val_loss` may be reported as `test_loss`, `loss` or `val_loss`. The files that it leaves in its
            `SEARCH_FOLDER` are the model. None: nothing is trained again and tested.

    Raises:
        InputError: the text or the pattern has a mistake.

    >>> search.Command("python train.py --lr {lr} --epochs {epochs}").text
    'python train.py --lr {lr} --epochs {epochs}'
    """

    text: str
    pattern: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = field(default_factory=os.getcwd)
    final: str | None = None

    def __post_init__(self) -> None:
        self._check_texts()
        for text in self._texts:
            try:
                words = shlex.split(text)
            except ValueError as error:
                raise InputError(f"command: {text}: {str(error).lower()}") from error
            if not words:
                raise InputError("command: it is empty")
            for word in words:
                self._fields(word)
            self._check_shell(text, words[0])
        if self.pattern is not None:
            self._check_pattern(self.pattern)

    @property
    def _texts(self) -> list[str]:
        """The command of the trials, and that of the final training."""
        return [self.text, *([] if self.final is None else [self.final])]

    def __repr__(self) -> str:
        """The call that makes the command, with `***` in place of the values of its environment: they may be secret."""
        return self._call(dict.fromkeys(self.environment, "***"))

    def _call(self, environment: dict[str, str]) -> str:
        final = "" if self.final is None else f", final={self.final!r}"
        return (
            f"{type(self).__name__}(text={self.text!r}, pattern={self.pattern!r}, environment={environment!r}, "
            f"folder={self.folder!r}{final})"
        )

    def _check_texts(self) -> None:
        """Raises InputError if no process can get the words, the environment or the folder."""
        for kind, text in (*(("command", text) for text in self._texts), ("folder", os.fspath(self.folder))):
            if not isinstance(text, str):
                raise InputError(f"{kind}: {text!r}: expected a text")
            if not is_system_text(text):
                raise InputError(f"{kind}: {text!a}: no program can receive this text")
        for name, value in self.environment.items():
            if not isinstance(name, str) or not name or "=" in name or not is_system_text(name):
                raise InputError(f"environment: {name!a}: a name is a text without `=`, `\\0` and lone surrogates")
            if not isinstance(value, str):
                raise InputError(f"environment: the value of {name!r}: expected a text")
            if not is_system_text(value):  # the value may be secret
                raise InputError(f"environment: the value of {name!r}: no program can receive this text")

    @staticmethod
    def _check_shell(command: str, program: str) -> None:
        """Raises InputError if a word has a meaning for a shell, which no shell reads here."""
        masked = _PLAIN.sub(lambda plain: "0" * len(plain.group()), command)
        shell = "start one by `sh -c '...'`, with the line in quotes"
        for number, word in enumerate(re.finditer(r"\S+", masked)):
            text = command[word.start() : word.end()]
            if number == 0 and (variable := _VARIABLE.match(word.group())):
                text = f"{variable.group()}..."  # the value may be secret
                raise InputError(f"command: {text!r} needs a shell: {shell}, or write `env {text}`")
            if _SHELL.search(word.group()):
                raise InputError(f"command: {text!r} needs a shell: {shell}; if it is plain text, put it in quotes")
        if program in _BUILTINS:
            raise InputError(f"command: {program!r} needs a shell: {shell}")

    def check_objective(self, objective: str) -> None:
        """Raises InputError if the pattern has no group for the objective."""
        groups = [] if self.pattern is None else list(regex.compile(self.pattern).groupindex)
        if groups and objective not in groups:
            raise InputError(
                f"pattern: {self.pattern!r}: has the groups {', '.join(groups)}, without the objective {objective!r}: "
                f"name a group (?P<{objective}>\\S+)"
            )

    @staticmethod
    def _check_pattern(pattern: str) -> None:
        try:
            groups = regex.compile(pattern).groupindex
        except regex.error as error:
            raise InputError(f"pattern: {pattern!r}: no regular expression ({error})") from error
        if not groups:
            raise InputError(f"pattern: {pattern!r}: has no named group, such as (?P<val_loss>\\S+)")

    @staticmethod
    def _fields(word: str) -> list[tuple[str, str | None, str, str | None]]:
        """The parts of a word as `string.Formatter.parse` gives them: text, name, format, conversion.

        Raises:
            InputError: the braces are not balanced, or hold no name.
        """
        try:
            fields = string.Formatter().parse(word)
            parts = [(text, name, spec or "", conversion) for text, name, spec, conversion in fields]
        except ValueError as error:
            raise InputError(f"command: {word}: {error}; literal braces are doubled: {{{{ }}}}") from error
        if any(name == "" for _, name, _, _ in parts):
            raise InputError(f"command: {word}: {{}} has no name; literal braces are doubled: {{{{ }}}}")
        for _, name, spec, conversion in parts:
            if name is not None:
                _check_format(name, spec, conversion)
        return parts

    @property
    def __name__(self) -> str:
        """The name of the program: the first word that names a script, else the first word, without its suffix."""
        words = shlex.split(self.text)
        files = [word for word in words if word.endswith((".py", ".sh", ".jl", ".R"))]
        return re.sub(r"\W", "_", Path((files or words)[0]).stem)

    def check(self, names: Collection[str], optional: Collection[str] = (), objective: str | None = None) -> None:
        """Checks the names in braces and the groups of the pattern.

        Args:
            names: the hyperparameters.
            optional: the hyperparameters that may have no value in a trial.
            objective: the name of the metric that the search optimises; None leaves the pattern unchecked.

        Raises:
            InputError: a name is unknown, or is both a hyperparameter and a standard name. An optional hyperparameter
                is in a word with blanks, such as the word after `sh -c`: a trial without its value can leave out whole
                words only. The pattern has no group for the objective.
        """
        if objective is not None:
            self.check_objective(objective)
        for word in [word for text in self._texts for word in shlex.split(text)]:
            for _, name, _, _ in self._fields(word):
                if name is None:
                    continue
                if name not in names and name not in STANDARD_NAMES:
                    allowed = ", ".join([*sorted(names), *STANDARD_NAMES])
                    raise InputError(
                        f"command: {{{name}}}: no hyperparameter of that name; there are {allowed}; literal braces are "
                        "doubled: {{ }}"
                    )
                if name in names and name in STANDARD_NAMES:
                    raise InputError(
                        f"command: {{{name}}}: is {STANDARD_NAMES[name]} and also a hyperparameter: give the "
                        "hyperparameter another name"
                    )
                if name in optional and len(word.split()) > 1:
                    raise InputError(f"command: {_no_value(name, word)}")

    def fingerprint(self) -> str:
        """The command as text, and a line with a hash for its environment and for each program's file.

        Programs are files with a suffix of `_PROGRAMS`, modules after `-m`, and executables in `folder`. Data files and
        imported modules are not hashed. The values of the environment are only in the hash.
        """
        lines = self._own_lines()
        for path in sorted(set(self._programs())):
            content = (Path(self.folder) / path).read_bytes()
            lines.append(f"# {path}: {_hash(content)}")
        return "\n".join(lines) + "\n"

    def _own_lines(self) -> list[str]:
        lines = [repr(self)]
        if self.environment:
            lines.append(f"# the environment: {_hash(json.dumps(self.environment, sort_keys=True).encode())}")
        return lines

    def changed(self, fingerprint: str) -> list[str]:
        """The parts that changed since `fingerprint` was made: `the command`, `the environment`, or names of
        programs."""
        before, now = fingerprint.splitlines(), self.fingerprint().splitlines()
        if before[0] == self._call(self.environment):  # an earlier version wrote the values of the environment
            before = [*self._own_lines(), *before[1:]]
        if before[0] != now[0]:
            return ["the command"]
        return sorted({line[2:].rpartition(": ")[0] for line in set(before) ^ set(now)})

    def _programs(self) -> Iterator[str]:
        folder = Path(self.folder).resolve()
        words = [part for text in self._texts for word in shlex.split(text) for part in word.split()]
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
        """Runs the command for a trial and yields the metrics of its epochs. Closing the generator ends the process."""
        epochs = Epochs(trial.objective)
        done = trial.restore(command=epochs)
        if trial.final:
            yield from self._train_finally(trial, done)
            return
        process = self._start(self.text, trial, done)
        try:
            reports = self._epochs(process, epochs, trial, done)
            for due in range(done + 1, trial.of + 1):
                report = next((report for report in reports if report[0] >= due), None)
                if report is None:
                    self._check_end(process, epochs, trial, done, due)
                    return
                epoch, metrics = report
                if epoch > due:
                    raise TrainingError(_skipped_epoch(epochs, epoch, due))
                if due == 1 and trial.of > 1 and process.seconds > BUFFERED and process.wait(END) is not None:
                    trial.messages.append(
                        "its first report came when the command ended, too late to stop it: the command buffers its "
                        "output; flush it after each line, or put `stdbuf -oL` before the command"
                    )
                yield metrics
            if not self._exceeds_last_epoch(reports, epochs, trial):
                self._check_end(process, epochs, trial, done, trial.of + 1)
        finally:
            process.end()

    def _start(self, text: str, trial: Trial, done: int) -> Process:
        log = None if trial.folder is None else trial.folder / "output.log"
        environment = {**self._variables(trial, done), **self.environment}
        return Process(self._words(text, trial), self.folder, environment, log)

    def _train_finally(self, trial: Trial, done: int) -> Iterator[dict[str, float]]:
        """Runs the final command, and keeps the last value of each metric in `trial.figures`.

        It yields the metrics of the epochs after `done`, at most up to epoch `trial.of`.
        """
        process = self._start(self.text if self.final is None else self.final, trial, done)

        def kept() -> Iterator[dict[str, float]]:
            for report in self._reports(process):
                trial.figures |= {name: value for name, value in report.items() if name not in ("epoch", "step")}
                yield report

        try:
            for epoch, metrics in epochs_of(kept(), trial.objective):
                if done < epoch <= trial.of:
                    done = epoch
                    yield metrics
            code, last_lines = process.wait() or 0, "\n".join(process.tail)
            if code:
                end = f"was ended by {_signal(-code)}" if code < 0 else f"ended with code {code}"
                raise TrainingError(f"the final command {end}; its last lines:\n{last_lines}")
        finally:
            process.end()

    def _reports(self, process: Process) -> Iterator[dict[str, float]]:
        """Yields the metrics that a process reports; a report of `progress` goes to the observers of the epoch."""
        for line in process.lines():
            for metrics in reported(line, self.pattern):
                if (progress := metrics.pop("progress", None)) is not None:
                    if not 0 <= progress <= 1:
                        raise TrainingError(f"the command reports the progress {progress:g}: expected 0 to 1")
                    if progress:
                        step_ended(progress, 1.0)
                if metrics or progress is None:
                    yield metrics

    def _epochs(
        self, process: Process, epochs: Epochs, trial: Trial, done: int
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """Yields the epochs that a process reports, also those that the search knows already."""
        for metrics in self._reports(process):
            epoch = epochs.add(metrics)
            if epoch is None:
                continue
            if done and epochs.named and epoch[0] == 1:
                trial.messages.append("the command began with epoch 1; reports of known epochs are ignored")
            yield epoch

    @staticmethod
    def _exceeds_last_epoch(reports: Iterator[tuple[int, dict[str, float]]], epochs: Epochs, trial: Trial) -> bool:
        """Reads the output after the last epoch; returns True as soon as the command reports one more epoch.

        Raises:
            TrainingError: the command reported epochs 0 to `trial.of`, so that each epoch was taken for the next one.
        """
        # One more report is allowed if it may be a summary of the best or last epoch, without a number.
        beyond = trial.of + (epochs.first == 0 or not epochs.named)
        last = 0
        for last, _ in reports:
            if last > beyond:
                return True
        if last > trial.of and epochs.first == 0 and epochs.named:
            raise TrainingError(
                f"the command reports epochs 0 to {trial.of}, but a trial has {trial.of} epochs: if epoch 0 is an "
                "evaluation before the training, do not report it"
            )
        return False

    def _words(self, text: str, trial: Trial) -> list[str]:
        """The words of a command with the values of a trial."""
        values = {**self._standard_values(trial), **trial.params}
        words: list[str] = []
        follows_flag = False
        for word in shlex.split(text):
            parts = self._fields(word)
            names = [name for _, name, _, _ in parts if name is not None]
            whole = len(parts) == 1 and not parts[0][0] and names[0] in trial.params  # the word is one `{name}`
            missing = [name for name in names if values[name] is None]
            if missing and len(word.split()) > 1:
                raise TrainingError(f"command: {_no_value(missing[0], word)}")
            if missing or (whole and values[names[0]] == ""):
                if missing and whole and follows_flag:
                    del words[-1]
                follows_flag = False
                continue
            words.append(_filled(parts, values, word))
            follows_flag = not names and word.startswith("-")
        return words

    def _standard_values(self, trial: Trial) -> dict[str, Any]:
        return {
            "epochs": trial.of, "seed": trial.seed, "device": str(trial.device), "folder": trial.folder or "",
            "trial": trial.number,
        }  # fmt: skip

    def _variables(self, trial: Trial, done: int) -> dict[str, str]:
        variables = {f"SEARCH_{key.upper()}": str(value) for key, value in self._standard_values(trial).items()}
        own = {"SEARCH_PARAMS": json.dumps(trial.params), "SEARCH_EPOCH": str(done), "PYTHONUNBUFFERED": "1"}
        return variables | own | ({"SEARCH_FINAL": "1"} if trial.final else {})

    def _check_end(self, process: Process, epochs: Epochs, trial: Trial, done: int, due: int) -> None:
        """Raises unless a command ended with code 0 after at least one epoch."""
        code, last_lines = process.wait() or 0, "\n".join(process.tail)
        has_epochs = due > 1
        when = "after its last epoch" if due > trial.of else f"before epoch {due}"
        if code:
            end = f"was ended by {_signal(-code)}" if code < 0 else f"ended with code {code}"
            # By convention 2 means wrong arguments, 126 and 127 that the program cannot be started.
            error = TrainingError if code in (2, 126, 127) and not has_epochs else CommandFailed
            hint = self._flag_hint(trial) if code == 2 else ""
            raise error(f"the command {end} {when}{hint}; its last lines:\n{last_lines}")
        if done and epochs.count and not epochs.named and epochs.count == trial.of - done:
            raise TrainingError(
                f"the command was started again after epoch {done} and reported {epochs.count} epochs without their "
                "numbers: a program that continues after a kill has to report `epoch`"
            )
        if has_epochs:
            return
        if epochs.partial:
            raise TrainingError(epochs.objective_missing("metrics"))
        expected = f"{MARK} {{...}}" if self.pattern is None else f"the pattern {self.pattern!r}"
        raise TrainingError(
            f"the command ended with code 0 before epoch 1: no line of its output has {expected}; its last lines:\n"
            f"{last_lines}"
        )

    def _flag_hint(self, trial: Trial) -> str:
        """A hint if the command has a Boolean hyperparameter: most programs do not take `True` as a value."""
        names = {name for word in shlex.split(self.text) for _, name, _, _ in self._fields(word)}
        flags = [name for name in names if name is not None and isinstance(trial.params.get(name), bool)]
        if not flags:
            return ""
        return f' (a flag without a value is `{{{flags[0]}}}` with choice: ["--{flags[0]}", ""])'


def _check_format(name: str, spec: str, conversion: str | None) -> None:
    """Raises InputError if `{name!conversion:spec}` fails for values of each type."""
    field = f"{{{name}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}}}"
    mistake = f"no value has the format {spec!r}"
    if "{" in spec:
        mistake = "a format cannot hold braces"
    elif conversion not in (None, "r", "s", "a"):
        mistake = "expected one of !r, !s and !a"
    else:
        for value in _SAMPLES:
            with suppress(ValueError, TypeError):
                format(string.Formatter().convert_field(value, conversion), spec)
                return
    raise InputError(f"command: {field}: {mistake}; literal braces are doubled: {{{{ }}}}")


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def _filled(parts: list[tuple[str, str | None, str, str | None]], values: Mapping[str, Any], word: str) -> str:
    formatter, filled = string.Formatter(), ""
    for text, name, spec, conversion in parts:
        filled += text
        if name is not None:
            try:
                filled += formatter.format_field(formatter.convert_field(values[name], conversion), spec)
            except (TypeError, ValueError) as error:
                raise TrainingError(f"command: {word}: {name} is {values[name]!r}: {error}") from error
    return filled


def _signal(number: int) -> str:
    """The name of a signal; real-time signals have none."""
    return signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"


def _no_value(name: str, word: str) -> str:
    return (
        f"{{{name}}} has no value if its `when` does not hold, and cannot be left out of {word!r}: make it a separate "
        "word outside a shell, or read SEARCH_PARAMS"
    )


def _skipped_epoch(epochs: Epochs, epoch: int, due: int) -> str:
    shift = 1 - (epochs.first or 0)
    return (
        f"the command reports epoch {epoch - shift} where epoch {due - shift} is due: report each epoch; if the "
        "numbers are steps, call them `step`: reports are then counted, and --epochs is their number"
    )
