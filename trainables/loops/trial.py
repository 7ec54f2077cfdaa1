"""What a training function is given, and the training that the engine advances an epoch at a time."""

from __future__ import annotations

import inspect
import io
import math
import numbers
import pickle
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from trainables.base.device import Device
from trainables.base.errors import first_line
from trainables.base.training import Ended, rng_state, set_rng_state
from trainables.loops import trainers
from trainables.loops.errors import Stopped, TrainingError


class Trial:
    """One trial, as its training function sees it.

    Attributes:
        params: the hyperparameters by name.
        number: of the trial in its search, from 0.
        of: number of epochs of a full trial.
        seed: the trial's own; Python's, NumPy's and torch's generators are seeded with it already.
        device: where to train: `cuda:0`, the GPU (or the share of one) that the trial has, or `cpu`.
        objective: the name of the metric that the search goes by.
        folder: a folder of the trial's own, the same after a resume; None on a machine that does not see the store.

    >>> def train(trial: search.Trial):
    ...     model = torch.nn.Linear(2, trial.params["width"]).to(trial.device)
    ...     for epoch in trial.epochs(model=model):
    ...         yield {"val_loss": 1 / epoch}
    """

    def __init__(self, params: dict[str, Any], seed: int, epochs: int, device: torch.device) -> None:
        self.params, self.seed, self.device = params, seed, device
        self.number = 0
        self.objective = ""
        self.folder: Path | None = None
        self.of = epochs
        #: What is saved with each epoch, by name.
        self._parts: dict[str, Any] = {}
        self._kept: dict[str, Any] | None = None
        self._reported: Callable[[Any], None] | None = None
        #: Lines for the user that the search has not shown yet.
        self.said: list[str] = []

    def epochs(self, **parts: Any) -> Iterator[int]:
        """Yields the epochs that are still to be trained, 1 to the last; yield an epoch's metrics inside the loop.

        The loop may end earlier, by early stopping of its own: the trial is then complete with the epochs that it has.
        Code after the loop runs for complete trials, and again where a kill cut it off; for a stopped trial it does
        not run.

        Args:
            parts: what a checkpoint has to hold: anything with `state_dict` and `load_state_dict`, such as the model,
                the optimizer and the schedule. After a kill they are as they were at the end of the last epoch, and so
                are the random generators. Without any, a trial that was killed is trained again from its first epoch,
                to the same results.

        Raises:
            TrainingError: a part has no state, or others were saved.
        """
        yield from range(self.restore(**parts) + 1, self.of + 1)

    def report(self, metrics: Any) -> None:
        """Says how the epoch that just ended went, and returns when the next one is due.

        For loops that call back, such as a `Trainer` with its callbacks; a loop of one's own yields its metrics.

        Raises:
            Stopped: the trial is over; let it pass.
            TrainingError: the function yields as well.
        """
        if self._reported is None:
            raise TrainingError("trial.report: a function that yields its metrics cannot report them too")
        self._reported(metrics)

    def fit(self, trainer: Any, *arguments: Any, **named: Any) -> None:
        """Trains with a `transformers.Trainer` or a Lightning `Trainer`, which reports each epoch and goes on after a
        kill from a checkpoint of its own. It returns when the trial is complete, not when the trial is stopped.

        Args:
            trainer: it trains as many epochs as a trial has, and evaluates and saves after each.
            arguments, named: what the trainer's own `train` or `fit` takes: for Lightning the module and the data.

        Raises:
            TrainingError: it is no such trainer.
        """
        trainers.fit(self, trainer, *arguments, **named)

    def restore(self, **parts: Any) -> int:
        """Names the parts as `epochs` does, brings them to where the trial was, and returns its last epoch, or 0."""
        for name, part in parts.items():
            if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
                raise TrainingError(
                    f"trial.epochs({name}=...): a {type(part).__name__} has no state_dict and load_state_dict; give "
                    "what has both, and keep the rest yourself"
                )
        self._parts = parts
        if self._kept is None or not parts:
            return 0
        kept, self._kept = self._kept, None
        if set(kept["parts"]) != set(self._parts):
            raise TrainingError(
                f"trial.epochs: the checkpoint holds {_names(kept['parts'])}, the function gives {_names(self._parts)}"
            )
        for name, part in self._parts.items():
            part.load_state_dict(kept["parts"][name])
        set_rng_state(kept["rng"])
        return int(kept["epoch"])

    def _state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}


#: A training: it yields or reports the metrics of each epoch, or returns those of its only one.
TrainingFunction = Callable[[Trial], Any]


