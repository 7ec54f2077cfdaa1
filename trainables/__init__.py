"""The tasks: plain PyTorch that knows nothing of Ray, Optuna or MLflow (`trainable.py` apart)."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
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
    task: Task = import_module(TASKS[name]).TASK if name in TASKS else _offered()[name].load()
    return task


def offered_config(name: str) -> Path | None:
    """The YAML of a task from another package, which lies beside its module; None for the tasks here."""
    if name in TASKS:
        return None
    module = import_module(_offered()[name].module)
    return Path(str(module.__file__)).with_name(f"{name}.yaml")


def _offered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="search.tasks")}
