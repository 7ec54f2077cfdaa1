"""The interface between a task and the engine: what a task must give, and what it may give."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from trainables.base.values import Allowed

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

    @property
    def key(self) -> str:
        """The name of the objective among the metrics of an epoch, such as `val_accuracy`."""
        return f"val_{self.metric}"

    @property
    def test_key(self) -> str:
        """The name of the objective on the test split, such as `test_accuracy`."""
        return f"test_{self.metric}"

    def loss(self, value: float) -> float:
        """`value` turned so that smaller is better."""
        return value if self.mode == "min" else -value

    def val_loss(self, metrics: dict[str, float]) -> float:
        """The loss of an epoch on validation."""
        return self.loss(metrics[self.key])

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
    #: Fingerprints that earlier versions of this project gave the same data.
    earlier: tuple[str, ...] = ()


@dataclass(frozen=True)
class Splits:
    """A prepared data set. The type of a split is the task's own; the engine only passes it on."""

    train: Any
    val: Any
    test: Any
    info: DataInfo

    @classmethod
    def of(cls, source: str, train: Any, val: Any, test: Any) -> Splits:
        """Splits that describe themselves: their sizes and fingerprints follow from what they hold.

        Args:
            source: what the data is called, for people.
            train, val, test: arrays, tensors, data frames, strings or numbers; or a tuple, list or dict of these. The
                size of a tuple or dict is that of its first member.

        Raises:
            TypeError: the content of a split cannot be hashed; give `Splits` a `DataInfo` then.
        """
        sizes = {name: _size(split) for name, split in {"train": train, "val": val, "test": test}.items()}
        return cls(train, val, test, DataInfo(source, content_digest((train, val, test)), content_digest(test), sizes))

    def for_search(self) -> Splits:
        """The same without the test split, which trials must not see."""
        return replace(self, test=None)


#: `progress(done, total, what)`, called while data is read.
Progress = Callable[[int, int, str], None]


class Task(Protocol):
    """What a task must give. Methods keep no state; the state of a training is in its `Learner`.

    What a task may give besides are the protocols below: the engine looks which of them it has.
    """

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
            Means over the pass by name, `loss` among them; `training.fit_batches` gives also the mean `gradient_norm`
            and the number of `samples`. A loss that is not finite ends the trial as diverged.
        """
        ...

    def evaluate(self, learner: Learner, split: Any) -> dict[str, float]:
        """Metrics on a split, by name without a prefix; the objective's is one of them."""
        ...


@runtime_checkable
class Mergeable(Protocol):
    """For a task whose final training has validation in it too; without it that is on train alone."""

    def merge(self, splits: Splits) -> Any:
        """Joins train and validation into one split."""
        ...


@runtime_checkable
class Exported(Protocol):
    """For a task whose model is written for others to use; without it none is registered."""

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


@runtime_checkable
class Baselined(Protocol):
    """For a task that knows simple methods, which a network has to beat."""

    def baselines(self, splits: Splits) -> dict[str, float]:
        """The test objective of each, by name; may be empty."""
        ...


@runtime_checkable
class Illustrated(Protocol):
    """For a task that shows where its final model is right and wrong."""

    def artifacts(self, learner: Learner, split: Any, info: DataInfo, folder: Path) -> None:
        """Writes tables and pictures of the predictions on `split` into `folder`."""
        ...


@runtime_checkable
class Described(Protocol):
    """For a task that says where its data comes from without reading it."""

    def describe_source(self, data: dict[str, Any]) -> str:
        """One line: the data that a run without `--data` would take now."""
        ...


@runtime_checkable
class Limited(Protocol):
    """For a task that says what its hyperparameters can be; a misspelt text is then refused before anything starts.

    Without it the texts count that the task's YAML file lists in its choices.

    Attributes:
        allowed: by name the values, or a `Numbers`; a hyperparameter that is not in it can be anything.
    """

    allowed: Allowed


@runtime_checkable
class Checked(Protocol):
    """For a task whose fixed hyperparameters can be wrong in a way that no range tells."""

    def check(self, params: Params) -> None:
        """Checks them before anything is started.

        Raises:
            InputError: no trial could start with a value, for instance a checkpoint that cannot be loaded.
        """
        ...


def source_line(task: Task, data: dict[str, Any]) -> str:
    """One line: where a task's data comes from without `--data`."""
    return task.describe_source(data) if isinstance(task, Described) else "its own data"


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


def content_digest(content: Any) -> str:
    """A short hash of arrays, tensors, frames, strings and numbers, and of tuples, lists and dicts of them.

    Raises:
        TypeError: something else is in it.
    """
    return array_digest(_flat(content))


def _flat(content: Any) -> Iterator[np.ndarray | bytes]:
    if isinstance(content, dict):
        content = [item for pair in content.items() for item in pair]
    if isinstance(content, tuple | list):
        yield f"{type(content).__name__}{len(content)}".encode()
        for item in content:
            yield from _flat(item)
    elif hasattr(content, "to_dict") and hasattr(content, "columns"):
        yield from _flat(content.to_dict("list"))
    elif hasattr(content, "detach"):
        yield from _flat(content.detach().cpu().numpy())
    elif hasattr(content, "dtype") and not content.dtype.hasobject:
        yield content
    elif isinstance(content, bytes | str | int | float | bool | None):
        yield repr(content).encode()
    elif hasattr(content, "tolist"):
        yield from _flat(content.tolist())
    else:
        raise TypeError(f"{type(content).__name__}: its content cannot be hashed; give Splits a DataInfo")


def _size(split: Any) -> int:
    if isinstance(split, dict):
        split = tuple(split.values())
    return len(split[0] if isinstance(split, tuple) else split)
