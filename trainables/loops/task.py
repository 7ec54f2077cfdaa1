"""A user's training function or command as a task: the function is the data of the task."""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
import re
import shlex
import sys
import time
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import cloudpickle
import numpy as np
import pandas as pd
import torch

from trainables.base.device import Device
from trainables.base.digests import digest
from trainables.base.errors import InputError, first_line
from trainables.base.files import file_safe, replacing
from trainables.base.health import EnergyMeter, MemoryPeak
from trainables.base.task import DataInfo, Objective, Params, Progress, Splits, array_digest
from trainables.base.training import Ended
from trainables.loops import ENDS_WITH_TRAINING, LOG, OTHERS, models
from trainables.loops.command import Command
from trainables.loops.errors import TrainingError
from trainables.loops.figures import TestFigures
from trainables.loops.fingerprint import LATE, changed_modules, own_modules, parts_of
from trainables.loops.output import Output
from trainables.loops.trial import Loop, TrainingFunction, Trial

if TYPE_CHECKING:
    from trainables.loops.ranks import Ranks

T = TypeVar("T")
#: The digest behind a pickle in its file.
_DIGEST = re.compile(rb"\n# (crc32:[0-9a-f]{8})\Z")
#: The stream that receives the output of functions in this process.
_OUTPUT = Output()
#: The digest of the code that this process ran last.
_last_digest: str | None = None


