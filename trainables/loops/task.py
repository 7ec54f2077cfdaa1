"""A training function as a task: the function is its data, and its metrics are whatever it yields."""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
import pickle
import re
import shlex
import sys
import time
from collections import ChainMap
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, ClassVar

import cloudpickle
import torch

from trainables.base.device import Device
from trainables.base.errors import InputError, first_line
from trainables.base.files import file_safe, replacing
from trainables.base.health import EnergyMeter, MemoryPeak
from trainables.base.storage import digest
from trainables.base.task import DataInfo, Objective, Params, Progress, Splits, array_digest
from trainables.loops.command import Command
from trainables.loops.errors import TrainingError
from trainables.loops.fingerprint import LATE, changed_modules, own_modules, parts_of
from trainables.loops.output import Output
from trainables.loops.trial import Loop, TrainingFunction, Trial

#: What follows a pickle in its file: its digest.
_SUM = re.compile(rb"\n# (crc32:[0-9a-f]{8})\Z")
#: Where what a function prints goes while it runs, and the digest of the code that ran here last.
_OUTPUT = Output()
_ran: str | None = None


@dataclass(frozen=True)
class Code:
    """A training function as it travels: pickled with cloudpickle, and its source for people."""

    pickled: bytes
    source: str
    #: A name for files.
    name: str
    #: Where the modules lie that it imports: the folder of the program that started the search.
    folder: str = ""
    #: Where it is defined: `/path/mine.py:train`. Another program has another place.
    origin: str = ""
    #: A hash of each part of what it runs, by name; empty where an earlier version kept the source alone.
    parts: Mapping[str, str] = field(default_factory=dict)
    #: Where it runs, and the address of MLflow's store there; these may be others in each session.
    here: str = ""
    tracking: str = ""

    @staticmethod
    def of(train: TrainingFunction) -> Code:
        """Packs a function or a `Command`. What it refers to in modules of the user's own goes with it: workers may not
        find them, and later changes to them must not mix two versions in one search.

        Raises:
            InputError: it is no function, or cannot be sent.
        """
        if not callable(train):
            raise InputError(f"train: {train!r}: expected a function that takes a trial and yields metrics")
        function = train.func if isinstance(train, functools.partial) else train
        name = file_safe(getattr(function, "__name__", type(function).__name__)) or "search"
        folder = str(Path(sys.path[0]).resolve())
        if isinstance(train, Command):
            return Code(cloudpickle.dumps(train), train.fingerprint(), name, folder, _place_of(train))
        try:
            source = inspect.getsource(train)
        except (OSError, TypeError):  # typed into a shell
            source = f"# the source of {name} is not known\n"
        parts = parts_of(train) or {name: array_digest([source.encode()])}
        return Code(_pickled(train), source, name, folder, f"{_file_of(train)}:{name}", parts)

    @property
    def digest(self) -> str:
        """A hash of all that it runs, or of the source where the parts are not known."""
        return array_digest([json.dumps(self.parts, sort_keys=True).encode() if self.parts else self.source.encode()])

    def changed(self, kept: Code) -> list[str]:
        """The parts that are other than in the code that a search kept; of an early search only the source counts."""
        if (command := self.command) is not None:
            return command.changed(kept.source)
        if not (kept.parts and self.parts):
            return [] if self.source == kept.source else [self.name]
        names = self.parts.keys() | kept.parts.keys()
        return sorted(name for name in names if self.parts.get(name) != kept.parts.get(name))

    def write(self, path: Path) -> None:
        """Writes the function to `path`, with its source and its parts beside it. A digest follows the pickle, whose
        readers pass over what follows."""
        beside = {path.with_suffix(".py"): self.source, path.with_suffix(".json"): json.dumps(self.parts, indent=1)}
        for file, text in beside.items():
            with replacing(file) as opened:
                opened.write(text.encode())
        with replacing(path) as opened:
            opened.write(self.pickled + f"\n# {digest(BytesIO(self.pickled))}".encode())

    @staticmethod
    def read(path: Path, folder: str) -> Code:
        """Reads what `write` wrote, and runs none of it; raises InputError where it is gone or damaged."""
        try:
            pickled = path.read_bytes()
            source = path.with_suffix(".py").read_text()
            parts = json.loads(kept.read_text()) if (kept := path.with_suffix(".json")).exists() else {}
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: the search's function cannot be read ({error}); put the file back") from error
        known = _SUM.search(pickled)  # None: written before there were digests
        pickled = pickled[: known.start()] if known else pickled
        if (known and digest(BytesIO(pickled)).encode() != known[1]) or not pickled.endswith(pickle.STOP):
            raise InputError(
                f"{path}: is damaged; put the file back, or give the function again: search.open(NAME).resume(train)"
            )
        return Code(pickled, source, path.stem, folder, parts=parts)

    @property
    def command(self) -> Command | None:
        """The command that this is; None where it is a function, which is not unpickled."""
        if not self.source.startswith(f"{Command.__name__}("):
            return None
        kept: Command = cloudpickle.loads(self.pickled)
        return kept

    def check_unchanged(self, search: str) -> None:
        """Raises InputError where code changed since the search kept it: a program of a command, or a module that a
        function imports as it runs."""
        command = self.command
        changed = changed_modules(self.parts, Path(self.folder)) if command is None else command.changed(self.source)
        if changed:
            again = "changed_code=True" if command else "train, changed_code=True"
            raise InputError(
                f"{search}: {', '.join(map(str, changed))} changed since the search began; what was found so far is of "
                f"the old one: put it back, or search.open({search!r}).resume({again}) in Python goes on all the same, "
                "`run` begins anew"
            )


