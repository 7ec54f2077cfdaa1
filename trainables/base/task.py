"""The interface between a task and the engine: what a task must give, and what it may give."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from trainables.base.device import Device
    from trainables.base.training import Learner

#: A hyperparameter configuration as a trial gets it: plain values by flat name, such as `model.pretrained`.
Params = dict[str, Any]


@dataclass(frozen=True)
class Objective:
    """What a search optimises: a key of the result of `Task.evaluate`, and whether less or more of it is better."""

    metric: str
    mode: Literal["min", "max"]
    #: Metrics that belong to the model, such as a decision threshold: each epoch chooses them on validation, and
    #: trainings that repeat the configuration get those of its best epoch as hyperparameters of that name.
    tuned: tuple[str, ...] = ()

    def loss(self, value: float) -> float:
        """`value` turned so that smaller is better."""
        return value if self.mode == "min" else -value

    def val_loss(self, metrics: dict[str, float]) -> float:
        """The loss of an epoch on validation."""
        return self.loss(metrics[f"val_{self.metric}"])

    def better(self, value: float, than: float) -> bool:
        """Whether `value` is strictly better."""
        return self.loss(value) < self.loss(than)


@dataclass(frozen=True)
class DataInfo:
    """A description of a data set."""

    source: str
    fingerprint: str
    test_fingerprint: str
    sizes: dict[str, int]
    classes: tuple[str, ...] = ()
    #: Sentences on what was chosen or left out for the user; printed once and kept with the search.
    notes: tuple[str, ...] = ()
    #: Values of the `data` section that were found out at the start; a resume and the final training keep them.
    chosen: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Splits:
    """A prepared data set. The type of a split is the task's own; the engine only passes it on."""

    train: Any
    val: Any
    test: Any
    info: DataInfo

    def for_search(self) -> Splits:
        """The same without the test split, which trials must not see."""
        return replace(self, test=None)


#: `progress(done, total, what)`, called while data is read.
Progress = Callable[[int, int, str], None]


class Task(Protocol):
    """What a task must give. Methods keep no state; the state of a training is in its `Learner`."""

    name: str
    objective: Objective

    def prepare(self, data: dict[str, Any], source: Path | None, cache: Path, progress: Progress) -> Splits:
        """Reads, checks, splits and caches the data; called once a search, on the driver.

        Args:
            data: the `data` section of the configuration.
            source: the user's file or folder; None for the demo set.
            cache: a folder for decoded data, whose files are named by their content.

        Raises:
            InputError: the data cannot be used; the message names everything that is wrong with it.
        """
        ...

    def describe_source(self, data: dict[str, Any]) -> str:
        """One line: the data that a run without `--data` would take now."""
        ...

    def check(self, params: Params) -> None:
        """Checks the fixed hyperparameters before anything is started.

        Raises:
            InputError: no trial could start with a value, for instance a checkpoint that cannot be loaded.
        """
        ...

    def build(self, params: Params, splits: Splits, epochs: int, device: Device) -> Learner:
        """Makes a new model with its optimizer and schedule; the random generators are seeded already.

        Scaling, class weights and the like are fitted to `splits.train`.

        Args:
            epochs: the number that the schedule is laid out for.
        """
        ...

    def train_epoch(self, learner: Learner, split: Any) -> dict[str, float]:
        """Trains one pass over `split`.

        Returns:
            What `training.fit_batches` returns.

        Raises:
            Diverged: the loss is not finite.
        """
        ...

    def evaluate(self, learner: Learner, split: Any) -> dict[str, float]:
        """Metrics on a split, by name without a prefix; the objective's is one of them."""
        ...

    def merge(self, splits: Splits) -> Any:
        """Joins train and validation into one split, for the final training."""
        ...

    def baselines(self, splits: Splits) -> dict[str, float]:
        """The test objective, by name, of simple methods that a network has to beat; may be empty."""
        ...

    def artifacts(self, learner: Learner, split: Any, info: DataInfo, folder: Path) -> None:
        """Writes tables and pictures of the final model's predictions on `split` into `folder`."""
        ...

    def export(self, learner: Learner, info: DataInfo, folder: Path) -> None:
        """Writes the finished model into `folder`, so that `load` needs nothing else."""
        ...

    def load(self, folder: Path) -> Any:
        """Loads an exported model, as `predict` takes it."""
        ...

    def inputs(self, arguments: Sequence[str]) -> pd.DataFrame:
        """Turns the command line's inputs into the frame that `predict` takes; raises InputError."""
        ...

    def predict(self, model: Any, frame: pd.DataFrame) -> pd.DataFrame:
        """Predictions: a row for each row of `frame`."""
        ...

    def example(self, split: Any, info: DataInfo) -> pd.DataFrame:
        """A few raw inputs of a split, in the form that `predict` takes."""
        ...


#: The values that each hyperparameter can take; None for a continuous range.
Choices = dict[str, tuple[Any, ...] | None]


@runtime_checkable
class Precomputed(Protocol):
    """For a task in which a part of what every trial would compute can be computed once a search."""

    def precompute(self, splits: Splits, choices: Choices, device: Device, cache: Path, progress: Progress) -> Splits:
        """Adds to the splits what the trials of this space share; raises InputError.

        Args:
            choices: the values of each hyperparameter of the space.
        """
        ...


@runtime_checkable
class Sampling(Protocol):
    """For a task whose model produces something to read, such as sentences."""

    def samples(self, learner: Learner) -> list[str]:
        """Lines that show how far the model has come; called after every epoch of the final training."""
        ...


@runtime_checkable
class Traced(Protocol):
    """For a task that can give its error on each sample of a split."""

    def errors(self, learner: Learner, split: Any) -> pd.DataFrame:
        """A row for each sample, with two columns: what the error is drawn against (a length, say), and the error."""
        ...


@runtime_checkable
class Bootstrapped(Protocol):
    """For a task whose objective follows from sums over independent units of a split, such as pictures or sentences.

    The objective can then be computed again for units that are drawn with repetition (the bootstrap).
    """

    def units(self, learner: Learner, split: Any) -> np.ndarray:
        """(units, k): what each unit adds to the sums. Units and their order are the same for every model."""
        ...

    def objective_of(self, sums: np.ndarray) -> np.ndarray:
        """The objective (...) of sums (..., k) over units."""
        ...


def array_digest(arrays: Iterable[np.ndarray | bytes]) -> str:
    """A short hash of the content of arrays (with shape and type) and bytes, in their order."""
    digest = hashlib.blake2b(digest_size=12)
    for item in arrays:
        if isinstance(item, bytes):
            digest.update(item)
        else:
            digest.update(f"{item.dtype.str}{item.shape}".encode())
            digest.update(item.tobytes())
    return digest.hexdigest()
