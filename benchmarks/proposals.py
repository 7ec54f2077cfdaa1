"""Claim: with 600 trials the searcher `ranks` takes at most 3 x the time for a proposal that it takes with 200.

The model is fitted to at most 200 trials (`MODELLED` of search/core/searchers/rank_searcher.py). Proposes for the space
of rnn with results of random configurations. Prints the median processor time of 20 proposals for each number of
trials. Exits with 1 if the claim is missed.
"""

from __future__ import annotations

import sys
import time
from statistics import median

import numpy as np

from search.core.config import load_config
from search.core.searchers.encoding import Encoding
from search.core.searchers.rank_searcher import RankSearcher
from search.core.state import Trial
from trainables import Objective

COUNTS, PROPOSALS, TIMES = (50, 200, 600), 20, 3.0


def seconds(count: int) -> float:
    """The median seconds of processor time of a proposal after `count` results."""
    space, objective = load_config("rnn", profile="data").space, Objective("loss", "min")
    search, rng = RankSearcher(space, objective, seed=0, epochs=24, startup_trials=10), np.random.default_rng(0)
    rows, took = Encoding(space).draw(rng, count, {}), []
    for number in range(count + PROPOSALS):
        if number < count:
            params = Encoding(space).params(rows[number])
        else:
            began = time.process_time()
            params = search.ask(number)
            took.append(time.process_time() - began)
        trial = Trial(number, params, 0, outcome="paused")
        trial.take(1, {"val_loss": rng.random(), "epoch_seconds": 1.0}, objective)
        search.replay(trial)
        search.tell(trial)
    return median(took)


def main() -> int:
    took = {count: seconds(count) for count in COUNTS}
    for count, each in took.items():
        print(f"{count} trials: {each * 1000:.0f} ms a proposal")
    ratio = took[600] / took[200]
    print(f"a proposal with 600 trials takes {ratio:.2f} x the time of one with 200; claim: at most {TIMES:g} x")
    return int(ratio > TIMES)


if __name__ == "__main__":
    sys.exit(main())
