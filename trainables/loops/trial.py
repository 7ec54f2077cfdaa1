"""`Trial`, the argument of a training function, and `Loop`, which runs the function one epoch at a time."""

from __future__ import annotations

import inspect
import io
import math
import numbers
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NoReturn

import torch

from trainables.base.device import Device
from trainables.base.errors import Damaged, first_line
from trainables.base.forks import load_part
from trainables.base.training import Ended, rng_state, set_rng_state, step_ended
from trainables.base.unit import Unit
from trainables.loops import trainers
from trainables.loops.errors import Stopped, TrainingError, shown
from trainables.loops.figures import TestFigures
from trainables.loops.steps import Batches, endless, left_out, position_of, report_at
from trainables.loops.trainers import TrainerFiles


class Trial:
    """One trial: the argument of a training function.

    Attributes:
        params: the hyperparameters by name.
        number: the number of the trial in its search, from 0.
        of: the number of epochs of a full trial; in a search that counts in steps, its number of reports.
        report_every: the number of steps from one report to the next; None in a search that counts in epochs.
        seed: the trial's seed. The generators of Python, NumPy and torch are seeded with it already.
        device: `cuda:0`, the GPU (or share of a GPU) of the trial, or `cpu`; in a group of processes the first GPU of
            this process.
        rank, world_size, local_rank: the number of this process in its group (from 0), the number of processes, and the
            number of this process on its machine; 0, 1 and 0 without a group.
        objective: the name of the metric that the search optimises.
        folder: the trial's own folder, which is the same after a resume; None on a machine that does not see the store.
        final: whether this is the final training, after the trials. It may train on validation data too, and its
            metrics need no objective.

    >>> def train(trial: search.Trial):
    ...     model = torch.nn.Linear(2, trial.params["width"]).to(trial.device)
    ...     for epoch in trial.epochs(model=model):
    ...         yield {"val_loss": 1 / epoch}
    """

    rank, world_size, local_rank = 0, 1, 0

    def __init__(
        self, params: dict[str, Any], seed: int, epochs: int, device: torch.device, report_every: int | None = None
    ) -> None:
        self.params, self.seed, self.device, self.report_every = params, seed, device, report_every
        self.number = 0
        self.objective = ""
        self.folder: Path | None = None
        self.of = epochs
        self.final = False
        #: The latest value of each metric that the final command reported.
        self.figures: dict[str, float] = {}
        #: The objects that `test` and `export` get, if they are others than those of `epochs`.
        self._handed: dict[str, Any] | None = None
        #: The objects whose states each checkpoint holds, by name.
        self._parts: dict[str, Any] = {}
        #: A checkpoint that the function has not restored yet.
        self._checkpoint: dict[str, Any] | None = None
        #: The folder with the files of this checkpoint; None if it has none.
        self._files: Path | None = None
        #: The step that the training loop has reached; None if nothing counts its steps.
        self._step: int | None = None
        #: The epoch of the checkpoint that the function restored.
        self._restored = 0
        self._report: Callable[[Any], None] | None = None
        #: The number of reports so far.
        self._reports = 0
        #: Lines for the user, until the search shows them.
        self.messages: list[str] = []

    def epochs(self, **parts: Any) -> Iterator[int]:
        """Yields the numbers of the epochs that remain to be trained; yield the metrics of each epoch inside the loop.

        The loop may end early, for instance by its own early stopping: the trial is then complete. Code after the loop
        runs for complete trials, and again if a kill interrupted it. It does not run for stopped trials.

        Args:
            parts: objects with `state_dict` and `load_state_dict`, such as the model, the optimizer and the schedule. A
                checkpoint holds their states and those of the random generators. After a kill all of them are restored
                to the end of the last epoch. Without parts, a killed trial is trained again from its first epoch, to
                the same results.

        Raises:
            TrainingError: a part has no state, or the checkpoint holds other parts.
        """
        for epoch in range(self.restore(**parts) + 1, self.of + 1):
            before = self._reports
            yield epoch
            self._check_reported(before, epoch)

    @property
    def max_steps(self) -> int:
        """The number of steps of a full trial; raises TrainingError in a search that counts in epochs."""
        return self.of * self._every("trial.max_steps")

    def steps(self, batches: Iterable[Any] | None = None, /, **parts: Any) -> Iterator[Any]:
        """Yields the numbers of the steps that remain to be trained, from 1, each with a batch if there are `batches`.

        Yield the metrics inside the loop after each `trial.report_every` steps. Parts and the end of the loop are as of
        `epochs`.

        Args:
            batches: a loader that can be iterated again, such as a DataLoader. Its passes follow each other. After a
                kill the pass continues with the next batch, if the loader draws its order from the generators of
                Python, NumPy or torch.

        Raises:
            TrainingError: as `epochs`; the search counts in epochs, or a pass has no batch.

        >>> def train(trial: search.Trial):
        ...     for step in trial.steps():
        ...         if step % trial.report_every == 0:
        ...             yield {"val_loss": 1 / step}
        """
        every = self._every("trial.steps")
        walk = None if batches is None else Batches(batches)
        done = self.restore(**parts, **({"batches": walk} if walk is not None and parts else {}))
        rest = None if walk is None else endless(walk)
        for step in range(done * every + 1, self.max_steps + 1):
            before = self._reports
            batch = None if rest is None else next(rest)
            self._step = step
            yield step if rest is None else (step, batch)
            if step % every == 0:
                self._check_reported(before, step // every)

    def _check_reported(self, before: int, report: int) -> None:
        """Raises TrainingError if a rank trained up to a report without metrics: rank 0 would wait for it for ever.

        Args:
            before: the number of reports before.
        """
        if self.rank and self._reports == before:
            raise TrainingError(
                f"rank {self.rank} ended {self.at(report)} without metrics: every rank yields where rank 0 does; "
                "the search ignores the metrics of all ranks but 0"
            )

    def _every(self, place: str) -> int:
        if self.report_every is None:
            raise TrainingError(f"{place}: the search counts in epochs; search with steps=2000, report_every=100, say")
        return self.report_every

    @property
    def unit(self) -> str:
        """`epoch` or `step`: what the search counts."""
        return Unit(self.report_every).name

    def at(self, report: int) -> str:
        """The place of a report in words, such as `epoch 3` or `step 300`."""
        return Unit(self.report_every).at(report)

    def report(self, metrics: Any) -> None:
        """Reports the metrics of the epoch that just ended; returns when the next epoch is due.

        For training loops of other libraries that offer callbacks. Your own loop yields its metrics instead.

        Raises:
            Stopped: the trial is over; do not catch it.
            TrainingError: the function yields metrics too.
        """
        if self._report is None:
            raise TrainingError("trial.report: a function that yields its metrics cannot report them too")
        self._report(metrics)

    def fit(self, trainer: Any, *arguments: Any, **named: Any) -> None:
        """Trains with a `transformers.Trainer` or a Lightning `Trainer`.

        The trainer reports each evaluation. After a kill it continues from its own checkpoint. The call returns when
        the trial is complete. It does not return when the trial is stopped.

        Args:
            trainer: it keeps its settings. A line names the values that the search adds, such as the number of epochs
                or steps, and saving after each evaluation.
            arguments, named: the arguments of the trainer's `train` or `fit`: for Lightning the module and the data.

        Raises:
            TrainingError: the object is no such trainer, or one of its settings contradicts the search.
        """
        trainers.fit(self, trainer, *arguments, **named)
        self._handed = trainers.handed(trainer)

    def progress(self, done: float, of: float) -> None:
        """Tells how much of the running epoch is done, such as `trial.progress(batch, len(batches))`.

        The live table shows it in long epochs. A search with a time budget measures the seconds of an epoch by it.

        Raises:
            TrainingError: the values are no numbers, or `done` is not between 0 and `of`.
        """
        if not all(isinstance(value, numbers.Real) for value in (done, of)) or not 0 <= done <= of or of == 0:
            raise TrainingError(f"trial.progress({done!r}, {of!r}): expected two numbers, the first at most the second")
        if done:
            step_ended(done, of)

    @property
    def parts(self) -> dict[str, Any]:
        """The objects that `test` and `export` get: those given to `epochs`, or the trainer and the model of `fit`."""
        return self._parts if self._handed is None else self._handed

    def restore(self, **parts: Any) -> int:
        """Restores the parts of `epochs` from the trial's checkpoint; returns the checkpoint's epoch, or 0."""
        for name, part in parts.items():
            if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
                raise TrainingError(
                    f"trial.epochs({name}=...): a {type(part).__name__} has no state_dict and load_state_dict; give "
                    "objects that have both, and save other state yourself"
                )
        self._parts = parts
        if self._checkpoint is None or not parts:
            return 0
        checkpoint, self._checkpoint = self._checkpoint, None
        if set(checkpoint["parts"]) != set(parts):
            raise TrainingError(
                f"trial.epochs: the checkpoint holds {_names(checkpoint['parts'])}, the function gives {_names(parts)}"
            )
        for name, part in parts.items():
            load_part(part, checkpoint["parts"][name], checkpoint.get("fork", False))
        set_rng_state(checkpoint["rng"])
        self._restored = int(checkpoint["epoch"])
        return self._restored

    def _has_come_to(self, metrics: Any, due: int) -> bool:
        """Whether a report is the one that is `due`; False for an earlier one, such as that of step 0.

        Raises:
            TrainingError: the report that is due is missing.
        """
        if self.report_every is None:
            return True
        every, own = self.report_every, metrics if isinstance(metrics, Mapping) else {}
        try:
            position = position_of(own)
        except (TypeError, ValueError) as error:
            raise TrainingError(f"the function yielded {shown(metrics)}: its step is no number") from error
        if self._step is not None and "step" not in own:
            position, number = self._step, self._step // every
        elif position is not None:
            number = report_at(position, every)
        else:
            return True
        if number > due:
            raise TrainingError(
                f"the function reports step {position:g} where {self.at(due)} is due: report after each "
                f"{every} steps, or search with another report_every"
            )
        if number < due and position > 0:
            self.messages.append(left_out(every))
        return number == due

    def _state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}


