"""The race at the end of a time budget: the best configurations train again with other seeds.

A trial has one seed, and the best of many trials is partly the luckiest: its value is too good. The race trains the
best configurations again, and that of the priors. The one with the best mean over its seeds wins.
`TimePlan.race_seconds` keeps time for it. A rerun is a trial of its own: early stopping does not compare it, and the
searcher does not see it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from statistics import mean, stdev

from search.core.state import SearchState

#: The number of configurations that race, without that of the priors.
RACERS = 3
#: A configuration leaves the race when its mean is worse than the best by this many standard errors of a difference.
BEHIND = 2.0


def next_rerun(state: SearchState, experts: Collection[int]) -> int | None:
    """The trial whose configuration trains again next; None if no two configurations are left to compare.

    The one with the fewest seeds comes first, of equal ones the best.

    Args:
        experts: the trials with the configurations of the priors.
    """
    begun = Counter(state.trials[number].rerun_of for number in state.reruns)
    able = sorted((t for t in state.trials.values() if t.can_win), key=lambda t: state.objective.loss(t.best_value))
    racing = [trial.number for trial in able if trial.number in begun]
    racing += [trial.number for trial in able if trial.number not in begun][: max(0, RACERS - len(racing))]
    racing += [trial.number for trial in able if trial.number in experts and trial.number not in racing][:1]
    if len(racing) < 2:
        return None
    beaten = _beaten(state.losses_over_seeds())
    left = [number for number in racing if number not in beaten]
    return min(left, key=lambda number: (begun[number], racing.index(number))) if len(left) > 1 else None


def _beaten(known: Mapping[int, list[float]]) -> set[int]:
    """The configurations whose mean is clearly worse than the best. The seeds of all have one standard deviation."""
    several = {number: values for number, values in known.items() if all(map(math.isfinite, values))}
    beaten = {*known} - {*several}
    if len(several) < 2:
        return beaten
    freedom = sum(len(values) - 1 for values in several.values())
    spread = math.sqrt(sum(stdev(values) ** 2 * (len(values) - 1) for values in several.values()) / freedom)
    best = min(several, key=lambda number: mean(several[number]))
    for number, values in several.items():
        error = spread * math.sqrt(1 / len(values) + 1 / len(several[best]))
        if mean(values) - mean(several[best]) > BEHIND * error:
            beaten.add(number)
    return beaten
