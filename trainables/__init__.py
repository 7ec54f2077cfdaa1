"""The tasks: plain PyTorch that knows nothing of Ray, Optuna or MLflow (`trainable.py` apart)."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainables.task import Task

#: Every task by name, and the module whose `TASK` it is. Adding a task is a folder, a YAML and a line here.
TASKS = {
    "windows": "trainables.windows.task",
}


def get_task(name: str) -> "Task":
    """The task of this name.

    Raises:
        KeyError: no such task; the command line checks the name first.
    """
    task: Task = import_module(TASKS[name]).TASK
    return task
