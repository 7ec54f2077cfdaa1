"""A training function as a task: the function is its data, and its metrics are whatever it yields."""

from __future__ import annotations

import inspect
import pickle
import re
import sys
import sysconfig
import time
from collections import ChainMap
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, ClassVar

import cloudpickle
import torch

from trainables.base.device import Device
from trainables.base.errors import InputError
from trainables.base.files import replacing
from trainables.base.health import EnergyMeter, MemoryPeak
from trainables.base.storage import digest
from trainables.base.task import DataInfo, Objective, Params, Progress, Splits, array_digest
from trainables.loops.command import Command
from trainables.loops.trial import Loop, TrainingFunction, Trial

#: What follows a pickle in its file: its digest.
_SUM = re.compile(rb"\n# (crc32:[0-9a-f]{8})\Z")


@dataclass(frozen=True)
class Code:
    """A training function as it travels: pickled with cloudpickle, and its source for people."""

    pickled: bytes
    source: str
    name: str
    #: Where the modules lie that it imports: the folder of the program that started the search.
    folder: str = ""

    @staticmethod
    def of(train: TrainingFunction) -> Code:
        """Packs a function or a `Command`. A module of the user's own goes with it, as workers may not find it.

        Raises:
            InputError: it is no function, or cannot be sent.
        """
        if not callable(train):
            raise InputError(f"train: {train!r}: expected a function that takes a trial and yields metrics")
        module = inspect.getmodule(train)
        own = module if module is not None and module.__name__ != "__main__" and _is_own(module) else None
        if own is not None:
            cloudpickle.register_pickle_by_value(own)
        try:
            file = BytesIO()
            _Pickler(file).dump(train)
            pickled = file.getvalue()
        except (TypeError, AttributeError, ValueError) as error:
            raise InputError(
                f"train: the function cannot be sent to workers ({str(error).splitlines()[0]}); open files, locks and "
                "the like inside it"
            ) from error
        finally:
            if own is not None:
                cloudpickle.unregister_pickle_by_value(own)
        try:
            source = inspect.getsource(train)
        except (OSError, TypeError):  # a command, or typed into a shell
            source = train.fingerprint() if isinstance(train, Command) else f"# the source of {train!r} is not known\n"
        name = getattr(train, "__name__", type(train).__name__).strip("<>")
        return Code(pickled, source, name, str(Path(sys.path[0]).resolve()))

    @property
    def digest(self) -> str:
        """A hash of the source."""
        return array_digest([self.source.encode()])

    def write(self, path: Path) -> None:
        """Writes the function to `path`, and its source beside it. A digest follows the pickle, whose readers pass over
        what follows."""
        for file, content in ((path.with_suffix(".py"), self.source.encode()), (path, self.pickled)):
            with replacing(file) as opened:
                opened.write(content)
                if file == path:
                    opened.write(f"\n# {digest(BytesIO(content))}".encode())

    @staticmethod
    def read(path: Path, folder: str) -> Code:
        """Reads what `write` wrote, and runs none of it; raises InputError where it is gone or damaged."""
        try:
            pickled = path.read_bytes()
            source = path.with_suffix(".py").read_text()
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: the search's function cannot be read ({error}); put the file back") from error
        known = _SUM.search(pickled)  # None: written before there were digests
        pickled = pickled[: known.start()] if known else pickled
        if (known and digest(BytesIO(pickled)).encode() != known[1]) or not pickled.endswith(pickle.STOP):
            raise InputError(
                f"{path}: is damaged; put the file back, or give the function again: search.open(NAME).resume(train)"
            )
        return Code(pickled, source, path.stem, folder)

    @property
    def command(self) -> Command | None:
        """The command that this is; None where it is a function, which is not unpickled."""
        if not self.source.startswith(f"{Command.__name__}("):
            return None
        kept: Command = cloudpickle.loads(self.pickled)
        return kept

    def check_unchanged(self, search: str) -> None:
        """Raises InputError where a command of the search, or a program that it names, changed since it was written."""
        if (command := self.command) is not None and (changed := command.changed(self.source)):
            raise InputError(
                f"{search}: {', '.join(changed)} changed since the search began; what was found so far is of the old "
                f"one: put it back, or search.open({search!r}).resume(changed_code=True) in Python goes on all the "
                "same, `run` begins anew"
            )


def _with_file(code: CodeType) -> Any:
    """How code is pickled: as cloudpickle does it, which leaves the name of its file out."""
    made, values = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return made, tuple(code.co_filename if value == "<dynamic-code>" else value for value in values)


class _Pickler(cloudpickle.Pickler):
    """Pickles functions with the names of their files: tracebacks on workers then show the user's own lines."""

    dispatch_table: ClassVar = ChainMap({CodeType: _with_file}, cloudpickle.Pickler.dispatch_table)


def _is_own(module: ModuleType) -> bool:
    """Whether a module is the user's, and not installed."""
    file = getattr(module, "__file__", None)
    installed = [Path(place) for place in sysconfig.get_paths().values()]
    ours = [Path(__file__).parents[2] / package for package in ("search", "trainables")]
    return file is not None and not any(Path(file).is_relative_to(place) for place in [*installed, *ours])


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
        info = DataInfo(f"function {code.name}", code.digest, code.digest, {})
        return Splits(code, None, None, info)

    def describe_source(self, data: dict[str, Any]) -> str:
        return "its own function" if self._function else f"the function in {data.get('function')}"

    def build(self, params: Params, splits: Splits, epochs: int, device: Device) -> Loop:
        code: Code = splits.train
        if code.folder and code.folder not in sys.path:
            sys.path.insert(0, code.folder)
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
        metrics = learner.advance()
        device.synchronize()
        return metrics | {
            f"val_{self.objective.metric}": metrics[self.metric],
            "epoch_seconds": time.perf_counter() - begun,
            "peak_memory_mib": memory.mib(),
            **energy.measured(),
        }