@dataclass(frozen=True)
class Code:
    """A training function for workers and files.

    Attributes:
        pickled: the function, pickled with cloudpickle.
        source: its source, for people.
        name: a name for files.
        folder: the folder of the program that started the search, where the function's modules are.
        origin: the place of its definition, such as `/path/mine.py:train`.
        parts: a hash of each part of the code that it runs, by name; empty for a command.
        here: the working directory. It may differ in each session.
        tracking: the address of MLflow's store. It may differ in each session.
        report_every: the steps from one report to the next; None in a search that counts in epochs.
        others: the functions `test`, `export` and `predict` of the program, by these names.
        final: whether the program trains its final model, so that `trial.final` is true.
    """

    pickled: bytes
    source: str
    name: str
    folder: str = ""
    origin: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    here: str = ""
    tracking: str = ""
    report_every: int | None = None
    others: Mapping[str, Code] = field(default_factory=dict)
    final: bool = False

    @staticmethod
    def of(train: TrainingFunction, others: Mapping[str, Callable[..., Any] | None] | None = None) -> Code:
        """Packs a function or a `Command`, and the other functions of the program.

        Code of the user's own modules that the function refers to is packed too. Workers may not find these modules,
        and a later change to them must not mix two versions in one search.

        Args:
            others: functions by the names of `OTHERS`; None for a function that the program does not have.

        Raises:
            InputError: `train` or another one is no function, or cannot be pickled, or a command has another function
                than `predict`.
        """
        if not callable(train):
            raise InputError(f"train: {train!r}: expected a function that takes a trial and yields metrics")
        if packed := packed_others(others or {}, isinstance(train, Command)):
            return replace(Code.of(train), others=packed)
        function = train.func if isinstance(train, functools.partial) else train
        name = file_safe(getattr(function, "__name__", type(function).__name__)) or "search"
        folder = str(Path(sys.path[0]).resolve())
        if isinstance(train, Command):
            return Code(cloudpickle.dumps(train), train.fingerprint(), name, folder, _origin_of(train))
        try:
            source = inspect.getsource(train)
        except (OSError, TypeError):  # the function was typed into a shell
            source = f"# the source of {name} is not known\n"
        parts = parts_of(train) or {name: array_digest([source.encode()])}
        return Code(_pickled(train), source, name, folder, f"{_file_of(train)}:{name}", parts)

    @property
    def digest(self) -> str:
        """A hash of all code that the function and the others run; for a command, of its source."""
        own = json.dumps(self.parts, sort_keys=True).encode() if self.parts else self.source.encode()
        return array_digest([own, *(f"{name} {code.digest}".encode() for name, code in sorted(self.others.items()))])

    def changed(self, stored: Code) -> list[str]:
        """The parts that differ from the code that a search stored: `scale`, and `test()` for the function `test`."""
        names = self.others.keys() | stored.others.keys()
        others = [name for name in names if _digest_of(self.others.get(name)) != _digest_of(stored.others.get(name))]
        functions = sorted(f"{name}()" for name in others)
        if (command := self.command) is not None:
            return [*command.changed(stored.source), *functions]
        parts = self.parts.keys() | stored.parts.keys()
        return [*sorted(name for name in parts if self.parts.get(name) != stored.parts.get(name)), *functions]

    @property
    def brings(self) -> tuple[str, ...]:
        """What the program has for the time after its trials: names of `OTHERS`, and `final` for a final command."""
        command = self.command
        final = ["final"] if command is not None and command.final is not None else []
        return (*final, *(name for name in OTHERS if name in self.others))

    def write(self, path: Path) -> None:
        """Writes the function to `path`, its source to `.py` and its parts to `.json`.

        A digest follows the pickle; `pickle` ignores bytes behind a pickle. Only the owner can read the files: a
        command or a function may hold secrets. The other functions have files of their own, such as `train.test.pkl`.
        """
        for name, code in self.others.items():
            code.write(_file_of_other(path, name))
        texts = {path.with_suffix(".py"): self.source, path.with_suffix(".json"): json.dumps(self.parts, indent=1)}
        for file, text in texts.items():
            with replacing(file) as opened:
                os.fchmod(opened.fileno(), 0o600)
                opened.write(text.encode())
        with replacing(path) as opened:
            os.fchmod(opened.fileno(), 0o600)
            opened.write(self.pickled + f"\n# {digest(BytesIO(self.pickled))}".encode())

    @staticmethod
    def read(path: Path, folder: str) -> Code:
        """Reads the files of `write` without running the function; raises InputError if they are missing or damaged."""
        try:
            pickled = path.read_bytes()
            source = path.with_suffix(".py").read_text()
            parts = json.loads(path.with_suffix(".json").read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: the search's function cannot be read ({error}); put the file back") from error
        stored = _DIGEST.search(pickled)
        pickled = pickled[: stored.start()] if stored else b""
        if stored is None or digest(BytesIO(pickled)).encode() != stored[1]:
            raise InputError(
                f"{path}: is damaged; put the file back, or give the function again: search.open(NAME).resume(train)"
            )
        others = {name: Code.read(file, folder) for name in OTHERS if (file := _file_of_other(path, name)).exists()}
        return Code(pickled, source, path.stem, folder, parts=parts, others=others)

    @property
    def command(self) -> Command | None:
        """The packed command; None for a function, which is not unpickled."""
        if not self.source.startswith(f"{Command.__name__}("):
            return None
        return cloudpickle.loads(self.pickled)

    def check_unchanged(self, search: str) -> None:
        """Checks the code that was not packed: a program of a command, a module that a function imports when it runs.

        Raises:
            InputError: the code changed since the search stored its hash.
        """
        command = self.command
        changed: list[Any] = [] if command is None else command.changed(self.source)
        for code in (self, *self.others.values()):
            changed += changed_modules(code.parts, Path(self.folder))
        if changed:
            again = "changed_code=True" if command else "train, changed_code=True"
            names = ", ".join(map(str, dict.fromkeys(changed)))
            raise InputError(
                f"{search}: {names} changed since the search began; the results so far come from the old version: put "
                f"it back; or search.open({search!r}).resume({again}) in Python continues with the new version, and "
                "`run` begins a new search"
            )


def packed_others(functions: Mapping[str, Callable[..., Any] | None], of_command: bool) -> dict[str, Code]:
    """Packs functions by the names of `OTHERS`; None stands for a function that the program does not have.

    Raises:
        InputError: one is no function or cannot be pickled, or a command gets another function than `predict`.
    """
    given = {name: function for name, function in functions.items() if function is not None}
    return {name: _other(name, function, of_command) for name, function in given.items()}


def _other(name: str, function: Callable[..., Any], of_command: bool) -> Code:
    if not callable(function):
        raise InputError(f"{name}: {function!r}: expected a function, {OTHERS[name]}")
    if of_command and name != "predict":
        raise InputError(
            f"{name}: a command has no `{name}`: give it final='...', a command whose last reports are the test "
            "figures and whose folder is the model"
        )
    try:
        return Code.of(function)
    except InputError as error:
        raise InputError(str(error).replace("train:", f"{name}:", 1)) from error


def _digest_of(code: Code | None) -> str | None:
    return None if code is None else code.digest


def _file_of_other(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}.{name}.pkl")


def _with_file(code: CodeType) -> Any:
    """Pickles code as cloudpickle does, but with the name of its file."""
    constructor, values = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return constructor, tuple(code.co_filename if value == "<dynamic-code>" else value for value in values)


class _Pickler(cloudpickle.Pickler):
    """Pickles functions with the names of their files: tracebacks on workers then show the user's own lines."""

    dispatch_table: ClassVar = ChainMap({CodeType: _with_file}, cloudpickle.Pickler.dispatch_table)


def _pickled(train: TrainingFunction) -> bytes:
    """Pickles a function with the code of the user's modules that it refers to.

    If a module cannot be pickled, only the function's own module is packed, and workers import the others.

    Raises:
        InputError: the function cannot be pickled.
    """
    own = own_modules(train)
    home = [module for module in own if module is inspect.getmodule(train)]
    try:
        return _by_value(train, own)
    except (TypeError, AttributeError, ValueError):
        pass
    try:
        return _by_value(train, home)
    except (TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"train: the function cannot be sent to workers ({first_line(error)}); open files, locks and connections "
            "inside the function"
        ) from error


def _by_value(train: TrainingFunction, modules: Sequence[ModuleType]) -> bytes:
    registered = [module for module in modules if module.__name__ not in cloudpickle.list_registry_pickle_by_value()]
    for module in registered:
        cloudpickle.register_pickle_by_value(module)
    file = BytesIO()
    try:
        _Pickler(file).dump(train)
        return file.getvalue()
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)


