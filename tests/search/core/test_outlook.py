"""What one more hour is expected to bring, on trials whose values and seconds a test gives."""

import numpy as np
import pytest

from search.core.outlook import FEWEST, Outlook, in_words, outlook
from search.core.state import SearchState
from trainables import Objective

LOSS, ACCURACY = Objective("loss", "min"), Objective("accuracy", "max")


def state_of(values, objective=LOSS, seconds=60.0, workers=1, start=0.0) -> SearchState:
    """A search whose trials ran one after the other on each of `workers`, each for `seconds`."""
    state = SearchState(objective)
    state.apply({"event": "session", "time": int(1000 * start)})
    for number, value in enumerate(values):
        at = int(1000 * (start + seconds * (number // workers + 1)))
        state.apply({"event": "trial", "number": number, "params": {}, "seed": 0, "time": at})
        state.apply({
            "event": "result", "number": number, "epoch": 1, "diverged": None, "outcome": "completed", "device": "cpu",
            "metrics": {objective.key: float(value), "epoch_seconds": seconds}, "time": at,
        })  # fmt: skip
    return state


def normal(count, seed=0):
    return np.random.default_rng(seed).normal(size=count)


def test_nothing_is_said_before_enough_trials_have_finished():
    assert outlook(state_of(normal(FEWEST - 1)), 0) is None
    assert outlook(state_of(normal(FEWEST)), 0) is not None


def test_it_is_the_same_for_the_same_state_and_whatever_the_hour_of_the_day():
    one, other = outlook(state_of(normal(30)), 3), outlook(state_of(normal(30), start=86400.0), 3)
    assert one == other
    assert one != outlook(state_of(normal(30)), 4)


def test_gain_is_the_same_for_a_metric_that_is_maximized():
    values = normal(40)
    assert outlook(state_of(values), 0) == outlook(state_of(-values, ACCURACY), 0)


def test_more_time_and_more_workers_bring_more():
    values = normal(40)
    hour = outlook(state_of(values), 0)
    assert outlook(state_of(values), 0, 10 * 3600.0).gain > hour.gain
    assert outlook(state_of(values, workers=4), 0).gain > hour.gain
    assert outlook(state_of(values, seconds=600.0), 0).gain < hour.gain


def test_late_trials_count_and_early_ones_do_not():
    found, late = [*normal(30), *(normal(30) - 3.0)], [*(normal(30) - 3.0), *normal(30)]
    assert outlook(state_of(found), 0).gain > outlook(state_of(late), 0).gain


def smooth(count, seed):
    """Random configurations of a smooth function of four hyperparameters."""
    return np.square(np.random.default_rng(seed).uniform(-1, 1, (count, 4))).sum(1)


def test_interval_holds_most_gains_of_random_search():
    """Another hour of random search, again and again: the gain lies within about 95 of 100 intervals."""
    held = []
    for seed in range(200):
        values, more = smooth(60, seed), smooth(60, 1000 + seed)
        expected = outlook(state_of(values), seed)
        held.append(expected.low <= max(0.0, values.min() - more.min()) <= expected.high)
    assert np.mean(held) >= 0.9


def test_pause_is_no_time_of_the_search():
    state, paused = state_of(normal(30)), state_of(normal(30))
    day = 86400000 + (1000 * 60 * 30)
    for kind in ("pause", "continue"):
        paused.apply({"event": "request", "id": kind, "kind": kind, "content": {"trials": []}, "time": day})
    paused.apply({
        "event": "result", "number": 0, "epoch": 2, "diverged": None, "outcome": "completed", "device": "cpu",
        "metrics": {"val_loss": 9.0, "epoch_seconds": 1.0}, "time": day + 1000,
    })  # fmt: skip
    assert paused.seconds == pytest.approx(state.seconds + 1)


def test_trials_that_diverge_bring_nothing():
    state = state_of(normal(40))
    before = outlook(state, 0)
    for number in range(40, 80):
        state.apply({"event": "trial", "number": number, "params": {}, "seed": 0, "time": 10**7})
        state.apply({
            "event": "result", "number": number, "epoch": 1, "diverged": "loss is nan", "outcome": "diverged",
            "device": "cpu", "metrics": {"epoch_seconds": 60.0}, "time": 10**7,
        })  # fmt: skip
    after = outlook(state, 0)
    assert before.gain > 0 and after is None, "the last half has no value"


def test_search_whose_values_are_all_the_same_expects_nothing():
    assert outlook(state_of(np.ones(40)), 0) == Outlook(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("objective", "line"),
    [(ACCURACY, "one more hour: +0.0021, 95 %: 0 to 0.0063"), (LOSS, "one more hour: -0.0021, 95 %: -0.0063 to 0")],
)
def test_signs_follow_the_direction_of_the_objective(objective, line):
    assert in_words(Outlook(0.0021, 0.0, 0.00634), objective) == line
