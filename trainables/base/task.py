"""The interface between a task and the engine: what a task must provide, and what it may provide.

A task is any object with the methods of `Task`. Each further protocol of this module is an optional capability. The
engine asks `isinstance(task, Mergeable)`, and `check_task` finds a misspelt or incomplete capability when the task is
loaded. Protocols stay, and no base class replaces them, because a base class with default methods would need a second
rule for "this task does not merge" in each of the 30 places that now ask `isinstance`.

This module imports no torch: the core of the search reads it.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from trainables.base.values import Allowed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from trainables import Finding, Learner, Stack  # by their public names: their modules import this module
    from trainables.base.device import Device

#: The hyperparameters of a trial: plain values by flat name, such as `model.pretrained`.
Params = dict[str, Any]
#: The values that each hyperparameter of a space can take; None for a continuous range.
Choices = dict[str, tuple[Any, ...] | None]
#: `progress(done, total, what)`, called while data is read. A `total` of 1 names work that has no steps.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Objective:
    """The metric that a search optimises.

    Attributes:
        metric: a key of the result of `Task.evaluate`.
        mode: whether a smaller or a larger value is better.
        tuned: metrics that belong to the model, such as a decision threshold. Each epoch fits them to validation. A
            training that repeats the configuration gets the values of its best epoch as hyperparameters.
    """

    metric: str
    mode: Literal["min", "max"]
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
        """`value`, negated if larger is better: the smaller loss is always the better one."""
        return value if self.mode == "min" else -value

    def val_loss(self, metrics: dict[str, float]) -> float:
        """The loss of an epoch on validation."""
        return self.loss(metrics[self.key])

    def better(self, value: float, than: float) -> bool:
        """Whether `value` is strictly better than `than`."""
        return self.loss(value) < self.loss(than)


@dataclass(frozen=True)
class DataInfo:
    """A description of a data set.

    Attributes:
        source: the name of the data set, for people.
        fingerprint: a hash of all splits.
        test_fingerprint: a hash of the test split.
        sizes: the number of samples of each split.
        notes: sentences on what was chosen or left out. The search prints them once and keeps them.
        chosen: values of the `data` section that `prepare` chose. A resume and the final training keep them.
    """

    source: str
    fingerprint: str
    test_fingerprint: str
    sizes: dict[str, int]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    chosen: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Splits:
    """A prepared data set. The task chooses the type of a split; the engine passes splits on unread."""

    train: Any
    val: Any
    test: Any
    info: DataInfo

    @classmethod
    def of(cls, source: str, train: Any, val: Any, test: Any) -> Splits:
        """Makes splits and computes their sizes and fingerprints.

        Args:
            source: the name of the data set, for people.
            train, val, test: arrays, tensors, data frames, strings or numbers; or a tuple, list or dict of these. The
                size of a tuple or dict is that of its first member.

        Raises:
            TypeError: the content of a split cannot be hashed; give `Splits` a `DataInfo` then.
        """
        sizes = {name: _size(split) for name, split in {"train": train, "val": val, "test": test}.items()}
        return cls(train, val, test, DataInfo(source, content_digest((train, val, test)), content_digest(test), sizes))

    @classmethod
    def made(cls, source: str, parts: Mapping[str, Any], digest: Callable[[list[Any]], str], **about: Any) -> Splits:
        """Makes splits and computes their sizes and fingerprints.

        Args:
            source: the name of the data set, for people.
            parts: `train`, `val` and `test`; each has a length.
            digest: returns a hash of a list of splits.
            about: the other fields of `DataInfo`.
        """
        sizes = {name: len(parts[name]) for name in ("train", "val", "test")}
        info = DataInfo(source, digest([*parts.values()]), digest([parts["test"]]), sizes, **about)
        return cls(parts["train"], parts["val"], parts["test"], info)

    def for_search(self) -> Splits:
        """The same splits without test, which trials must not see."""
        return replace(self, test=None)


class Task(Protocol):
    """The methods that a task must provide.

    Methods keep no state: the state of a training is in its `Learner`. A `SelfTrained` task needs neither `train_epoch`
    nor `evaluate`.
    """

    name: str
    objective: Objective

    def prepare(self, data: dict[str, Any], source: Path | None, cache: Path, progress: Progress) -> Splits:
        """Reads, checks, splits and caches the data. The driver calls it once for each search.

        Args:
            data: the `data` section of the configuration.
            source: the user's file or folder; None for the demo set.
            cache: a folder for decoded data. A file's name there is a hash of its content.

        Raises:
            InputError: the data cannot be used; the message names everything that is wrong with it.
        """
        ...

    def build(self, params: Params, splits: Splits, epochs: int, device: Device) -> Learner:
        """Makes a new model with its optimizer and schedule. The engine has seeded the random generators.

        Scaling, class weights and similar statistics are fitted to `splits.train`.

        Args:
            epochs: the length of the schedule.
        """
        ...

    def train_epoch(self, learner: Learner, split: Any) -> dict[str, float]:
        """Trains one pass over `split`.

        Returns:
            Means over the pass by name, `loss` among them; `training.fit_batches` adds the mean `gradient_norm` and the
            number of `samples`. A loss that is not finite ends the trial as diverged.
        """
        ...

    def evaluate(self, learner: Learner, split: Any) -> dict[str, float]:
        """Computes metrics on a split, by name without a prefix; the objective is one of them."""
        ...


class Training(Protocol):
    """The state of one training as the engine uses it: a `Learner`, or the `loops.trial.Loop` of a user's function."""

    device: Device
    params: Params
    #: The number of epochs that were trained.
    epoch: int
    #: The number of parts into which a batch is divided to save memory.
    micro_batches: int
    #: Plain data that a checkpoint holds.
    notes: dict[str, Any]

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint holds, the state of the random generators included."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, the random generators included."""
        ...