def _file_of(train: TrainingFunction) -> Path:
    """The file that defines a function; `__main__` in the current folder for a function of a shell or notebook."""
    file = getattr(inspect.getmodule(train), "__file__", None)
    return Path(file).resolve() if file is not None else Path.cwd() / "__main__"


def _origin_of(command: Command) -> str:
    """The file of a command's program; without a file, the words before the first flag or hyperparameter."""
    words = command.words
    for word in words:
        path = Path(command.folder, word)
        if path.suffix and path.is_file():
            return str(path.resolve())
    end = next((index for index, word in enumerate(words) if word.startswith("--") or "{" in word), len(words))
    return f"{command.folder}/{shlex.join(words[:end])}"


class LoopTask:
    """A task that trains by a user's function or command.

    Attributes:
        brings: what the program has for the time after its trials: `Code.brings`.
    """

    def __init__(
        self, name: str, metric: str, mode: str, function: TrainingFunction | None = None, brings: str = "",
        **others: Callable[..., Any] | None,
    ) -> None:  # fmt: skip
        """
        Args:
            metric: the name of the objective among the metrics of the function.
            function: None if each search stores its own function.
            brings: the words of `Code.brings` with `+` between them, if `function` is None.
            others: the functions `test`, `export` and `predict`, as of `search.run`.
        """
        self.name, self.metric = name, metric
        self._function, self._others = function, others
        given = [key for key, other in others.items() if other is not None]
        self.brings = frozenset(given if function is not None else filter(None, brings.split("+")))
        if isinstance(function, Command) and function.final is not None:
            self.brings |= {"final"}
        self.objective = Objective(metric.removeprefix("val_"), mode)  # type: ignore[arg-type]

    @property
    def trains_finally(self) -> bool:
        """Whether a search ends with a final training: the program tests its model, or writes it."""
        return bool(self.brings & ENDS_WITH_TRAINING)

    @property
    def tests(self) -> bool:
        """Whether the program tests its final model."""
        return bool(self.brings & {"test", "final"})

    @property
    def keeps_model(self) -> bool:
        """Whether a trial's own model can be tested; a command tests only what its final command trains."""
        return "final" not in self.brings

    @property
    def predicts(self) -> bool:
        """Whether the program brings a function `predict`."""
        return "predict" in self.brings

    def prepare(self, data: dict[str, Any], source: Path | None, cache: Path, progress: Progress) -> Splits:
        if self._function is not None:
            if source is not None:
                raise InputError(f"--data {source}: {self.name} is a function, which reads its own data")
            code = Code.of(self._function, self._others)
            if (own := code.command) is not None:
                own.check_objective(self.metric)
        else:
            path = cache.parent.parent / data["function"]
            code = Code.read(path, data.get("folder", ""))
            code.check_unchanged(path.parent.name)
        processes = data.get("processes", 1)
        if processes > 1 and code.command is not None:
            raise InputError(
                f"resources.processes: {processes}: a command starts its processes itself: give it the CPUs and GPUs "
                f"of all of them by resources.cpus and resources.gpus, and start it by `torchrun --standalone "
                f"--nproc-per-node {processes} ...`"
            )
        code = replace(
            code, here=data.get("here") or str(Path.cwd()), tracking=data.get("tracking", ""),
            report_every=data.get("report_every"),
        )  # fmt: skip
        kind = "function" if code.command is None else "command"
        # Models of two searches can be compared if the same function tested them.
        test = code.others["test"].digest if "test" in code.others else code.digest
        info = DataInfo(f"{kind} {code.name}", code.digest, test, {})
        return Splits(code, None, code, info)

    def merge(self, splits: Splits) -> Code:
        """The program, which is told to train its final model. What it then trains on is its own choice."""
        return replace(splits.train, final=True)

    def describe_source(self, data: dict[str, Any]) -> str:
        return "its own function" if self._function else f"the function in {data.get('function')}"

    def build(self, params: Params, splits: Splits, epochs: int, device: Device) -> Loop | Ranks:
        if device.group is not None:
            from trainables.loops.ranks import Ranks  # imports Ray

            return Ranks(self, params, splits, epochs, device)
        code: Code = splits.train
        _prepare_process(code)
        function = cloudpickle.loads(code.pickled)
        trial = Trial(params, torch.initial_seed(), epochs, device.torch_device, code.report_every)
        trial.final = code.final
        return Loop(function, trial, device, self.metric, code)

    def place(self, learner: Loop | Ranks, number: int, folder: Path | None) -> None:
        learner.trial.number, learner.trial.folder = number, folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def run_epoch(self, learner: Loop | Ranks, train: Any, val: Any) -> dict[str, float]:
        """The metrics of the function for the next epoch, with `epoch_seconds`, `peak_memory_mib` and, on a GPU,
        `energy_joules`. Of several processes, the memory is that of the largest, and the energy that of all."""
        if not isinstance(learner, Loop):
            return learner.advance()
        learner.epoch += 1
        device, start = learner.device, time.perf_counter()
        memory = MemoryPeak(device.torch_device, device.count)
        energy = EnergyMeter(device.torch_device, device.share, device.count)
        try:
            metrics = _with_output(learner, learner.advance)
        except Ended:
            learner.epoch -= 1
            raise
        device.synchronize()
        measured = {
            "epoch_seconds": time.perf_counter() - start,
            "peak_memory_mib": memory.mib(),
            **energy.measured(),
        }
        if taken := sorted(metrics.keys() & measured.keys()):
            raise TrainingError(
                f"the metrics hold {taken[0]!r}, which the search measures itself: give yours another name, such as "
                f"'own_{taken[0]}'"
            )
        return self.with_objective(metrics) | measured

    def with_objective(self, metrics: dict[str, float]) -> dict[str, float]:
        """The metrics with the objective under its name in the search; a final training may leave the objective out."""
        if self.metric not in metrics:
            return metrics
        value, key = metrics[self.metric], self.objective.key
        if metrics.get(key, value) != value and not math.isnan(value):
            raise TrainingError(
                f"the metrics hold {key!r} and the objective {self.metric!r}, which the search stores under the name "
                f"{key!r}: rename one of them, or search with objective='{key} {self.objective.mode}'"
            )
        return metrics | {key: value}

    def evaluate(self, learner: Loop | Ranks, split: Any) -> dict[str, float]:
        """The test figures of a finished training: of the function `test`, or of the last reports of a final command.

        Empty if the program tests nothing.

        Raises:
            TrainingError: a figure is no number and no array with one value per sample, or the objective is missing.
        """
        if not isinstance(learner, Loop):
            return learner.evaluate()
        code = learner.code
        if isinstance(learner.function, Command):
            if learner.function.final is None:
                return {}
            learner.tested = TestFigures.of(learner.trial.figures, self, "the final command reports")
        elif "test" in code.others:
            test = cloudpickle.loads(code.others["test"].pickled)
            with models.first_call(learner.trial.parts, learner.example):
                answer = _with_output(learner, lambda: test(learner.trial, **learner.trial.parts))
            learner.tested = TestFigures.of(answer, self, "`test` returned")
        return {} if learner.tested is None else learner.tested.means

    def units(self, learner: Loop, split: Any) -> np.ndarray | None:
        """For each sample (samples, 2) its value of the objective, and 1; None if `test` returned the mean alone."""
        values = None if learner.tested is None else learner.tested.samples
        return None if values is None else np.stack([values, np.ones_like(values)], axis=1)

    def objective_of(self, sums: np.ndarray) -> np.ndarray:
        """The mean of the objective over samples that were drawn with repetition."""
        return np.asarray(sums[..., 0] / sums[..., 1])

    def export(self, learner: Loop | Ranks, info: DataInfo | None, folder: Path) -> pd.DataFrame | None:
        """Writes the model: the files of `export` or of a final command, else the parts in MLflow's formats."""
        if not isinstance(learner, Loop):
            return learner.export(folder)
        return _with_output(learner, lambda: models.export(learner, folder))

    def load(self, folder: Path) -> models.Model:
        path = folder / models.PREDICT
        function = cloudpickle.loads(Code.read(path, "").pickled) if path.exists() else None
        return models.load(folder, function)

    def inputs(self, arguments: Sequence[str]) -> pd.DataFrame:
        return models.inputs_frame(arguments)

    def predict(self, model: models.Model, frame: pd.DataFrame) -> pd.DataFrame:
        return model.predict(frame)

    def example(self, split: Any, info: DataInfo) -> pd.DataFrame | None:
        """None: `export` may return an example of the inputs, and nothing else knows one."""
        return None