def _with_file(code: CodeType) -> Any:
    """How code is pickled: as cloudpickle does it, which leaves the name of its file out."""
    made, values = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return made, tuple(code.co_filename if value == "<dynamic-code>" else value for value in values)


class _Pickler(cloudpickle.Pickler):
    """Pickles functions with the names of their files: tracebacks on workers then show the user's own lines."""

    dispatch_table: ClassVar = ChainMap({CodeType: _with_file}, cloudpickle.Pickler.dispatch_table)


def _pickled(train: TrainingFunction) -> bytes:
    """The function with what it refers to in the user's modules; with its own module alone where one of the others
    cannot be sent, which workers then import.

    Raises:
        InputError: it cannot be sent.
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
            f"train: the function cannot be sent to workers ({first_line(error)}); open files, locks and "
            "the like inside it"
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
    """The file in which a function is defined; of one that was typed in, or is in a notebook, the folder here."""
    file = getattr(inspect.getmodule(train), "__file__", None)
    return Path(file).resolve() if file is not None else Path.cwd() / "__main__"


def _place_of(command: Command) -> str:
    """The file of a command's program; where none is there, its first words up to a flag or a hyperparameter."""
    words = shlex.split(command.text)
    for word in words:
        path = Path(command.folder, word)
        if path.suffix and path.is_file():
            return str(path.resolve())
    end = next((at for at, word in enumerate(words) if word.startswith("--") or "{" in word), len(words))
    return f"{command.folder}/{shlex.join(words[:end])}"


