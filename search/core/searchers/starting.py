"""Proposes the starting configurations of the user (`search.first`) before those of another searcher."""

from __future__ import annotations

import numpy as np

from search.core.config import SearchConfig
from search.core.searchers import priors
from search.core.searchers.base import Searcher, WrappedSearcher, turn_of
from search.core.seeds import trial_seed
from search.core.state import Trial
from trainables import Params


class StartingSearcher(WrappedSearcher):
    """Proposes each starting configuration once, in their order, then what another searcher proposes.

    The other searcher knows these trials as if it had proposed them itself.
    """

    def __init__(self, config: SearchConfig, searcher: Searcher) -> None:
        super().__init__(searcher)
        self._config, self._given = config, config.first
        searcher.begins_at = len(self._given)

    def ask(self, number: int) -> Params:
        if number >= len(self._given):
            return super().ask(number)
        config, given = self._config, self._given[number]
        rng = np.random.default_rng(np.random.SeedSequence([config.search.seed, number]))
        params = priors.complete(config.space.fix(turn_of(config.turns, number)), given, rng)
        lacking = [p for p in config.space.parameters if p.searched and p.name not in given and p.exists(params)]
        more = f"; priors or chance set {len(lacking)} hyperparameters that it lacks" if lacking else ""
        self.source = f"starting configuration {number}{more}"
        self._searcher.replay(Trial(number, params, trial_seed(config.search.seed, number)))
        return params
