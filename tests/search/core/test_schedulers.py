import random

import pytest

from search.core.config import load_config
from search.core.schedulers.asha import Asha
from search.core.schedulers.registry import Hyperband, MedianStopping, Separate, make_scheduler
from search.core.schedulers.rungs import trusted_from


def tell(scheduler, number, epoch, loss):
    stop = scheduler.should_stop(number, epoch, loss)
    scheduler.record(number, epoch, loss)
    return stop


def test_asha_keeps_the_best_third_of_a_rung():
    asha = Asha(grace_period=2, reduction_factor=3, max_epochs=20)
    assert list(asha.rungs()) == [2, 6, 18]
    assert not tell(asha, 0, 2, 5.0)  # the first at a rung is the best there
    assert tell(asha, 1, 2, 6.0)
    assert not tell(asha, 2, 2, 4.0)
    assert not tell(asha, 3, 2, 4.5)  # second of four: a third, rounded up, are two
    assert tell(asha, 4, 2, 4.7)  # third of five
    assert not tell(asha, 5, 2, 1.0)


def test_asha_decides_at_rungs_only_and_not_at_the_last_epoch():
    asha = Asha(grace_period=1, reduction_factor=2, max_epochs=4)
    assert list(asha.rungs()) == [1, 2]
    tell(asha, 0, 1, 0.0)
    assert not tell(asha, 1, 3, 100.0)
    assert not tell(asha, 1, 4, 100.0)


@pytest.mark.parametrize("promotes", [False, True])
def test_a_first_rung_that_misleads_is_passed_until_its_ranks_hold(promotes):
    asha = Asha(grace_period=1, reduction_factor=4, max_epochs=24, promotes=promotes)
    assert list(asha.rungs()) == [1, 4, 16]

    def passes(loss):
        return not asha.should_stop(99, 1, loss) and not asha.pauses(99, 1)

    for number in range(5):
        asha.record(number, 1, float(number))
        asha.record(number, 2, -float(number))
    assert not passes(5.0), "five trials prove nothing"
    asha.record(5, 1, 5.0)
    asha.record(5, 2, -5.0)
    assert passes(6.0) and "trials pass it for now" in asha.standing(99, 1, 8.0)
    asha.record(6, 1, -1.0)
    assert asha.promoted({6: 1}, left=None) is None, "that it is the best there means nothing"
    for number in range(4):
        asha.record(number, 4, -float(number))
    assert asha.should_stop(99, 4, 0.0) or asha.pauses(99, 4), "the next rung decides"
    for number in range(10, 30):
        asha.record(number, 1, float(number))
        asha.record(number, 4, float(number))
    assert not passes(40.0)


def test_rungs_that_agree_with_each_other_mislead_where_a_later_epoch_contradicts_both():
    rungs, same = [1, 3, 9, 27], {n: n for n in range(9)}
    losses = {1: same, 2: same, 3: same, 4: {n: -n for n in range(5)}}
    assert trusted_from(rungs, losses) == 0
    losses[4][5] = -5
    assert trusted_from(rungs, losses) == 9
    assert trusted_from(rungs, losses, before=5) == 0, "only trials before the fifth are compared"
    losses[5] = {n: n for n in range(6)}
    assert trusted_from(rungs, losses) == 0, "the furthest epoch counts"
    assert trusted_from([], {}) == trusted_from([5], {5: {0: 1.0}}) == 0


def test_asking_changes_nothing():
    asha = Asha(1, 2, 4)
    asha.should_stop(0, 1, 1.0)
    assert asha.rungs() == {1: {}, 2: {}}


def test_diverged_trial_leaves_its_rungs():
    asha = Asha(1, 2, 4)
    tell(asha, 0, 1, 0.1)
    tell(asha, 0, 2, 0.1)
    asha.remove(0)
    assert asha.rungs() == {1: {}, 2: {}}
    assert not tell(asha, 1, 1, 9.0)


def test_hyperband_brackets_start_later_and_get_fewer_trials():
    hyperband = Hyperband(grace_period=1, reduction_factor=3, max_epochs=27, brackets=3)
    brackets = [hyperband.bracket(n) for n in range(13)]
    assert [brackets.count(s) for s in range(3)] == [9, 3, 1]
    late = brackets.index(2)
    for number in range(13):
        hyperband.record(number, 1, float(number))
    assert late not in hyperband.rungs()[1]
    # The same numbers give the same brackets, in whatever order they are asked for.
    other = Hyperband(1, 3, 27, 3)
    assert [other.bracket(n) for n in reversed(range(13))] == brackets[::-1]


def test_median_rule_by_hand():
    median = MedianStopping(grace_period=2)
    for number, losses in enumerate([(4.0, 2.0), (6.0, 4.0), (8.0, 6.0)]):  # running averages at 2: 3, 5, 7
        for epoch, loss in enumerate(losses, 1):
            assert not tell(median, number, epoch, loss)
    assert not tell(median, 3, 1, 9.0)  # before the grace period
    assert tell(median, 3, 2, 5.5)  # best so far 5.5 > median 5
    assert not tell(median, 4, 1, 4.9)
    assert not tell(median, 4, 2, 9.0)  # its best so far, 4.9, counts


def test_median_rule_needs_three_others():
    median = MedianStopping(grace_period=1)
    tell(median, 0, 1, 1.0)
    tell(median, 1, 1, 1.0)
    assert not tell(median, 2, 1, 99.0)


@pytest.mark.parametrize(
    "scheduler",
    [
        Asha(2, 3, 30), Asha(2, 3, 30, promotes=True), Hyperband(1, 3, 30, 3), MedianStopping(4),
        Separate([Asha(1, 2, 30), Asha(1, 2, 30)]),
    ],
)  # fmt: skip
def test_nobody_stops_or_waits_but_after_an_epoch_that_decides(scheduler):
    rng = random.Random(0)
    ended: dict[bool, set[bool]] = {True: set(), False: set()}
    for epoch in range(1, 30):
        for number in range(12):
            loss = rng.random()
            scheduler.record(number, epoch, loss)
            ends = scheduler.should_stop(number, epoch, loss) or scheduler.pauses(number, epoch)
            ended[scheduler.decides(number, epoch)].add(ends)
    assert ended[False] == {False}
    assert True in ended[True]


def test_first_trials_of_priors_are_never_stopped_or_paused():
    sets = ("search.epochs=8", "search.grace_period=1", "search.reduction_factor=2", "search.trials=9")
    for scheduler in ("asha", "asha-promote"):
        config = load_config("rnn", [*sets, f"search.scheduler={scheduler}"], profile="data")
        made = make_scheduler(config)
        for number in range(4):
            made.record(number, 1, float(4 - number))
        assert made.decides(0, 1) and not made.should_stop(0, 1, 4.0) and not made.pauses(0, 1)
        assert made.should_stop(1, 1, 3.0) or made.pauses(1, 1)
        assert len(made.rungs()[1]) == 4, "others are compared with it all the same"
        balanced = load_config(
            "rnn", [*sets, f"search.scheduler={scheduler}", "search.balance=variant"], profile="data"
        )
        assert [make_scheduler(balanced).pauses(n, 1) for n in range(4)] == [False] * 3 + [scheduler == "asha-promote"]
    demo = make_scheduler(load_config("rnn", ["search.balance=null"]))
    assert [demo.should_stop(n, 2, 1.0) for n in range(2)] == [False, False]
    demo.record(1, 2, 0.5)
    assert demo.should_stop(0, 2, 1.0), "a space without priors trusts nobody"
