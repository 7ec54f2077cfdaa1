"""Searchers propose configurations. `search.core.registry.SEARCHERS` names them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from search.core.registry import SEARCHERS

if TYPE_CHECKING:
    from search.core.config import SearchConfig
    from search.core.searchers.base import Searcher
    from trainables import Objective


def make_searcher(config: SearchConfig, objective: Objective) -> tuple[Searcher, float]:
    """The searcher of the configuration, and the number of trials: infinity if only a budget ends the search."""
    searcher: Searcher = SEARCHERS.get(config.search.searcher).from_config(config, config.objectives or (objective,))
    if config.search.first:
        from search.core.searchers.starting import StartingSearcher

        searcher = StartingSearcher(config, searcher)
    if config.space.constraints:
        from search.core.searchers.constrained import ConstrainedSearcher

        searcher = ConstrainedSearcher(config, searcher)
    limits = [limit for limit in (config.search.trials, searcher.configurations) if limit is not None]
    return searcher, min(limits, default=math.inf)


def searcher_note(config: SearchConfig) -> str | None:
    """The searcher's note for the user about this configuration; see `Searcher.note`."""
    note: str | None = SEARCHERS.get(config.search.searcher).note(config)
    return note
