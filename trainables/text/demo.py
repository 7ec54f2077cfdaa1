"""Code that the demos of the text tasks share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: The share of each split in the texts, and in the words and phrases that no other split has.
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def shared_out(items: Sequence[str] | np.ndarray) -> dict[str, np.ndarray]:
    """Divides items between the splits, in their order."""
    ends = np.round(np.cumsum(list(SHARES.values())) * len(items)).astype(int)
    return dict(zip(SHARES, np.split(np.asarray(items), ends[:-1]), strict=True))
