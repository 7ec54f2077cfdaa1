"""The epochs after which trials are compared, and whether what shows there holds later."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np

#: Epoch -> trial number -> loss.
Rungs = dict[int, dict[int, float]]
#: So many trials have come to a later rung before a rung may be held to mislead; the newest of them that are compared,
#: and their rank correlation then.
COMPARED, NEWEST, CONTRADICTS = 8, 100, -0.25


def rung_epochs(grace_period: int, reduction_factor: float, max_epochs: int) -> list[int]:
    """The epochs `grace_period * reduction_factor^k` below `max_epochs`."""
    epochs, level = [], float(grace_period)
    while level < max_epochs:
        epochs.append(round(level))
        level *= reduction_factor
    return epochs


def trusted_from(rungs: Rungs, before: float = math.inf) -> int:
    """The epoch of the first rung that does not mislead; 0 where it is the first of all.

    A rung misleads if its ranks contradict those at a later one: a rank correlation (Spearman) below `CONTRADICTS` of
    at least `COMPARED` trials, the `NEWEST` that were at both. Most of them came there because they were good at the
    first, which makes the correlation small also where ranks hold; but then it is seldom that far below 0.

    Args:
        before: only trials with smaller numbers are compared.
    """
    epochs = list(rungs)
    for place, epoch in enumerate(epochs):
        if not any(_contradict(rungs[epoch], rungs[later], before) for later in epochs[place + 1 :]):
            return epoch if place else 0
    return 0


def _contradict(first: dict[int, float], later: dict[int, float], before: float) -> bool:
    both = list(islice((n for n in reversed(later) if n in first and n < before), NEWEST))
    if len(both) < COMPARED:
        return False
    ranks = [np.argsort(np.argsort([rung[n] for n in both], kind="stable")) for rung in (first, later)]
    apart = int(((ranks[0] - ranks[1]) ** 2).sum())
    return 1 - 6 * apart / (len(both) * (len(both) ** 2 - 1)) < CONTRADICTS
