"""Hyperparameter search on Ray Tune, with proposals by Optuna, runs in MLflow, and a journal to resume from.

From Python: `search.run(train, space, objective)`. From the shell: `python -m search run TASK`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search import callbacks as callbacks
    from search.api import (
        compare,
        delete,
        du,
        gc,
        ls,
        open,
        plan,
        predict,
        promote,
        rename,
        run,
        searches,
        tasks,
    )  # fmt: skip
    from search.core.decision import Decision
    from search.observer import Observer
    from search.result import BestTrial, SearchResult
    from search.specs import choice, integer, loguniform, uniform
    from search.study import AskedTrial, SharedStudy
    from trainables.base.errors import InputError, SearchError
    from trainables.loops.errors import TrainingError
    from trainables.loops.trial import Trial

__version__ = "0.1.0"
__all__ = [
    "AskedTrial", "BestTrial", "Command", "Decision", "InputError", "Observer", "SearchError", "SearchResult",
    "SharedStudy", "TrainingError", "Trial", "choice", "compare", "delete", "du", "gc", "integer", "loguniform", "ls",
    "open", "plan", "predict", "promote", "rename", "run", "searches", "tasks", "uniform",
]  # fmt: skip
#: The module of each public name. A module is imported when one of its names is first used.
_PLACES = dict.fromkeys(__all__, "search.api") | {
    **dict.fromkeys(("choice", "integer", "loguniform", "uniform"), "search.specs"),
    **dict.fromkeys(("InputError", "SearchError"), "trainables.base.errors"),
    "TrainingError": "trainables.loops.errors",
    "AskedTrial": "search.study", "SharedStudy": "search.study", "Decision": "search.core.decision",
    "BestTrial": "search.result", "SearchResult": "search.result", "Observer": "search.observer",
    "Trial": "trainables.loops.trial", "Command": "trainables.loops.command",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    if name == "callbacks":
        return import_module("search.callbacks")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
