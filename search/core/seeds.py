"""Seeds that follow from a search's."""

from __future__ import annotations

import numpy as np


def trial_seed(seed: int, number: int) -> int:
    """The seed of a trial; independent of those of other trials and of other search seeds."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