class LoopTask:
    """A task whose epochs are those of a function of somebody's own program."""

    def __init__(self, name: str, metric: str, mode: str, function: TrainingFunction | None = None) -> None:
        """
        Args:
            metric: the name of the objective among what the function yields.
            function: None where each search keeps its own.
        """
        self.name, self.metric, self._function = name, metric, function
        self.objective = Objective(metric.removeprefix("val_"), mode)  # type: ignore[arg-type]

    def prepare(self, data: dict[str, Any], source: Path | None, cache: Path, progress: Progress) -> Splits:
        if self._function is not None:
            if source is not None:
                raise InputError(f"--data {source}: {self.name} is a function, which has its own data")
            code = Code.of(self._function)
        else:
            path = cache.parent.parent / data["function"]
            code = Code.read(path, data.get("folder", ""))
            code.check_unchanged(path.parent.name)
        code = replace(code, here=data.get("here") or str(Path.cwd()), tracking=data.get("tracking", ""))
        earlier = array_digest([code.source.encode()])  # which early versions took for the fingerprint
        kind = "function" if code.command is None else "command"
        info = DataInfo(f"{kind} {code.name}", code.digest, code.digest, {}, earlier=(earlier,))
        return Splits(code, None, None, info)

    def describe_source(self, data: dict[str, Any]) -> str:
        return "its own function" if self._function else f"the function in {data.get('function')}"

    def build(self, params: Params, splits: Splits, epochs: int, device: Device) -> Loop:
        code: Code = splits.train
        _settle(code)
        function = cloudpickle.loads(code.pickled)
        trial = Trial(params, torch.initial_seed(), epochs, device.torch_device)
        return Loop(function, trial, device, self.metric)

    def place(self, learner: Loop, number: int, folder: Path | None) -> None:
        learner.trial.number, learner.trial.folder = number, folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def run_epoch(self, learner: Loop, train: Any, val: Any) -> dict[str, float]:
        """What the function yields for the next epoch, with `epoch_seconds`, `peak_memory_mib` and, on a GPU,
        `energy_joules`."""
        learner.epoch += 1
        device, begun = learner.device, time.perf_counter()
        memory, energy = MemoryPeak(device.torch_device), EnergyMeter(device.torch_device, device.share)
        metrics = _advance(learner)
        device.synchronize()
        value, engines = metrics[self.metric], f"val_{self.objective.metric}"
        if metrics.get(engines, value) != value and not math.isnan(value):
            raise TrainingError(
                f"the metrics hold {engines!r} beside the objective {self.metric!r}, which the search keeps under that "
                f"name: give another name to one of them, or search with objective='{engines} {self.objective.mode}'"
            )
        measured = {
            "epoch_seconds": time.perf_counter() - begun,
            "peak_memory_mib": memory.mib(),
            **energy.measured(),
        }
        if taken := sorted(metrics.keys() & measured.keys()):
            raise TrainingError(
                f"the metrics hold {taken[0]!r}, which the search measures itself: give yours another name, such as "
                f"'own_{taken[0]}'"
            )
        return metrics | {engines: value, **measured}


def _settle(code: Code) -> None:
    """Makes this process ready for a trial: it runs where the search was started, finds the user's modules there, and
    has nothing left of an earlier trial."""
    global _ran
    if code.folder and code.folder not in sys.path:
        sys.path.insert(0, code.folder)
    if code.here and Path(code.here).is_dir():
        os.chdir(code.here)
    if code.tracking:
        os.environ["MLFLOW_TRACKING_URI"] = code.tracking
    if (mlflow := sys.modules.get("mlflow")) is not None:
        mlflow.end_run()  # of the trial before, which would get the figures of this one too
    if _ran is not None and _ran != code.digest:
        for part in code.parts:
            if part.startswith(LATE):
                sys.modules.pop(part.removeprefix(LATE), None)
    _ran = code.digest


def _advance(learner: Loop) -> dict[str, float]:
    """Trains an epoch; what the function prints goes to `output.log` in the trial's folder, which an error names."""
    folder = learner.trial.folder
    if folder is None:
        return learner.advance()
    _OUTPUT.to(folder / "output.log")
    try:
        with redirect_stdout(_OUTPUT), redirect_stderr(_OUTPUT):
            return learner.advance()
    except Exception as error:
        where, said = f"(what it printed is in {_OUTPUT.path})", _OUTPUT.tail.strip().splitlines()
        if isinstance(error.__cause__, SystemExit) and said:  # argparse prints what is wrong, and exits
            raise TrainingError(f"{error}; its last line: {said[-1]} {where}") from error
        if said:  # in the last line, as that is what people are shown first
            error.add_note(f"{type(error).__name__}: {first_line(error)} {where}")
        raise