#: A training function: it yields or reports the metrics of each epoch, or returns the metrics of a single epoch.
TrainingFunction = Callable[[Trial], Any]


class Loop:
    """The training of one trial by a training function: a `base.task.Training`, as `Learner` is one."""

    def __init__(
        self, function: TrainingFunction, trial: Trial, device: Device, objective: str, code: Any = None
    ) -> None:  # fmt: skip
        """
        Args:
            code: the program, whose other functions test and export the trained parts.
        """
        self.code = code
        #: The test figures, once the training is finished and tested.
        self.tested: TestFigures | None = None
        #: The first input and output of a module in `test`, as arrays.
        self.example: list[Any] = []
        self.trial, self.device, self.params = trial, device, trial.params
        self.epoch = 0
        self.micro_batches = 1
        self.notes: dict[str, Any] = {}
        trial.objective = objective
        self.function, self._objective = function, objective
        self._running: Generator[Any, None, None] | None = None
        #: Whether the states of the parts are known to be of types that a checkpoint can hold.
        self._checked = False

    def advance(self) -> dict[str, float]:
        """Runs the function until the end of the next epoch; returns the metrics of this epoch.

        After the last epoch the function runs to its end. A function that begins one more epoch is ended.

        Raises:
            Ended: the function ended, after at least one epoch.
            TrainingError: the function ended before its first epoch, or yielded no metrics.
        """
        starts = self._running is None
        self._running = self._running or _epochs_of(self.function, self.trial)
        metrics = self._next()
        if starts and self.trial._checkpoint is not None:
            # The function restored no part: it runs again from its first epoch up to the trial's epoch.
            self.trial.messages.append(
                "no parts were given to `trial.epochs(...)`, so it starts again at its beginning"
            )
            for known in range(1, self.epoch):
                metrics = self._next(known)
        self.trial._checkpoint = None
        if self.epoch > self.trial.of:
            with _ends_children("ended"):
                self._running.close()
            raise Ended
        return {self._objective: 0.0} if self.trial.rank else self._checked_metrics(metrics)

    def end(self) -> None:
        """Ends the function at its last report; raises what the function then raises."""
        running, self._running = self._running, None
        if running is not None:
            running.close()

    @property
    def parameters(self) -> int:
        """The number of parameters of the modules among the parts."""
        modules = [part for part in self.trial.parts.values() if isinstance(part, torch.nn.Module)]
        return sum(parameter.numel() for module in modules for parameter in module.parameters())

    @property
    def messages(self) -> list[str]:
        """Lines for the user about this trial. The code that shows them empties the list."""
        return self.trial.messages

    def _next(self, known: int = 0) -> Any:
        """The metrics of the next report.

        Args:
            known: the reports so far of a function that runs again from its beginning.
        """
        while True:
            metrics = self._yielded()
            if self.trial._has_come_to(metrics, self.epoch if self.trial._checkpoint is None else known + 1):
                return metrics

    def _yielded(self) -> Any:
        assert self._running is not None
        try:
            with _ends_children("yielded metrics"):
                metrics = next(self._running)
                self.trial._reports += 1
                return metrics
        except StopIteration:
            if self.epoch > 1 or self.trial.final:
                raise Ended from None
            first = "epoch" if self.trial.report_every is None else "report"
            raise TrainingError(
                f"the function ended before its first {first}, and a trial has {self.trial.of}: yield the metrics of "
                "each"
            ) from None

    def _checked_metrics(self, metrics: Any) -> dict[str, float]:
        if isinstance(metrics, numbers.Real):
            metrics = {self._objective: metrics}
        if not isinstance(metrics, Mapping):
            raise TrainingError(f"the function yielded {shown(metrics)}: expected a dictionary of metrics")
        if self._objective not in metrics and not self.trial.final:
            raise TrainingError(
                f"the function yielded {_names(metrics)}, without the objective {self._objective!r}: yield it in each "
                "epoch; in epochs without a validation, its last value"
            )
        place = {"step"} if self.trial.report_every else set()  # the search counts it
        return {str(name): _number(name, value) for name, value in metrics.items() if name not in place}

    @property
    def has_files(self) -> bool:
        """Whether the state includes files."""
        return any(isinstance(part, TrainerFiles) for part in self.trial._parts.values())

    def files(self) -> dict[str, Path]:
        """The files and folders that belong to the state, by name; see `base.task.WithFiles`."""
        parts = [part for part in self.trial._parts.values() if isinstance(part, TrainerFiles)]
        return {name: path for part in parts for name, path in part.files().items()}

    def take_files(self, folder: Path | None) -> None:
        """Takes the folder with the files of the state; raises Damaged if the state has files and the folder is
        missing."""
        if folder is None and self.trial._checkpoint is not None and self.trial._checkpoint.get("files"):
            raise Damaged(f"the folder of epoch {self.epoch}", "it is missing")
        self.trial._files = folder

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint holds; raises TrainingError if the state of a part cannot be saved."""
        parts = self.trial._state()
        if not self._checked:
            for name, part in parts.items():
                _check_state(name, part)
            self._checked = True
        state = {"parts": parts, "epoch": self.epoch, "notes": self.notes, "rng": rng_state()}
        return {**state, "files": True} if self.files() else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned. The parts are restored when the function calls `trial.epochs`."""
        self.epoch, self.notes = state["epoch"], state["notes"]
        self.trial._checkpoint = state
        if state["parts"]:
            self._checked = True


