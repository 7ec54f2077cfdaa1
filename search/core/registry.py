"""The searchers, schedulers, callbacks and writers of this project and of other packages, by name.

A package offers a class as an entry point of the group `search.searchers`, `search.schedulers`, `search.callbacks` or
`search.writers`:

    [project.entry-points."search.searchers"]
    cmaes = "my_package:CmaEsSearcher"

`search.searcher=cmaes` then selects it. Nothing is imported before a name is used: `--help` lists the names.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any


class Registry:
    """Objects by name: those of this project, and those of a group of entry points."""

    def __init__(self, group: str, own: dict[str, str]) -> None:
        """
        Args:
            group: the group of entry points, such as `search.searchers`.
            own: `module:attribute` of each object of this project, by name.
        """
        self.group, self.own = group, own

    def names(self) -> list[str]:
        """The names of this project, then those of other packages, which cannot replace a name of this project."""
        return [*self.own, *sorted(entry_points_of(self.group).keys() - self.own.keys())]

    def get(self, name: str) -> Any:
        """Imports the object of this name; raises KeyError if the name is unknown."""
        if name in self.own:
            module, _, attribute = self.own[name].partition(":")
            return getattr(import_module(module), attribute)
        return entry_points_of(self.group)[name].load()


@cache
def entry_points_of(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group, read once in a process."""
    return {point.name: point for point in entry_points(group=group)}


#: Subclasses of `searchers.base.Searcher`.
SEARCHERS = Registry(
    "search.searchers",
    {
        "ranks": "search.core.searchers.rank_searcher:RankSearcher",
        "tpe": "search.core.searchers.optuna_searcher:TpeSearcher",
        "gp": "search.core.searchers.optuna_searcher:GpSearcher",
        "random": "search.core.searchers.optuna_searcher:RandomSearcher",
        "grid": "search.core.searchers.grid:GridSearcher",
        "nsga2": "search.core.searchers.optuna_searcher:Nsga2Searcher",
    },
)
#: Subclasses of `schedulers.base.Scheduler`.
SCHEDULERS = Registry(
    "search.schedulers",
    {
        "asha": "search.core.schedulers.asha:Asha",
        "asha-promote": "search.core.schedulers.asha:PromotingAsha",
        "asha-predict": "search.core.schedulers.asha:PredictingAsha",
        "hyperband": "search.core.schedulers.hyperband:Hyperband",
        "median": "search.core.schedulers.median:MedianStopping",
        "none": "search.core.schedulers.base:Scheduler",
    },
)
#: A callback is called with every event, after the event is in the journal, and with the state of the search.
CALLBACKS = Registry("search.callbacks", {})
#: Callbacks that `search.writers` names. Each class has `of_search(folder, name, task, key)`.
WRITERS = Registry(
    "search.writers",
    {
        "tensorboard": "search.callbacks.tensorboard:TensorBoard",
        "wandb": "search.callbacks.weights_and_biases:WeightsAndBiases",
    },
)
