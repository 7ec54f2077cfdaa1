"""Trains by any command: a process in any language that reports metrics in its output."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import regex

from trainables.base.errors import InputError
from trainables.base.training import step_ended
from trainables.loops import LOG
from trainables.loops.errors import CommandFailed, TrainingError
from trainables.loops.process import Process, is_system_text
from trainables.loops.reports import MARK, Epochs, Steps, epochs_of, reported
from trainables.loops.steps import left_out, position_of, report_at
from trainables.loops.template import check_template, fill_template, read_template
from trainables.loops.trial import Trial
from trainables.loops.words import FLAG, Line, no_value

#: Names that a command may have in braces, in addition to the hyperparameters, and their meanings.
STANDARD_NAMES = {
    "epochs": "the number of epochs", "seed": "the seed of the trial", "device": "the device of the trial",
    "folder": "the folder of the trial", "trial": "the number of the trial",
}  # fmt: skip
#: Further names in a search that counts in steps.
STEP_NAMES = {"steps": "the number of steps", "report_every": "the number of steps from one report to the next"}
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
    a `pattern`, each line that matches it is a report; the groups of several patterns in a line make one report. A
    program may count epochs from 0 or from 1.
    Reports without `epoch` are counted; a report with `step` 0 is ignored, because its model is untrained. A report
    without the objective is added to the next report, so that a line for training and a line for validation make one
    epoch. If the objective is not in the last line of an epoch, `report_at` names a metric of that line.
    `98.00%` is read as 98, `1,234.5` as 1234.5.

    **Steps.** In a search that counts in steps, `step` (or `tokens`, or `samples`) says where a report stands. Reports
    between two multiples of `report_every` are left out.

    **The end.** The trial is complete when the process ends with code 0, also before its last epoch. After the last
    epoch the process has `search.stall_timeout` to end. Another code makes the trial fail; its epochs still count. A
    process gets SIGTERM if its trial is stopped, or if it reports epochs beyond the last.

    **Environment.** All names of braces are variables too:

        SEARCH_EPOCHS, SEARCH_SEED, SEARCH_DEVICE, SEARCH_TRIAL: the number of epochs, the seed, the device, the trial.
        SEARCH_STEPS, SEARCH_REPORT_EVERY, SEARCH_STEP: the number of steps, the steps from one report to the next, and
            the steps that the search knows from before a kill, in a search that counts in steps.
        SEARCH_FOLDER: a folder of the trial, which is the same after a kill.
        SEARCH_PARAMS: the hyperparameters as JSON.
        SEARCH_FINAL: `1` in the final training; not set in trials.
        SEARCH_EPOCH: the number of epochs that the search knows from before a kill. Reports of these epochs are
            ignored. A program that continues after them has to report `epoch`.

    **Hyperparameters without a value.** If the `when` of a hyperparameter does not hold, its word is left out of the
    command, together with a flag directly before it: `dropout={dropout}` as well as `--dropout {dropout}`. An empty
    text leaves its word out too. Literal braces are doubled: `{{`.

    **Flags without a value.** `{amp:flag}` is `--amp` if the hyperparameter is true, and nothing if it is false. Other
    words end with it: `--use-amp{amp:flag}` is `--use-amp` or nothing.

    **Config files.** `template` is a text file, such as YAML, JSON or TOML, with names in doubled braces: `lr: {{lr}}`.
    Each trial gets a copy with its values in its folder, and `{template}` in the command is the path of this copy.
    Doubled braces that hold no such name stay as they are. A text has no quotes. If a hyperparameter has no value, its
    line is left out; in a `.json` file it is `null`.

    **Output.** A program must not hold its lines back. Python does not, because `PYTHONUNBUFFERED` is set. Programs
    that use the C library do not, because they run as under `stdbuf -oL`, where the machine has it.

    Attributes:
        text: the command. No shell reads it, unless `shell` is true.
        pattern: a regular expression with named groups, such as `epoch (?P<epoch>\\\\d+) loss (?P<val_loss>\\\\S+)`; or
            several.
        environment: additional variables. Their values are secret: no report and no text shows them.
        folder: the working directory; by default the folder where the search is started.
        report_at: the metric whose line completes an epoch; by default the objective.
        template: the path of a config file.
        shell: whether a shell reads the command, for `|`, `&&`, `cd` and `$HOME`. Names in braces stand outside of
            quotes; the values get the quotes that they need. The shell is `bash` with `pipefail`, else `sh`.
        final: the command of the final training, which follows the trials. The names in its braces are the same, and
            `{epochs}` is the best number of epochs. The last report of each metric is a test figure: the objective
            `val_loss` may be reported as `test_loss`, `loss` or `val_loss`. The files that it leaves in its
            `SEARCH_FOLDER` are the model. None: nothing is trained again and tested.

    Raises:
        InputError: the text, a pattern or the template has a mistake.

    >>> search.Command("python train.py --lr {lr} --epochs {epochs}").text
    'python train.py --lr {lr} --epochs {epochs}'
    """

    text: str
    pattern: str | Sequence[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = field(default_factory=os.getcwd)
    report_at: str | None = None
    template: str | None = None
    shell: bool = False
    final: str | None = None

    def __post_init__(self) -> None:
        self._check_texts()
        fields = [named for line in self._lines for named in line.fields()]
        patterns = self.patterns
        for pattern in patterns:
            self._check_pattern(pattern)
        if len(patterns) != 1:
            object.__setattr__(self, "pattern", patterns or None)
        else:  # as searches of earlier versions stored it
            object.__setattr__(self, "pattern", patterns[0])
        if self.template is not None:
            object.__setattr__(self, "template", os.fspath(self.template))
            read_template(Path(self.folder, self.template))
            if not any(name == "template" for name, _, _ in fields):
                raise InputError(
                    f"template: {self.template}: the command does not get it: add {{template}}, as in `--config "
                    "{template}`"
                )

    def __repr__(self) -> str:
        """The call that makes the command, with `***` in place of the values of its environment: they may be secret."""
        return self._call(dict.fromkeys(self.environment, "***"))

    def _call(self, environment: dict[str, str]) -> str:
        given: dict[str, Any] = {
            "text": self.text,
            "pattern": self.pattern,
            "environment": environment,
            "folder": self.folder,
        }
        # Searches of earlier versions stored the call without these.
        later = {"report_at": self.report_at, "template": self.template, "shell": self.shell, "final": self.final}
        given |= {name: value for name, value in later.items() if value}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    @property
    def patterns(self) -> tuple[str, ...]:
        """The regular expressions of `pattern`."""
        if self.pattern is None:
            return ()
        return (self.pattern,) if isinstance(self.pattern, str) else tuple(self.pattern)

    @property
    def words(self) -> list[str]:
        """The words of the text, without quotes, and with names in braces."""
        return self._lines[0].plain_words

    @property
    def _lines(self) -> list[Line]:
        """The command of the trials, and that of the final training."""
        return [Line(text, self.shell) for text in (self.text, self.final) if text is not None]

    def _check_texts(self) -> None:
        """Raises InputError if no process can get the words, the environment or the folder."""
        texts = {
            "command": self.text, "final": "" if self.final is None else self.final,
            "folder": os.fspath(self.folder), "template": os.fspath(self.template or ""),
        }  # fmt: skip
        for kind, text in texts.items():
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

    def check_objective(self, objective: str) -> None:
        """Raises InputError if no pattern has a group for the objective, or for `report_at`."""
        groups = list(dict.fromkeys(name for pattern in self.patterns for name in regex.compile(pattern).groupindex))
        if groups and objective not in groups:
            shown = ", ".join(map(repr, self.patterns))
            raise InputError(
                f"pattern: {shown}: has the groups {', '.join(groups)}, without the objective {objective!r}: "
                f"name a group (?P<{objective}>\\S+)"
            )
        if groups and self.report_at is not None and self.report_at not in groups:
            raise InputError(f"report_at: {self.report_at!r}: no pattern has this group; there are {', '.join(groups)}")

    @staticmethod
    def _check_pattern(pattern: str) -> None:
        if not isinstance(pattern, str):
            raise InputError(f"pattern: {pattern!r}: expected a text, or a list of texts")
        try:
            groups = regex.compile(pattern).groupindex
        except regex.error as error:
            raise InputError(f"pattern: {pattern!r}: no regular expression ({error})") from error
        if not groups:
            raise InputError(f"pattern: {pattern!r}: has no named group, such as (?P<val_loss>\\S+)")

    @property
    def __name__(self) -> str:
        """The name of the program: the first word that names a script, else the first word, without its suffix."""
        words = self.words
        files = [word for word in words if word.endswith((".py", ".sh", ".jl", ".R"))]
        return re.sub(r"\W", "_", Path((files or words)[0]).stem)

    def check(
        self, names: Collection[str], optional: Collection[str] = (), objective: str | None = None,
        truths: Collection[str] | None = None, steps: bool = False,
    ) -> list[str]:  # fmt: skip
        """Checks the names in braces, in the command and in its template, and the groups of the patterns.

        Args:
            names: the hyperparameters.
            optional: the hyperparameters that may have no value in a trial.
            objective: the name of the metric that the search optimises; None leaves the patterns unchecked.
            truths: the hyperparameters whose values are true and false; None leaves flags unchecked.
            steps: whether the search counts in steps.

        Returns:
            Notes for the user: hyperparameters that neither the command nor the template holds.

        Raises:
            InputError: a name is unknown, or is both a hyperparameter and a standard name. An optional hyperparameter
                is in a word with blanks, such as the word after `sh -c`: a trial without its value can leave out whole
                words only. A flag is not true or false. The pattern has no group for the objective.
        """
        if objective is not None:
            self.check_objective(objective)
        standard, used = self._standard_names(steps), set()
        for name, spec, word in [named for line in self._lines for named in line.fields()]:
            used.add(name)
            if name not in names and name not in standard:
                allowed = ", ".join([*sorted(names), *standard])
                more = "; give the file with --template" if name == "template" else ""
                raise InputError(
                    f"command: {{{name}}}: no hyperparameter of that name; there are {allowed}; literal braces are "
                    f"doubled: {{{{ }}}}{more}"
                )
            if name in optional and len(word.split()) > 1:
                raise InputError(f"command: {no_value(name, word)}")
            if spec == FLAG and truths is not None and name not in truths:
                raise InputError(
                    f"command: {{{name}:{FLAG}}}: a flag is true or false: write {name}: {{choice: [true, false]}} in "
                    "the space"
                )
        if self.template is not None:
            used |= check_template(Path(self.folder, self.template), {*names, *standard}, optional)
        for name in used & standard.keys():
            if name in names:
                raise InputError(
                    f"command: {{{name}}}: is {standard[name]} and also a hyperparameter: give the hyperparameter "
                    "another name"
                )
        if self.template is None:
            return []
        return [
            f"note: {name}: is not in the command and not in {self.template}; the program can read SEARCH_PARAMS"
            for name in names
            if name not in used
        ]

    def _standard_names(self, steps: bool) -> dict[str, str]:
        more = {} if self.template is None else {"template": "the template with the values of the trial"}
        return STANDARD_NAMES | (STEP_NAMES if steps else {}) | more

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
        if self.template is not None and (folder / self.template).is_file():
            yield os.fspath(self.template)
        words = [part for line in self._lines for word in line.plain_words for part in word.split()]
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
        if trial.report_every:
            epochs: Epochs = Steps(trial.objective, trial.report_every, self.report_at)
        else:
            epochs = Epochs(trial.objective, self.report_at)
        done = trial.restore(command=epochs)
        log = None if trial.folder is None else trial.folder / LOG
        with ExitStack() as ends:
            values = self._standard_values(trial)
            if self.template is not None:
                folder = trial.folder or Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="trial-")))
                values["template"] = str(folder / Path(self.template).name)
                fill_template(Path(self.folder, self.template), Path(values["template"]), {**values, **trial.params})
            environment = {**self._variables(trial, values, done), **self.environment}
            line = self._lines[-1 if trial.final else 0]
            words = line.filled({**values, **trial.params}, trial.params)
            process = Process(words, self.folder, environment, log)
            if trial.final:
                yield from self._train_finally(process, trial, done)
            else:
                yield from self._run(process, epochs, trial, done)

    def _run(self, process: Process, epochs: Epochs, trial: Trial, done: int) -> Iterator[dict[str, float]]:
        """Yields the metrics of the epochs of a process, and ends it."""
        try:
            reports = self._epochs(process, epochs, trial, done)
            for due in range(done + 1, trial.of + 1):
                report = next((report for report in reports if report[0] >= due), None)
                if report is None:
                    self._check_end(process, epochs, trial, done, due)
                    return
                epoch, metrics = report
                if epoch > due:
                    raise TrainingError(_skipped_epoch(epochs, trial, epoch, due))
                if due == 1 and trial.of > 1 and process.seconds > BUFFERED and process.wait(END) is not None:
                    trial.messages.append(
                        "its first report came when the command ended, too late to stop it: the command buffers its "
                        "output; flush it after each line"
                    )
                yield metrics
            if not self._exceeds_last_epoch(reports, epochs, trial):
                self._check_end(process, epochs, trial, done, trial.of + 1)
        finally:
            process.end()

    def _train_finally(self, process: Process, trial: Trial, done: int) -> Iterator[dict[str, float]]:
        """Keeps the last value of each metric that a final command reports in `trial.figures`, and ends it.

        It yields the metrics of the epochs after `done`, at most up to epoch `trial.of`.
        """

        def kept() -> Iterator[dict[str, float]]:
            for report in self._reports(process):
                trial.figures |= {name: value for name, value in report.items() if name not in ("epoch", "step")}
                if trial.report_every and (position := position_of(report)):
                    report["epoch"] = report_at(position, trial.report_every)
                yield report

        try:
            for epoch, metrics in epochs_of(kept(), trial.objective):
                if done < epoch <= trial.of:
                    done = epoch
                    yield metrics
            code, last_lines = process.wait() or 0, "\n".join(process.tail)
            if code:
                raise TrainingError(f"the final command {_ending(code)}; its last lines:\n{last_lines}")
        finally:
            process.end()

    def _reports(self, process: Process) -> Iterator[dict[str, float]]:
        """Yields the metrics that a process reports; a report of `progress` goes to the observers of the epoch."""
        for line in process.lines():
            for metrics in reported(line, self.patterns):
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
            if isinstance(epochs, Steps) and epochs.left_out:
                trial.messages.append(left_out(trial.report_every or 1))
                epochs.left_out = False
            if epoch is None:
                continue
            if done and epochs.named and epoch[0] == 1:
                trial.messages.append(
                    f"the command began with {trial.at(1)}; reports of known {trial.unit}s are ignored"
                )
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

    @staticmethod
    def _standard_values(trial: Trial) -> dict[str, Any]:
        values = {
            "epochs": trial.of, "seed": trial.seed, "device": str(trial.device), "folder": trial.folder or "",
            "trial": trial.number,
        }  # fmt: skip
        return values | {name: value for name, value in _steps_of(trial).items() if value is not None}

    @staticmethod
    def _variables(trial: Trial, values: Mapping[str, Any], done: int) -> dict[str, str]:
        variables = {f"SEARCH_{key.upper()}": str(value) for key, value in values.items()}
        own = {"SEARCH_PARAMS": json.dumps(trial.params), "SEARCH_EPOCH": str(done), "PYTHONUNBUFFERED": "1"}
        if trial.report_every is not None:
            own["SEARCH_STEP"] = str(done * trial.report_every)
        return variables | own | ({"SEARCH_FINAL": "1"} if trial.final else {})

    def _check_end(self, process: Process, epochs: Epochs, trial: Trial, done: int, due: int) -> None:
        """Raises unless a command ended with code 0 after at least one epoch."""
        code, last_lines = process.wait() or 0, "\n".join(process.tail)
        has_epochs = due > 1
        when = f"after its last {trial.unit}" if due > trial.of else f"before {trial.at(due)}"
        if code:
            # By convention 2 means wrong arguments, 126 and 127 that the program cannot be started.
            error = TrainingError if code in (2, 126, 127) and not has_epochs else CommandFailed
            hint = self._flag_hint(trial) if code == 2 else ""
            raise error(f"the command {_ending(code)} {when}{hint}; its last lines:\n{last_lines}")
        if done and epochs.count and not epochs.named and epochs.count == trial.of - done:
            raise TrainingError(
                f"the command was started again after {trial.at(done)} and reported {epochs.count} {trial.unit}s "
                f"without their numbers: a program that continues after a kill has to report `{trial.unit}`"
            )
        if has_epochs:
            return
        if epochs.partial:
            raise TrainingError(epochs.objective_missing("metrics"))
        expected = " or ".join(f"the pattern {pattern!r}" for pattern in self.patterns) or f"{MARK} {{...}}"
        raise TrainingError(
            f"the command ended with code 0 before {trial.at(1)}: no line of its output has {expected}; its last "
            f"lines:\n{last_lines}"
        )

    def _flag_hint(self, trial: Trial) -> str:
        """A hint if the command has a Boolean hyperparameter: most programs do not take `True` as a value."""
        names = {name for name, spec, _ in self._lines[0].fields() if not spec}
        flags = [name for name in names if isinstance(trial.params.get(name), bool)]
        if not flags:
            return ""
        return f" (a flag without a value is `{{{flags[0]}:{FLAG}}}`)"


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def _ending(code: int) -> str:
    """How a process with this exit code ended; a negative code is a signal, and real-time signals have no name."""
    if code >= 0:
        return f"ended with code {code}"
    return f"was ended by {signal.Signals(-code).name if -code in list(signal.Signals) else f'signal {-code}'}"


def _steps_of(trial: Trial) -> dict[str, int | None]:
    """The values of the names `steps` and `report_every`; None in a search that counts in epochs."""
    every = trial.report_every
    return {"steps": None if every is None else trial.max_steps, "report_every": every}


def _skipped_epoch(epochs: Epochs, trial: Trial, epoch: int, due: int) -> str:
    if trial.report_every is not None:
        return (
            f"the command reports {trial.at(epoch)} where {trial.at(due)} is due: let it report after each "
            f"{trial.report_every} steps, or search with another --report-every"
        )
    shift = 1 - (epochs.first or 0)
    return (
        f"the command reports epoch {epoch - shift} where epoch {due - shift} is due: report each epoch; if the "
        "numbers are steps, call them `step`, and search with --steps and --report-every"
    )
