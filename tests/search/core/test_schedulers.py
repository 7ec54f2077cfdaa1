"""Each rule that stops, pauses or promotes trials, on losses that are given here."""

import random

import pytest

from search.core.config import load_config
from search.core.decision import CONTINUE, TrialResult
from search.core.schedulers.asha import Asha, PredictingAsha, PromotingAsha
from search.core.schedulers.base import Scheduler
from search.core.schedulers.hyperband import Hyperband
from search.core.schedulers.median import MedianStopping
from search.core.schedulers.rungs import first_reliable_rung
from search.core.study import Study
from tests.search.core.views import Losses
from trainables import Objective


@pytest.fixture
def trials() -> Losses:
    return Losses()


def kinds(trials: Losses, scheduler: Scheduler, epoch: int, losses: list[float]) -> list[str]:
    """The kind of decision on each trial, in the order in which they report."""
    return [trials.report(scheduler, number, epoch, loss).kind for number, loss in enumerate(losses)]


def test_asha_keeps_the_best_third_of_a_rung(trials):
    asha = Asha(grace_period=2, reduction_factor=3, max_epochs=20)
    assert asha.epochs == [2, 6, 18]
    decided = kinds(trials, asha, 2, [5.0, 6.0, 4.0, 4.5, 4.7, 1.0])
    # The first at a rung is the best there; a third of four trials, rounded up, is two.
    assert decided == ["continue", "stop", "continue", "continue", "stop", "continue"]


def test_asha_reason_has_rank_and_places(trials):
    kinds(trials, asha := Asha(1, 3, 9), 1, [1.0, 2.0, 3.0])
    assert trials.report(asha, 3, 1, 4.0).reason == "4th of 4 at epoch 1; the best 2 continue"


def test_asha_decides_at_rungs_and_not_at_the_last_epoch(trials):
    asha = Asha(grace_period=1, reduction_factor=2, max_epochs=4)
    trials.report(asha, 0, 1, 0.0)
    assert trials.report(asha, 1, 3, 100.0) == trials.report(asha, 1, 4, 100.0) == CONTINUE


def test_asha_compares_earlier_rounds_only(trials):
    trials.add(1, {0: 5.0, 1: 1.0, 2: 1.0}).compared_before = 1
    assert trials.report(Asha(1, 2, 4), 3, 1, 4.0).kind == "continue"


@pytest.mark.parametrize("asha", [Asha(1, 4, 24), PromotingAsha(1, 4, 24)], ids=["stops", "promotes"])
def test_unreliable_first_rung_is_passed_until_its_ranks_hold(trials, asha):
    def passes(loss):
        trials.losses.get(1, {}).pop(99, None)
        decision = trials.report(asha, 99, 1, loss)
        del trials.losses[1][99]
        return decision.kind == "continue"

    for number in range(5):
        trials.add(1, {number: float(number)}).add(2, {number: -float(number)})
    assert not passes(5.0), "five trials prove nothing"
    trials.add(1, {5: 5.0}).add(2, {5: -5.0})
    assert passes(6.0) and "trials pass without being compared" in trials.report(asha, 98, 1, 8.0).reason
    trials.add(1, {6: -1.0}).waiting = {6: 1}
    assert asha.next_promotion(trials) is None, "that it is the best there means nothing"
    trials.add(4, {number: -float(number) for number in range(4)})
    assert trials.report(asha, 97, 4, 0.0).kind in ("stop", "pause"), "the next rung decides"
    for number in range(10, 30):
        trials.add(1, {number: float(number)}).add(4, {number: float(number)})
    assert not passes(40.0)


def test_first_reliable_rung_is_compared_with_the_furthest_epoch():
    rungs, same = [1, 3, 9, 27], {n: n for n in range(9)}
    losses = {1: same, 2: same, 3: same, 4: {n: -n for n in range(5)}}
    assert first_reliable_rung(rungs, losses) == 0
    losses[4][5] = -5
    assert first_reliable_rung(rungs, losses) == 9
    assert first_reliable_rung(rungs, losses, before=5) == 0, "only trials before the fifth are compared"
    losses[5] = {n: n for n in range(6)}
    assert first_reliable_rung(rungs, losses) == 0, "the furthest epoch counts"
    assert first_reliable_rung([], {}) == first_reliable_rung([5], {5: {0: 1.0}}) == 0


