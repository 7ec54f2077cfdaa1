"""Seeds that are derived from the seed of a search."""

from __future__ import annotations

import numpy as np


def trial_seed(seed: int, number: int) -> int:
    """The seed of trial `number`; independent for each pair of search seed and number (NumPy's `SeedSequence`)."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
