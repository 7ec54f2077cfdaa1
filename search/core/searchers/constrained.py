"""Moves the proposals of another searcher that violate a constraint of the space."""

from __future__ import annotations

import numpy as np

from search.core.config import SearchConfig
from search.core.searchers.base import Searcher, WrappedSearcher, turn_of
from search.core.searchers.feasible import Solver
from search.core.seeds import trial_seed
from search.core.space import Space
from search.core.state import Trial
from trainables import Params


def moved(space: Space, params: Params, given: Params, seed: int) -> Params:
    """The configuration if it satisfies the constraints, else the nearest one found that does.

    Args:
        given: the values that a person chose. They stay, unless the space was changed so that they cannot.
    """
    if not space.violated(params):
        return params
    rng = np.random.default_rng(seed)
    chosen = {name: params[name] for name in given if params.get(name) is not None}
    for kept in (space.fix(chosen), space):
        if (found := Solver(kept).nearest(params, rng)) is not None:
            return found
    raise AssertionError(f"{space.violated(params)}: was satisfiable when the search began")


class ConstrainedSearcher(WrappedSearcher):
    """Proposes what another searcher proposes; a proposal that violates a constraint is moved to the nearest that does
    not. The other searcher knows the moved configuration as if it had proposed it itself."""

    def __init__(self, config: SearchConfig, searcher: Searcher) -> None:
        super().__init__(searcher)
        self._config, self._given = config, config.first

    def ask(self, number: int) -> Params:
        params, config = super().ask(number), self._config
        space = config.space.fix(turn_of(config.turns, number))
        if not (broken := space.violated(params)):
            return params
        seed = trial_seed(config.search.seed, number)
        params = moved(space, params, self._given[number] if number < len(self._given) else {}, seed)
        self.withdraw(number)
        self.replay(Trial(number, params, seed))
        self.source += f"; moved to satisfy {' and '.join(relation.text for relation in broken)}"
        return params