def test_promotion_takes_the_best_third_and_the_highest_rung_first(trials):
    asha = PromotingAsha(grace_period=1, reduction_factor=3, max_epochs=9)
    assert kinds(trials, asha, 1, [5.0, 4.0, 6.0, 3.0, 7.0, 8.0]) == ["pause"] * 6
    trials.waiting = dict.fromkeys(range(6), 1)
    assert asha.next_promotion(trials) == 3, "the best of six, of which two places are there"
    trials.add(3, {3: 2.0}).waiting |= {3: 3}
    assert asha.next_promotion(trials) == 1, "one alone at its rung is not a third of it"
    for number in (1, 0):
        trials.add(3, {number: 2.5}).waiting |= {number: 3}
    assert asha.next_promotion(trials) == 3, "highest rung first"
    trials.waiting = {2: 1, 4: 1, 5: 1}
    assert asha.next_promotion(trials) is None, "the others are not among the best two"
    assert trials.report(asha, 3, 9, 1.0).kind == trials.report(asha, 3, 2, 1.0).kind == "continue"


def test_prediction_chooses_every_second_promotion_once_a_model_exists(trials):
    asha = PredictingAsha(grace_period=1, reduction_factor=3, max_epochs=9)
    trials.add(1, dict(enumerate([5.0, 4.0, 6.0, 3.0, 7.0, 8.0]))).waiting = dict.fromkeys(range(6), 1)
    asked = []
    trials.prefer = lambda waiting: asked.append(waiting) or 4
    assert asha.next_promotion(trials) == 3 and not asked, "the first of two places goes by rank"
    del trials.waiting[3]
    assert asha.next_promotion(trials) == 4 and asked == [[1, 0, 2, 4, 5]], "the best first"
    del trials.waiting[4]
    assert asha.next_promotion(trials) is None, "both places are taken, though the second best waits"
    trials.waiting |= {4: 1}
    trials.prefer = lambda waiting: None
    assert asha.next_promotion(trials) == 1


def test_best_trial_whose_place_was_taken_is_promoted_at_the_end(trials):
    asha = PredictingAsha(grace_period=1, reduction_factor=3, max_epochs=4)
    trials.add(1, dict(enumerate([0.82, 0.86, 0.96, 0.60])))
    trials.add(3, {0: 0.80}).waiting = {1: 1, 2: 1, 3: 1}  # 0 went on as the best of three, while 3 trained
    assert asha.next_promotion(trials) is None
    trials.is_last = True
    assert asha.next_promotion(trials) == 3
    trials.add(3, {3: 0.50}).waiting = {1: 1, 2: 1, 3: 3}
    assert asha.next_promotion(trials) == 3
    trials.waiting = {1: 1, 2: 1}
    assert asha.next_promotion(trials) is None


def test_hyperband_brackets_start_later_and_get_fewer_trials(trials):
    hyperband = Hyperband(grace_period=1, reduction_factor=3, max_epochs=27, brackets=3)
    brackets = [hyperband.bracket(n) for n in range(13)]
    assert [brackets.count(s) for s in range(3)] == [9, 3, 1]
    late = brackets.index(2)
    for number in range(13):
        trials.report(hyperband, number, 1, float(number))
    assert late not in hyperband.rungs(trials)[1]
    # The same numbers give the same brackets, in whatever order they are asked for.
    other = Hyperband(1, 3, 27, 3)
    assert [other.bracket(n) for n in reversed(range(13))] == brackets[::-1]


def test_hyperband_compares_trials_of_one_bracket(trials):
    hyperband = Hyperband(1, 2, 8, 2)
    first = next(n for n in range(9) if hyperband.bracket(n) == 1)
    for number in range(first):
        trials.report(hyperband, number, 2, 0.0)
    assert trials.report(hyperband, first, 2, 9.0)[:2] == (
        "continue",
        "1st of 1 at epoch 2; the best trial continues (bracket 1)",
    )


