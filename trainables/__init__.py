"""The tasks: plain PyTorch that knows nothing of Ray, Optuna or MLflow (`trainable.py` apart)."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainables.task import Task

#: Every task by name, and the module whose `TASK` it is. Adding a task is a folder, a YAML and a line here.
TASKS = {
    "windows": "trainables.windows.task",
    "rnn": "trainables.rnn.task",
    "tweets": "trainables.tweets.task",
    "lyrics": "trainables.lyrics.task",
    "wikitext": "trainables.wikitext.task",
}


def task_names() -> list[str]:
    """The tasks here, then those that other installed packages offer as entry points of group `search.tasks`."""
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
    """The YAML of a task from another package, which lies beside its module; None for the tasks here."""
    if name in TASKS:
        return None
    module = import_module(_place(name).partition(":")[0])
    return Path(str(module.__file__)).with_name(f"{name}.yaml")


def travelling(name: str) -> tuple[Path | None, dict[str, str]]:
    """What workers on other machines need to have for a task from another package: its folder, or its file, and the
    environment that says where the task is, as nothing is installed by sending a folder."""
    if name in TASKS:
        return None, {}
    place = _place(name)
    package = import_module(place.partition(":")[0].partition(".")[0])
    file = Path(str(package.__file__))
    return file.parent if hasattr(package, "__path__") else file, {"SEARCH_TASKS": f"{name}={place}"}


def _place(name: str) -> str:
    """`module:attribute`; a task here is found without a look at what is installed, which reads the disk."""
    return f"{TASKS[name]}:TASK" if name in TASKS else _offered()[name]


def _offered() -> dict[str, str]:
    """`module:attribute` of each task of installed packages, and of those that `SEARCH_TASKS` names."""
    installed = {point.name: point.value for point in entry_points(group="search.tasks")}
    named = dict(one.split("=", 1) for one in os.environ.get("SEARCH_TASKS", "").split(",") if "=" in one)
    return installed | named
