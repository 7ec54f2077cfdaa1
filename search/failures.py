"""Why a trial ended with an error, as far as its traceback tells."""

from __future__ import annotations

import re
from typing import Literal

#: An exception, no memory, no room on the disk, a worker or its machine that was lost or hung, or a worker that the
#: trial before left unclean.
Failure = Literal["error", "memory", "disk", "lost", "unclean"]

#: In this order: what runs out of room or memory may break something else on its way.
_SIGNS: dict[Failure, str] = {
    "disk": r"No space left on device|Disk quota exceeded",
    "memory": r"OutOfMemoryError|\bMemoryError\b|can't allocate memory|CUDA out of memory|running low on memory",
    "unclean": r"\bUnclean\b",
    "error": r"Traceback|ray::",
}


def cause(traceback: str) -> Failure:
    """What a trial failed of; where nothing was raised, its worker was lost."""
    return next((failure for failure, sign in _SIGNS.items() if re.search(sign, traceback)), "lost")