def test_median_rule_by_hand(trials):
    median = MedianStopping(grace_period=2)
    for number, losses in enumerate([(4.0, 2.0), (6.0, 4.0), (8.0, 6.0)]):  # running averages at 2: 3, 5, 7
        for epoch, loss in enumerate(losses, 1):
            assert trials.report(median, number, epoch, loss).kind == "continue"
    assert trials.report(median, 3, 1, 9.0).kind == "continue", "before the grace period"
    assert trials.report(median, 3, 2, 5.5)[:2] == (
        "stop",
        "its best is worse than the median of the 3 others' averages",
    )
    assert trials.report(median, 4, 1, 4.9).kind == "continue"
    assert trials.report(median, 4, 2, 9.0).kind == "continue", "its best so far, 4.9, counts"


def test_median_rule_needs_three_others(trials):
    median = MedianStopping(grace_period=1)
    trials.add(1, {0: 1.0, 1: 1.0})
    assert trials.report(median, 2, 1, 99.0)[:2] == (
        "continue",
        "2 others reached this epoch, and the rule needs 3",
    )


@pytest.mark.parametrize(
    "scheduler", [Asha(2, 3, 30), PromotingAsha(2, 3, 30), Hyperband(1, 3, 30, 3), MedianStopping(4)]
)
def test_trials_end_only_where_the_scheduler_decides(scheduler, trials):
    rng = random.Random(0)
    ended: dict[bool, set[bool]] = {True: set(), False: set()}
    for epoch in range(1, 30):
        for number in range(12):
            decision = trials.report(scheduler, number, epoch, rng.random())
            ended[scheduler.decides(number, epoch)].add(decision.kind != "continue")
    assert ended[False] == {False}
    assert True in ended[True]


SETS = ("search.epochs=8", "search.grace_period=1", "search.reduction_factor=2", "search.trials=9")


def study_of(*sets: str, profile: str = "data", trials: int = 4) -> Study:
    study = Study(load_config("rnn", [*SETS, *sets], profile=profile), Objective("mse", "min"))
    for _ in range(trials):
        study.apply(study.propose())
    return study


def report(study: Study, number: int, loss: float):
    events, decisions = study.report([TrialResult(number, 1, {"val_mse": loss, "epoch_seconds": 1.0})])
    for event in events:
        study.apply(event)
    return decisions[number]


@pytest.mark.parametrize("scheduler", ["asha", "asha-promote"])
def test_first_trial_of_priors_is_never_stopped_or_paused(scheduler):
    study = study_of(f"search.scheduler={scheduler}", "search.balance=null")
    decisions = [report(study, number, loss) for number, loss in ((1, 3.0), (2, 2.0), (3, 1.0), (0, 4.0))]
    assert decisions[-1].kind == "continue" and decisions[-1].reason.endswith("so it always continues")
    assert scheduler == "asha" or [decision.kind for decision in decisions[:3]] == ["pause"] * 3
    assert len(study.rungs()[1]) == 4, "others are compared with it all the same"


def test_first_trial_of_each_balanced_value_is_never_paused():
    study = study_of("search.scheduler=asha-promote", "search.balance=variant")
    assert [report(study, number, 1.0).kind for number in range(4)] == ["continue"] * 3 + ["pause"]


def test_space_without_priors_lets_no_trial_pass():
    study = study_of("search.scheduler=asha", "search.balance=null", profile="demo", trials=2)
    assert report(study, 1, 0.5).kind == "continue" and report(study, 0, 1.0).kind == "stop"


def test_balanced_values_have_rungs_of_their_own_and_equal_shares():
    study = study_of("search.scheduler=asha-promote", "search.balance=variant", "search.reduction_factor=4", trials=9)
    assert study.promote() is None
    for number in range(3, 9):  # trials 0 to 2 have the priors' configuration
        report(study, number, float(number))
    assert study.state.paused() == dict.fromkeys(range(3, 9), 1)
    assert study.promote() is None, "trials 0 to 2 still train"
    report(study, 0, 99.0)
    study.apply({"event": "timed_out", "number": 0})
    assert study.promote() == 3, "of the value of 0, 3 and 6 no trial trains any more"


def test_diverged_trial_leaves_its_rungs():
    study = study_of("search.scheduler=asha", "search.balance=null", profile="demo", trials=2)
    report(study, 0, 0.1)
    for event in study.report([TrialResult(0, 2, {}, "loss is nan")])[0]:
        study.apply(event)
    assert study.rungs()[1] == {}
    assert report(study, 1, 9.0).kind == "continue"