class Loop:
    """The training of one trial by a function that yields. What the engine does with a `Learner` it does with this."""

    def __init__(self, function: TrainingFunction, trial: Trial, device: Device, objective: str) -> None:
        self.trial, self.device, self.params = trial, device, trial.params
        self.epoch, self.micro_batches, self.notes = 0, 1, dict[str, Any]()
        trial.objective = objective
        self._function, self._objective = function, objective
        self._running: Generator[Any, None, None] | None = None
        self._checked = False

    def advance(self) -> dict[str, float]:
        """Trains up to the end of the next epoch; returns what the function yields for it.

        After the last epoch it lets the function go on to its end. A function that has another epoch is ended there.

        Raises:
            Ended: the function ended, after at least one epoch.
            TrainingError: the function ends before its first epoch, or yields something else than metrics.
        """
        begins = self._running is None
        self._running = self._running or _running(self._function, self.trial)
        told = self._next()
        if begins and self.trial._kept is not None:
            # No part was restored: the function began anew, and is now led to where it was.
            self.trial.said.append("its function restored nothing by `trial.epochs`: it is trained again from epoch 1")
            for _ in range(2, self.epoch + 1):
                told = self._next()
        self.trial._kept = None
        if self.epoch > self.trial.of:
            self._running.close()
            raise Ended
        return self._metrics(told)

    @property
    def said(self) -> list[str]:
        """Lines on this trial that the user has not seen yet; whoever shows them empties the list."""
        return self.trial.said

    def _next(self) -> Any:
        assert self._running is not None
        try:
            return next(self._running)
        except StopIteration:
            if self.epoch > 1:
                raise Ended from None
            raise TrainingError(
                f"the function ended before its first epoch, and a trial has {self.trial.of}: yield the metrics of each"
            ) from None

    def _metrics(self, told: Any) -> dict[str, float]:
        if isinstance(told, numbers.Real):
            told = {self._objective: told}
        if not isinstance(told, Mapping):
            raise TrainingError(f"the function yielded {_shown(told)}: expected a dictionary of metrics")
        if self._objective not in told:
            raise TrainingError(
                f"the function yielded {_names(told)}, without the objective {self._objective!r}: yield that in each "
                "epoch; in epochs without a validation, its last value"
            )
        return {str(name): _number(name, value) for name, value in told.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint holds; raises TrainingError where a part's state cannot be kept."""
        parts = self.trial._state()
        if not self._checked:
            for name, part in parts.items():
                _check_state(name, part)
            self._checked = True
        return {"parts": parts, "epoch": self.epoch, "notes": self.notes, "rng": rng_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned: the parts once the function asks for its epochs."""
        self.epoch, self.notes = state["epoch"], state["notes"]
        self.trial._kept = state
        if state["parts"]:
            self._checked = True


@dataclass(frozen=True)
class _Returned:
    value: Any


def _running(function: TrainingFunction, trial: Trial) -> Generator[Any, None, None]:
    """Yields what a function yields or reports, epoch by epoch.

    The function is called in a thread, so that its loop may stand still in `Trial.report` while the engine decides;
    either it runs or the engine does, never both. Closing this iterator ends it there.
    """
    told: SimpleQueue[Any] = SimpleQueue()
    due: SimpleQueue[bool] = SimpleQueue()

    def report(metrics: Any) -> None:
        told.put(metrics)
        if not due.get():
            raise Stopped

    def call() -> None:
        try:
            told.put(_Returned(function(trial)))
        except Stopped:
            pass
        except SystemExit as error:
            told.put(_exit(error))
        except BaseException as error:
            told.put(error)

    trial._reported = report
    thread = threading.Thread(target=call, name="trial", daemon=True)
    thread.start()
    reports = 0
    try:
        while not isinstance(item := told.get(), _Returned):
            if isinstance(item, BaseException):
                raise item
            yield item
            reports += 1
            due.put(True)
    finally:
        due.put(False)
        thread.join()
        trial._reported = None
    if inspect.isgenerator(item.value):
        try:
            yield from item.value
        except SystemExit as error:
            if isinstance(mistake := _exit(error), TrainingError):
                raise mistake from error
    elif not reports and trial.of > 1:
        raise TrainingError(
            f"the function returned {_shown(item.value)}, but a trial has {trial.of} epochs: `yield` the metrics of "
            "each epoch, or search with epochs=1"
        )
    elif not reports:
        yield item.value


def _exit(error: SystemExit) -> TrainingError | _Returned:
    """What `sys.exit` in a function means: code 0 is its end, as `return` is; anything else is a mistake."""
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
            f"the state of {name!r} cannot be kept ({reason}); allowed are tensors, numbers, text, lists and "
            "dictionaries"
        ) from error


def _number(name: Any, value: Any) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, numbers.Real) or (hasattr(value, "dtype") and getattr(value, "size", 0) == 1):
        try:
            return float(value)
        except OverflowError:  # a whole number beyond every float
            return math.inf if value > 0 else -math.inf
    raise TrainingError(f"the metric {name!r} is {_shown(value)}: expected a number")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"a {type(value).__name__}"


def _names(mapping: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, mapping)) or "nothing"