@runtime_checkable
class WithFiles(Protocol):
    """A training whose state may include files and folders, such as the checkpoint of another library's trainer."""

    @property
    def has_files(self) -> bool:
        """Whether the state includes files. They may change or vanish when the training goes on."""
        ...

    def files(self) -> dict[str, Path]:
        """The files and folders of the state that `state_dict` returned last, by name; empty if it has none."""
        ...

    def take_files(self, folder: Path | None) -> None:
        """Gives the training the folder with the files of the state that it loaded; raises Damaged if it is missing."""
        ...


@runtime_checkable
class SelfTrained(Protocol):
    """A task that runs its epochs itself, such as a user's own training loop. `build` may return any `Training`."""

    def run_epoch(self, learner: Any, train: Any, val: Any) -> dict[str, float]:
        """Trains and evaluates the next epoch; returns metrics as `training.run_epoch` does.

        The engine calls it once more after the last epoch, so that code after the loop runs too (saving a model, say).

        Raises:
            Ended: the training is over.
        """
        ...

    def place(self, learner: Any, number: int, folder: Path | None) -> None:
        """Gives a training its trial number, and its own folder if this machine sees the search's folder."""
        ...

    @property
    def trains_finally(self) -> bool:
        """Whether a search ends with a final training by itself."""
        ...

    @property
    def tests(self) -> bool:
        """Whether the final model is tested."""
        ...

    @property
    def keeps_model(self) -> bool:
        """Whether the checkpoint of a trial holds its model, so that it can be tested without a final training."""
        ...

    @property
    def predicts(self) -> bool:
        """Whether the final model predicts."""
        ...


@runtime_checkable
class Mergeable(Protocol):
    """A task whose final training uses validation data too. Without it the final training uses train alone."""

    def merge(self, splits: Splits) -> Any:
        """Joins train and validation into one split."""
        ...


