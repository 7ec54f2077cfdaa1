"""Hyperparameter search: Ray Tune runs it, Optuna proposes, MLflow keeps it, a journal makes it resumable.

From Python: `search.run(train, space, objective)`; from the shell: `python -m search run TASK`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.api import Best, Found, choice, integer, loguniform, open, run, searches, tasks, uniform
    from trainables.base.errors import InputError
    from trainables.loops.errors import TrainingError
    from trainables.loops.trial import Trial

__version__ = "0.1.0"
__all__ = [
    "Best", "Command", "Found", "InputError", "TrainingError", "Trial", "choice", "integer", "loguniform", "open",
    "run", "searches", "tasks", "uniform",
]  # fmt: skip
#: Where the public names are defined; they are imported when they are first used.
_PLACES = dict.fromkeys(__all__, "search.api") | {
    "Trial": "trainables.loops.trial", "TrainingError": "trainables.loops.errors",
    "InputError": "trainables.base.errors", "Command": "trainables.loops.command",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
