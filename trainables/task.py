"""The one interface between a task and the engine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from trainables.fused import Stack
    from trainables.training import Device, Learner

#: A hyperparameter configuration as a trial gets it: flat names (`model.pretrained`), plain values.
Params = dict[str, Any]


class InputError(Exception):
    """What the user gave cannot be used. The message names the place, the value and what is allowed."""


@dataclass(frozen=True)
class Objective:
    """What a search optimises: a key of `Task.evaluate`'s result, and which way is better."""

    metric: str
    mode: Literal["min", "max"]
    #: Metrics that are part of the model, a decision threshold say: chosen on validation in each epoch, and from the
    #: best epoch on a hyperparameter of that name in whatever trains the configuration again.
    tuned: tuple[str, ...] = ()

    def loss(self, value: float) -> float:
        """`value` turned so that smaller is better."""
        return value if self.mode == "min" else -value

    def val_loss(self, metrics: dict[str, float]) -> float:
        """The loss of an epoch on validation."""
        return self.loss(metrics[f"val_{self.metric}"])

    def better(self, value: float, than: float) -> bool:
        """Whether `value` is strictly better, so that of equals the earlier one stays."""
        return self.loss(value) < self.loss(than)


@dataclass(frozen=True)
class DataInfo:
    """What is known of a data set without holding it."""

    source: str
    fingerprint: str
    test_fingerprint: str
    sizes: dict[str, int]
    classes: tuple[str, ...] = ()
    #: What was chosen or left out for the user; printed once and kept with the search.
    notes: tuple[str, ...] = ()
    #: Values of the `data` section that stand for what was found at the start; a resume and the final training keep
    #: to them.
    chosen: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Splits:
    """A prepared data set. The type of a split is the task's own; the engine only hands it on."""

    train: Any
    val: Any
    test: Any
    info: DataInfo

    def for_search(self) -> Splits:
        """The same without the test split: a trial cannot look at what it is not given."""
        return replace(self, test=None)


#: `progress(done, total, what)`, called while data is read.
Progress = Callable[[int, int, str], None]


class Task(Protocol):
    """What a task gives. All methods are stateless: state lives in the `Learner`."""

    name: str
    objective: Objective

    def prepare(self, data: dict[str, Any], source: Path | None, cache: Path, progress: Progress) -> Splits:
        """Reads, checks, splits and caches the data; done once a search, on the driver.

        Args:
            data: the `data` section of the configuration.
            source: where the user's data is; None for the demo set.
            cache: a folder for decoded data, keyed by content.

        Raises:
            InputError: the data cannot be used; everything wrong with it is named.
        """
        ...

    def describe_source(self, data: dict[str, Any]) -> str:
        """One line: which data a run without `--data` takes now, and what else that may change from day to day."""
        ...

    def check(self, params: Params) -> None:
        """Refuses fixed values that no trial could start with (a checkpoint that cannot be loaded).

        Raises:
            InputError: before anything is started.
        """
        ...

    def build(self, params: Params, splits: Splits, epochs: int, device: Device) -> Learner:
        """A fresh model with its optimizer and schedule. The random state is already seeded.

        What is fitted to data before training (scaling, class weights, a vocabulary) is fitted to `splits.train`.
        """
        ...

    def train_epoch(self, learner: Learner, split: Any) -> dict[str, float]:
        """One pass over `split`; raises `training.Diverged` as soon as the loss is not finite."""
        ...

    def evaluate(self, learner: Learner, split: Any) -> dict[str, float]:
        """Metrics on a split without a prefix, the objective's among them."""
        ...

    def merge(self, splits: Splits) -> Any:
        """Train and validation as one split, for the final training."""
        ...

    def baselines(self, splits: Splits) -> dict[str, float]:
        """The objective on the test split of methods that any network has to beat; may be empty."""
        ...

    def artifacts(self, learner: Learner, split: Any, info: DataInfo, folder: Path) -> None:
        """Writes what people look at (tables, pictures) into `folder`."""
        ...

    def export(self, learner: Learner, info: DataInfo, folder: Path) -> None:
        """Writes the finished model so that `load` needs nothing else."""
        ...

    def load(self, folder: Path) -> Any:
        """What `predict` needs, from an exported folder."""
        ...

    def inputs(self, arguments: Sequence[str]) -> pd.DataFrame:
        """The command line's inputs as the frame that `predict` takes; raises InputError."""
        ...

    def predict(self, model: Any, frame: pd.DataFrame) -> pd.DataFrame:
        """Predictions, a row for each row of `frame`."""
        ...

    def example(self, split: Any, info: DataInfo) -> pd.DataFrame:
        """A few raw inputs from a split, in the form that `predict` takes."""
        ...


@runtime_checkable
class Fusable(Protocol):
    """What a task gives beside, where its trials of one shape can train as one batched model (`fused.py`)."""

    def shape(self, params: Params) -> Hashable:
        """Equal for configurations whose parameters, optimizer and batches have the same shapes."""
        ...

    def epoch_batches(self, learner: Learner, split: Any) -> Sequence[Any]:
        """An epoch's batches in their order, drawn as `train_epoch` draws them.

        Batch k has the same size for every member.
        """
        ...

    def fused_losses(
        self, stack: Stack, split: Any, batches: Sequence[Any]
    ) -> tuple[torch.Tensor, int, dict[str, torch.Tensor]]:
        """A batch of each member: mean losses (members,), batch size, sums over samples (members,) as `Forward`."""
        ...

    def fused_evaluate(self, stack: Stack, split: Any) -> list[dict[str, float]]:
        """`evaluate` for every member."""
        ...


#: The values that each hyperparameter can take; None for a range that cannot be counted.
Choices = dict[str, tuple[Any, ...] | None]


@runtime_checkable
class Precomputed(Protocol):
    """What a task gives beside, where part of what every trial would compute can be computed once a search."""

    def precompute(self, splits: Splits, choices: Choices, device: Device, cache: Path, progress: Progress) -> Splits:
        """The splits with all that the trials of this space take as given; raises InputError."""
        ...


@runtime_checkable
class Sampling(Protocol):
    """What a task gives beside, where its model has something to say that is read rather than measured."""

    def samples(self, learner: Learner) -> list[str]:
        """Lines that show how far the model has come; asked for after every epoch of the final training."""
        ...


@runtime_checkable
class Traced(Protocol):
    """What a task gives beside, where it can say on which samples of a split its errors lie."""

    def errors(self, learner: Learner, split: Any) -> pd.DataFrame:
        """A row a sample, two columns: what its error is shown against (a sequence's length), and the error."""
        ...


@runtime_checkable
class Bootstrapped(Protocol):
    """What a task gives beside, where its objective follows from sums over a split's independent units (pictures,
    sentences, stretches of text), so that it can be computed again for units drawn with repetition."""

    def units(self, learner: Learner, split: Any) -> np.ndarray:
        """(units, k): what each unit adds to the sums; as many units, in the same order, for every model."""
        ...

    def objective_of(self, sums: np.ndarray) -> np.ndarray:
        """The objective from sums (..., k) over units: (...)."""
        ...


def array_digest(arrays: Iterable[np.ndarray | bytes]) -> str:
    """A short content hash over arrays (shape and type included) and bytes, in their order."""
    digest = hashlib.blake2b(digest_size=12)
    for item in arrays:
        if isinstance(item, bytes):
            digest.update(item)
        else:
            digest.update(f"{item.dtype.str}{item.shape}".encode())
            digest.update(item.tobytes())
    return digest.hexdigest()
