"""The epochs after which trials are compared, and whether what shows there holds later."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import numpy as np

#: Epoch -> trial number -> loss.
Losses = dict[int, dict[int, float]]
#: So many trials have gone on from a rung before it may be held to mislead; the newest of them that are compared, and
#: their rank correlation then.
COMPARED, NEWEST, CONTRADICTS = 6, 100, -0.25


def rung_epochs(grace_period: int, reduction_factor: float, max_epochs: int) -> list[int]:
    """The epochs `grace_period * reduction_factor^k` below `max_epochs`."""
    epochs, level = [], float(grace_period)
    while level < max_epochs:
        epochs.append(round(level))
        level *= reduction_factor
    return epochs


def trusted_from(rungs: Sequence[int], losses: Losses, before: float = math.inf) -> int:
    """The epoch of the first rung that does not mislead; 0 where it is the first of all.

    A rung misleads if its ranks contradict those at the furthest epoch to which `COMPARED` of its trials have come: a
    rank correlation (Spearman) below `CONTRADICTS` of the `NEWEST` of them. Most came there because they were good at
    the rung, which makes the correlation small also where ranks hold; but then it is seldom that far below 0.

    Args:
        rungs: their epochs, ascending.
        losses: at any epochs.
        before: only trials with smaller numbers are compared.
    """
    for place, rung in enumerate(rungs):
        if not _misleads(rung, losses, before):
            return rung if place else 0
    return 0


def _misleads(rung: int, losses: Losses, before: float) -> bool:
    here = losses.get(rung, {})
    for later in sorted((epoch for epoch in losses if epoch > rung), reverse=True):
        there = losses[later]
        both = list(islice((n for n in reversed(there) if n in here and n < before), NEWEST))
        if len(both) >= COMPARED:
            ranks = [np.argsort(np.argsort([at[n] for n in both], kind="stable")) for at in (here, there)]
            apart = int(((ranks[0] - ranks[1]) ** 2).sum())
            return 1 - 6 * apart / (len(both) * (len(both) ** 2 - 1)) < CONTRADICTS
    return False