@runtime_checkable
class Exported(Protocol):
    """A task that writes its model for others to use. Without it the search registers no model."""

    def export(self, learner: Any, info: DataInfo, folder: Path) -> pd.DataFrame | None:
        """Writes the finished model into `folder`, so that `load` needs nothing else.

        Returns:
            Some raw inputs, if only the training knows them; they take the place of `example`.
        """
        ...

    def load(self, folder: Path) -> Any:
        """Loads an exported model, as `predict` takes it."""
        ...

    def inputs(self, arguments: Sequence[str]) -> pd.DataFrame:
        """Turns the inputs of the command line into the frame that `predict` takes; raises InputError."""
        ...

    def predict(self, model: Any, frame: pd.DataFrame) -> pd.DataFrame:
        """Predicts: a row for each row of `frame`."""
        ...

    def example(self, split: Any, info: DataInfo) -> pd.DataFrame | None:
        """A few raw inputs of a split, in the form that `predict` takes; None if the task knows none."""
        ...


@runtime_checkable
class Baselined(Protocol):
    """A task with simple methods that a network has to beat."""

    def baselines(self, splits: Splits) -> dict[str, float]:
        """The test objective of each baseline, by name; may be empty."""
        ...


@runtime_checkable
class Illustrated(Protocol):
    """A task that shows where its final model is right and wrong."""

    def artifacts(self, learner: Learner, split: Any, info: DataInfo, folder: Path) -> None:
        """Writes tables and pictures of the predictions on `split` into `folder`."""
        ...


@runtime_checkable
class Described(Protocol):
    """A task that names its data source without reading the data."""

    def describe_source(self, data: dict[str, Any]) -> str:
        """One line: the data that a run without `--data` would use now."""
        ...


@runtime_checkable
class Limited(Protocol):
    """A task that lists the allowed values of its hyperparameters; a misspelt value is refused before any trial starts.

    Without it the allowed texts are those that the choices of the task's YAML file list.

    Attributes:
        allowed: by hyperparameter the values, or a `Numbers`. A hyperparameter that is not listed can be anything.
    """

    allowed: Allowed


@runtime_checkable
class Checked(Protocol):
    """A task whose fixed hyperparameters can be wrong in a way that no list of allowed values expresses."""

    def check(self, params: Params) -> None:
        """Checks the fixed hyperparameters before any trial starts.

        Raises:
            InputError: no trial could start with a value, for instance a checkpoint that cannot be loaded.
        """
        ...


@runtime_checkable
class Precomputed(Protocol):
    """A task whose trials share a computation, which is then done once for each search."""

    def precompute(self, splits: Splits, choices: Choices, device: Device, cache: Path, progress: Progress) -> Splits:
        """Adds the shared results to the splits; raises InputError.

        Args:
            choices: the values of each hyperparameter of the space.
        """
        ...


@runtime_checkable
class Sampling(Protocol):
    """A task whose model writes samples for people to read, such as sentences."""

    def samples(self, learner: Learner) -> list[str]:
        """Samples, a line each. The engine asks for them after every epoch of the final training."""
        ...


@runtime_checkable
class Traced(Protocol):
    """A task that reports the error on each sample of a split."""

    def errors(self, learner: Learner, split: Any) -> pd.DataFrame:
        """A row for each sample, with two columns: the quantity of the x axis (such as a length), and the error."""
        ...


@runtime_checkable
class Timed(Protocol):
    """A task whose network can be asked for one prediction, so that its latency can be limited: `latency_ms`."""

    def answer(self, learner: Learner, split: Any) -> Callable[[], object]:
        """A function that predicts one input of a split, the longest if inputs have lengths.

        The engine times it, with the model in evaluation mode and without gradients.
        """
        ...


@runtime_checkable
class Bootstrapped(Protocol):
    """A task whose objective follows from sums over independent units of a split, such as pictures or sentences.

    The engine then computes the objective again for units that are drawn with repetition (the bootstrap).
    """

    def units(self, learner: Any, split: Any) -> np.ndarray | None:
        """The terms (units, k) that each unit adds to the sums. Units and their order are the same for every model.

        None if the units of this model are not known.
        """
        ...

    def objective_of(self, sums: np.ndarray) -> np.ndarray:
        """The objective (...) of sums (..., k) over units."""
        ...


