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
    "Traced", "array_digest", "check_params", "choose_device", "content_digest", "fit_batches", "make_optimizer",
    "make_schedule", "not_finite", "plain", "seed_everything", "shuffled_batches",
]  # fmt: skip
#: Where the public names are defined. They are imported when they are first used: all but the first three need torch.
_MODULES = ("errors", "values", "task", "device", "batches", "optimizers", "training", "fused", "survey")
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
    attribute, _, arguments = attribute.partition("?")
    task: Any = getattr(import_module(module), attribute)
    task = task(name, **dict(parse_qsl(arguments))) if arguments else task
    import_module("trainables.base.task").check_task(task)
    return task


def offer(name: str, place: str) -> None:
    """Makes a task known to this process and to the workers that it starts.

    Args:
        place: `module:attribute`; with `?key=value&...` the attribute is called with the name and these to make it.
    """
    named = _named() | {name: place}
    os.environ["SEARCH_TASKS"] = ",".join(f"{key}={value}" for key, value in named.items())


def offered(name: str) -> str | None:
    """The place of a task that `offer` made known; None for others, which are found where they are installed."""
    return _named().get(name)


def offered_config(name: str) -> Path | None:
    """The YAML file of another package's task, which lies beside its module; None for the tasks of this package."""
    if name in TASKS:
        return None
    place = _place(name)
    file = Path(str(import_module(place.partition(":")[0]).__file__))
    return file.with_name(f"{file.parent.name if '?' in place else name}.yaml")


def travelling(name: str) -> tuple[Path | None, dict[str, str]]:
    """What workers on other machines need for a task of another package.

    Returns:
        Its folder or file, and environment variables that name the task, as a folder that is sent has no entry points.
    """
    if name in TASKS:
        return None, {}
    place = _place(name)
    package = import_module(place.partition(":")[0].partition(".")[0])
    where = {"SEARCH_TASKS": f"{name}={place}"}
    if package.__name__ == __name__:
        return None, where
    file = Path(str(package.__file__))
    return file.parent if hasattr(package, "__path__") else file, where


def _place(name: str) -> str:
    """`module:attribute` of a task. For those of this package the installed entry points, on disk, are not read."""
    return f"{TASKS[name]}:TASK" if name in TASKS else _offered()[name]


def _offered() -> dict[str, str]:
    """`module:attribute` of each task of other packages."""
    return {point.name: point.value for point in entry_points(group="search.tasks")} | _named()


def _named() -> dict[str, str]:
    return dict(one.split("=", 1) for one in os.environ.get("SEARCH_TASKS", "").split(",") if "=" in one)