@dataclass(frozen=True)
class _Returned:
    value: Any


def _epochs_of(function: TrainingFunction, trial: Trial) -> Generator[Any, None, None]:
    """Yields the metrics of each epoch, which the function reports, yields or returns."""
    reports, returned = 0, None
    with closing(_reports_of(function, trial)) as items:
        for item in items:
            if isinstance(item, _Returned):
                returned = item.value
            else:
                yield item
                reports += 1
    if inspect.isgenerator(returned):
        try:
            yield from returned
        except SystemExit as error:
            if isinstance(mistake := _exit(error), TrainingError):
                raise mistake from error
    elif not reports and trial._restored == trial.of:
        return  # a kill came after the last epoch
    elif not reports and trial.of > 1:
        raise TrainingError(
            f"the function returned {shown(returned)}, but a trial has {trial.of} epochs: `yield` the metrics of "
            "each epoch, or search with epochs=1"
        )
    elif not reports:
        yield returned


def _reports_of(function: TrainingFunction, trial: Trial) -> Generator[Any, None, None]:
    """Yields the metrics that a function reports by `Trial.report`, then its result as `_Returned`.

    The function runs in a thread, so that its loop can wait inside `Trial.report` while the engine decides. Either the
    function or the engine runs, never both. Closing this generator ends the function at its next report.
    """
    items: SimpleQueue[Any] = SimpleQueue()
    continues: SimpleQueue[bool] = SimpleQueue()

    process = os.getpid()

    def report(metrics: Any) -> None:
        if os.getpid() != process:
            _leave(TrainingError(_CHILD.format("reported metrics")))
        items.put(metrics)
        if not continues.get():
            raise Stopped

    def call() -> None:
        try:
            if trial.device.type == "cuda":  # each thread has its own current GPU
                torch.cuda.set_device(trial.device)
            with _ends_children():
                returned = function(trial)
            items.put(_Returned(returned))
        except Stopped:
            pass
        except SystemExit as error:
            items.put(_exit(error))
        except BaseException as error:
            items.put(error)

    trial._report = report
    thread = threading.Thread(target=call, name="trial", daemon=True)
    thread.start()
    try:
        while not isinstance(item := items.get(), _Returned):
            if isinstance(item, BaseException):
                raise item
            yield item
            continues.put(True)
    finally:
        continues.put(False)
        thread.join()
        trial._report = None
    yield item