@runtime_checkable
class Surveyed(Protocol):
    """A task that examines its data before training."""

    def leaks(self, splits: Splits) -> list[Finding]:
        """Samples that validation and test share with train beyond chance; figures on them flatter. Takes seconds."""
        ...

    def overview(self, splits: Splits) -> list[Finding]:
        """A description of the data: classes, lengths, examples, ..."""
        ...


@runtime_checkable
class Fusable(Protocol):
    """A task whose trials of one shape can train as one batched model."""

    def shape(self, params: Params) -> Hashable:
        """A key that is equal for configurations whose parameters, optimizer and batches have equal shapes; None for a
        configuration that has to train alone."""
        ...

    def epoch_batches(self, learner: Learner, split: Any) -> Sequence[Any]:
        """The batches of an epoch in their order, drawn as `train_epoch` draws them.

        Batch k must have the same size for every member.
        """
        ...

    def fused_losses(
        self, stack: Stack, split: Any, batches: Sequence[Any]
    ) -> tuple[torch.Tensor, int, dict[str, torch.Tensor]]:
        """Runs one batch of each member.

        Returns:
            Mean losses (members,), the batch size, and sums over samples (members,) as in `training.Forward`.
        """
        ...

    def fused_evaluate(self, stack: Stack, split: Any) -> list[dict[str, float]]:
        """The result of `evaluate` for every member."""
        ...


#: Classes of tasks that `check_task` found correct. A check takes 10 ms, and commands look tasks up often.
_correct: set[type] = set()
#: The optional capabilities with methods.
CAPABILITIES: tuple[type, ...] = (
    SelfTrained, Mergeable, Exported, Baselined, Illustrated, Described, Checked, Precomputed, Sampling, Traced,
    Timed, Bootstrapped, Surveyed, Fusable,
)  # fmt: skip


def check_task(task: Any) -> None:
    """Checks that a task has the required methods, whole capabilities, and the parameters that the engine passes.

    Raises:
        TypeError: a required method is missing, a capability has some of its methods only, or a method takes other
            arguments. The message names the method and the signature that is expected.
    """
    if type(task) in _correct:
        return
    required = ["prepare", "build"]
    if not isinstance(task, SelfTrained):
        required += ["train_epoch", "evaluate"]
    missing = [name for name in ("name", "objective", *required) if not hasattr(task, name)]
    if missing:
        raise TypeError(f"task {type(task).__name__}: has no {missing[0]}, which every task needs")
    for name in required:
        _check_signature(task, name, getattr(Task, name))
    for capability in CAPABILITIES:
        methods = {name: method for name, method in vars(capability).items() if inspect.isfunction(method)}
        methods = {name: method for name, method in methods.items() if not name.startswith("_")}
        present = [name for name in methods if hasattr(task, name)]
        if present and (absent := sorted(methods.keys() - set(present))):
            raise TypeError(
                f"task {type(task).__name__}: has {present[0]} but no {absent[0]}; {capability.__name__} needs both"
            )
        for name in present:
            _check_signature(task, name, methods[name])
    _correct.add(type(task))


def _check_signature(task: Any, name: str, expected: Any) -> None:
    """Raises TypeError if a method of a task cannot be called with the arguments of the protocol's method."""
    parameters = list(inspect.signature(expected).parameters)[1:]
    try:
        inspect.signature(getattr(task, name)).bind(*parameters)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"task {type(task).__name__}: {name}: {error}; expected {name}({', '.join(parameters)})"
        ) from error


def source_line(task: Task, data: dict[str, Any]) -> str:
    """One line: the data source of a task without `--data`."""
    return task.describe_source(data) if isinstance(task, Described) else "its own data"


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
