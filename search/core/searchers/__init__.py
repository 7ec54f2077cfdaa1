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
    """The searcher that the configuration names, and the number of trials; infinity where a budget ends the search."""
    searcher: Searcher = SEARCHERS.get(config.search.searcher).from_config(config, config.objectives or (objective,))
    limits = [limit for limit in (config.search.trials, searcher.configurations) if limit is not None]
    return searcher, min(limits, default=math.inf)


def searcher_note(config: SearchConfig) -> str | None:
    """What the searcher will do with this configuration, in a sentence; None where there is nothing to say."""
    note: str | None = SEARCHERS.get(config.search.searcher).note(config)
    return note