#: The mistake of a child that continues as a copy of the worker.
_CHILD = "a child of os.fork {}: it has to end by itself, by os._exit(0) for instance"


@contextmanager
def _ends_children(mistake: str = "") -> Iterator[None]:
    """Ends each process that the function forked and that reaches the end of this block.

    Such a child is a copy of the worker: it must not train the next epoch, or answer to the search.

    Args:
        mistake: what a child does that leaves the block without an error; empty if a child may leave it so.
    """
    process = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != process:
            _leave(None if isinstance(error, StopIteration) else error)
        raise
    if os.getpid() != process:
        _leave(TrainingError(_CHILD.format(mistake)) if mistake else None)


def _leave(error: BaseException | None) -> NoReturn:
    """Ends this process with the exit code that a Python program has after `error`, without the worker's own exit."""
    if isinstance(error, TrainingError) and isinstance(error.__cause__, SystemExit):
        error = error.__cause__
    code: Any = 0 if error is None else 1
    with suppress(Exception):  # a closed or full output must not keep the child alive
        if isinstance(error, SystemExit):
            code = 0 if error.code is None else error.code
            if not isinstance(code, int):
                sys.stderr.write(f"{code}\n")
                code = 1
        elif error is not None:
            sys.stderr.writelines(traceback.format_exception(error))
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF)