def _prepare_process(code: Code) -> None:
    """Prepares this process for a trial.

    Sets the working directory and the import path of the program that started the search, ends the MLflow run of the
    previous trial, and forgets modules of other code.
    """
    global _last_digest
    if code.folder and code.folder not in sys.path:
        sys.path.insert(0, code.folder)
    if code.here and Path(code.here).is_dir():
        os.chdir(code.here)
    if code.tracking:
        os.environ["MLFLOW_TRACKING_URI"] = code.tracking
    if (mlflow := sys.modules.get("mlflow")) is not None:
        mlflow.end_run()  # an open run of the previous trial would get the metrics of this trial too
    if _last_digest is not None and _last_digest != code.digest:
        for part in [part for packed in (code, *code.others.values()) for part in packed.parts]:
            if part.startswith(LATE):
                sys.modules.pop(part.removeprefix(LATE), None)
    _last_digest = code.digest


def _with_output(learner: Loop, call: Callable[[], T]) -> T:
    """Runs code of the user. Its output goes to `output.log` in the trial's folder; errors name this file."""
    folder = learner.trial.folder
    if folder is None:
        return call()
    rank = learner.trial.rank
    _OUTPUT.switch_to(folder / (f"output.rank-{rank}.log" if rank else LOG))
    try:
        # A command has a pipe of its own, whose content `Process` writes to the file.
        processes = nullcontext() if isinstance(learner.function, Command) else _OUTPUT.receives_processes()
        with processes, redirect_stdout(_OUTPUT), redirect_stderr(_OUTPUT):
            answer = call()
            _OUTPUT.flush()
            return answer
    except Exception as error:
        output = f"(its output is in {_OUTPUT.path})"
        lines = _OUTPUT.tail.strip().splitlines()
        if isinstance(error.__cause__, SystemExit) and lines:  # argparse prints the mistake, and exits
            raise TrainingError(f"{error}; its last line: {lines[-1]} {output}") from error
        if lines:  # the note becomes the last line of the traceback, which people see first
            error.add_note(f"{type(error).__name__}: {first_line(error)} {output}")
        raise
