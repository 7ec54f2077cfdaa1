"""The tasks, in plain PyTorch: nothing here knows Ray, Optuna or MLflow, `base/trainable.py` apart.

What a task of another package needs is imported from here, `from trainables import Learner, Objective, Splits`: these
addresses do not move.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.base.errors import InputError
    from trainables.base.fused import Fusable, Stack
    from trainables.base.optimizers import make_optimizer, make_schedule
    from trainables.base.task import (
        Bootstrapped,
        Choices,
        DataInfo,
        Objective,
        Params,
        Precomputed,
        Progress,
        Sampling,
        Splits,
        Task,
        Traced,
        array_digest,
    )  # fmt: skip
    from trainables.base.training import (
        Device,
        Diverged,
        Learner,
        choose_device,
        fit_batches,
        not_finite,
        seed_everything,
        shuffled_batches,
    )  # fmt: skip

__all__ = [
    "Bootstrapped", "Choices", "DataInfo", "Device", "Diverged", "Fusable", "InputError", "Learner", "Objective",
    "Params", "Precomputed", "Progress", "Sampling", "Splits", "Stack", "Task", "Traced", "array_digest",
    "choose_device", "fit_batches", "make_optimizer", "make_schedule", "not_finite", "seed_everything",
    "shuffled_batches",
]  # fmt: skip
#: Where the public names are defined. They are imported when they are first used: the last three need torch.
_MODULES = ("errors", "task", "optimizers", "training", "fused")
#: Packages written before these rooms imported the public names from `trainables.task` and `trainables.training`.
for _address in ("task", "training"):
    globals()[_address] = sys.modules[f"{__name__}.{_address}"] = sys.modules[__name__]

#: The module of each task, whose `TASK` it is. A new task is a folder, a YAML file and a line here.
TASKS = {
    "windows": "trainables.windows.task",
    "rnn": "trainables.rnn.task",
    "tweets": "trainables.tweets.task",
    "lyrics": "trainables.lyrics.task",
    "wikitext": "trainables.wikitext.task",
}


def __getattr__(name: str) -> Any:
    for module in _MODULES if name in __all__ else ():
        if (found := getattr(import_module(f"trainables.base.{module}"), name, None)) is not None:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def task_names() -> list[str]:
    """The tasks of this package, then those of others: entry points of group `search.tasks`, and `SEARCH_TASKS`."""
    return [*TASKS, *sorted(_offered().keys() - TASKS.keys())]


def get_task(name: str) -> Task:
    """The task of this name.

    Raises:
        KeyError: no such task; the command line checks the name first.
    """
    module, _, attribute = _place(name).partition(":")
    task: Task = getattr(import_module(module), attribute)
    return task


def offered_config(name: str) -> Path | None:
    """The YAML file of another package's task, which lies beside its module; None for the tasks of this package."""
    if name in TASKS:
        return None
    module = import_module(_place(name).partition(":")[0])
    return Path(str(module.__file__)).with_name(f"{name}.yaml")


def travelling(name: str) -> tuple[Path | None, dict[str, str]]:
    """What workers on other machines need for a task of another package.

    Returns:
        Its folder or file, and environment variables that name the task, as a folder that is sent has no entry points.
    """
    if name in TASKS:
        return None, {}
    place = _place(name)
    package = import_module(place.partition(":")[0].partition(".")[0])
    file = Path(str(package.__file__))
    return file.parent if hasattr(package, "__path__") else file, {"SEARCH_TASKS": f"{name}={place}"}


def _place(name: str) -> str:
    """`module:attribute` of a task. For those of this package the installed entry points, on disk, are not read."""
    return f"{TASKS[name]}:TASK" if name in TASKS else _offered()[name]


def _offered() -> dict[str, str]:
    """`module:attribute` of each task of other packages."""
    installed = {point.name: point.value for point in entry_points(group="search.tasks")}
    named = dict(one.split("=", 1) for one in os.environ.get("SEARCH_TASKS", "").split(",") if "=" in one)
    return installed | named