def _exit(error: SystemExit) -> TrainingError | _Returned:
    """The meaning of `sys.exit` in a function: code 0 returns from the function, any other code is a mistake."""
    if error.code in (None, 0):
        return _Returned(None)
    code = f" with code {error.code}" if isinstance(error.code, int) else f": {error.code}"
    mistake = TrainingError(f"the function called sys.exit{code}")
    mistake.__cause__ = error
    return mistake


def _check_state(name: str, part: Any) -> None:
    file = io.BytesIO()
    try:
        torch.save(part, file)
        file.seek(0)
        torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.PickleError, TypeError, AttributeError) as error:
        reason = first_line(error)
        raise TrainingError(
            f"the state of {name!r} cannot be saved ({reason}); allowed are tensors, numbers, text, lists and "
            "dictionaries"
        ) from error


def _number(name: Any, value: Any) -> float:
    """A metric as a float: a real number, or an array, a tensor or a series with one real element.

    Raises:
        TrainingError: the value has another type, another size or an imaginary part.
    """
    number = value
    if hasattr(value, "dtype") and hasattr(value, "item"):
        # The `item` of a time in nanoseconds is a whole number. A tensor without a device has no content.
        is_time, is_empty = getattr(value.dtype, "kind", "") in ("m", "M"), getattr(value, "is_meta", False)
        size = value.numel() if isinstance(value, torch.Tensor) else getattr(value, "size", 0)
        number = value.item() if size == 1 and not is_time and not is_empty else None
    if isinstance(number, numbers.Real) or (number is not value and hasattr(number, "__float__")):
        try:
            return float(number)
        except OverflowError:  # a whole number beyond every float
            return math.inf if number > 0 else -math.inf
        except TypeError:  # a structure of several fields
            pass
    raise TrainingError(
        f"the metric {name!r} is {shown(value)}: expected a number, or an array or tensor with one real number"
    )


def _names(mapping: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, mapping)) or "nothing"
