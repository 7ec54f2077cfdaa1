"""The tasks, in plain PyTorch. Only `base/trainable.py` and `loops/ranks.py` import Ray, only `loops/models.py` MLflow,
and no file Optuna.

A task of another package imports its names from here, `from trainables import Learner, Objective, Splits`. These
addresses do not change.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from trainables.base.batches import shuffled_batches
    from trainables.base.device import Device, choose_device
    from trainables.base.errors import InputError
    from trainables.base.fused import Stack
    from trainables.base.optimizers import make_optimizer, make_schedule
    from trainables.base.survey import Finding
    from trainables.base.task import (
        Baselined,
        Bootstrapped,
        Checked,
        Choices,
        DataInfo,
        Described,
        Exported,
        Fusable,
        Illustrated,
        Limited,
        Mergeable,
        Objective,
        Params,
        Precomputed,
        Progress,
        Sampling,
        SelfTrained,
        Splits,
        Surveyed,
        Task,
        Timed,
        Traced,
        array_digest,
        content_digest,
    )  # fmt: skip
    from trainables.base.training import Diverged, Learner, fit_batches, not_finite, seed_everything
    from trainables.base.values import Allowed, Numbers, check_params, plain

__all__ = [
    "Allowed", "Baselined", "Bootstrapped", "Checked", "Choices", "DataInfo", "Described", "Device", "Diverged",
    "Exported", "Finding", "Fusable", "Illustrated", "InputError", "Learner", "Limited", "Mergeable", "Numbers",
    "Objective", "Params", "Precomputed", "Progress", "Sampling", "SelfTrained", "Splits", "Stack", "Surveyed", "Task",
    "Timed", "Traced", "array_digest", "check_params", "choose_device", "content_digest", "fit_batches",
    "make_optimizer", "make_schedule", "not_finite", "plain", "seed_everything", "shuffled_batches",
]  # fmt: skip
#: Where the public names are defined. They are imported when they are first used: all but the first three need torch.
_MODULES = ("errors", "values", "task", "device", "batches", "optimizers", "training", "fused", "survey")
#: Older task packages import the public names from `trainables.task` and `trainables.training`
#: (tests/compatibility has one).
for _alias in ("task", "training"):
    globals()[_alias] = sys.modules[f"{__name__}.{_alias}"] = sys.modules[__name__]

#: The module of each task of this package; its attribute `TASK` is the task. A new task is a folder, a YAML file and a
#: line here.
TASKS = {
    "windows": "trainables.windows.task",
    "rnn": "trainables.rnn.task",
    "tweets": "trainables.tweets.task",
    "lyrics": "trainables.lyrics.task",
    "wikitext": "trainables.wikitext.task",
}
#: The address of the task class for training functions, commands and imported searches.
LOOP_TASK = "trainables.loops.task:LoopTask"


def __getattr__(name: str) -> Any:
    for module in _MODULES if name in __all__ else ():
        if (value := getattr(import_module(f"trainables.base.{module}"), name, None)) is not None:
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def task_names() -> list[str]:
    """The names of the tasks of this package, then those of other packages and of functions in this process."""
    return [*TASKS, *sorted(_addresses().keys() - TASKS.keys())]


def runnable_tasks() -> list[str]:
    """The tasks that `run` takes: `task_names` without the functions and commands of searches in this process."""
    return [name for name in task_names() if not (registered_address(name) or "").startswith(LOOP_TASK)]


def get_task(name: str) -> Task:
    """The task of this name.

    Raises:
        KeyError: no such task; the command line checks the name first.
    """
    module, _, attribute = _address(name).partition(":")
    attribute, _, arguments = attribute.partition("?")
    task: Any = getattr(import_module(module), attribute)
    task = task(name, **dict(parse_qsl(arguments))) if arguments else task
    import_module("trainables.base.task").check_task(task)
    return task


def register_task(name: str, address: str) -> None:
    """Registers a task in this process and in the worker processes that it starts.

    The registry is the environment variable SEARCH_TASKS, as workers inherit the environment and nothing else. It holds
    `NAME=ADDRESS` for each task, with a comma between two tasks.

    Args:
        address: `module:attribute` of a task object. `module:factory?key=value&...` makes the task by a call,
            `factory(name, key="value", ...)`: a training function is a `LoopTask` with its metric and mode.
    """
    tasks = _registered() | {name: address}
    os.environ["SEARCH_TASKS"] = ",".join(f"{key}={value}" for key, value in tasks.items())


def registered_address(name: str) -> str | None:
    """The address of a task in SEARCH_TASKS; None for an installed task."""
    return _registered().get(name)


def task_config_file(name: str) -> Path | None:
    """The YAML file of another package's task, which lies beside its module; None for the tasks of this package."""
    if name in TASKS:
        return None
    address = _address(name)
    file = Path(str(import_module(address.partition(":")[0]).__file__))
    return file.with_name(f"{file.parent.name if '?' in address else name}.yaml")


def package_for_workers(name: str) -> tuple[Path | None, dict[str, str]]:
    """What workers on other machines need to import a task of another package.

    Returns:
        The folder or file of the package, and the environment variables that name the task. A folder that is sent to a
        worker has no entry points.
    """
    if name in TASKS:
        return None, {}
    address = _address(name)
    package = import_module(address.partition(":")[0].partition(".")[0])
    environment = {"SEARCH_TASKS": f"{name}={address}"}
    if package.__name__ == __name__:
        return None, environment
    file = Path(str(package.__file__))
    return file.parent if hasattr(package, "__path__") else file, environment


def _address(name: str) -> str:
    """The address of a task. For a task of this package no entry point is read from disk."""
    return f"{TASKS[name]}:TASK" if name in TASKS else _addresses()[name]


def _addresses() -> dict[str, str]:
    """The address of each task of other packages: of entry points in the group `search.tasks`, and of SEARCH_TASKS."""
    return {point.name: point.value for point in entry_points(group="search.tasks")} | _registered()


def _registered() -> dict[str, str]:
    """The address of each task in SEARCH_TASKS."""
    return dict(entry.split("=", 1) for entry in os.environ.get("SEARCH_TASKS", "").split(",") if "=" in entry)
