"""How a time budget is split, in scenarios with figures. None of them is computed by the code's own constants."""

import doctest
import math
from dataclasses import dataclass, replace

import pytest

from search.core import time_plan
from search.core.config import load_config
from search.core.state import SearchState, Trial
from search.core.time_plan import FinalPlan, Shares, TimePlan, TrialsSoFar, with_epochs
from trainables import get_task

#: 15 minutes on two workers, epochs of 30 s: the example of the docstring, but with 24 s around the final training.
PLAN = TimePlan(
    budget_seconds=900, full_trial_epochs=9, most_final_epochs=40, train_samples=1600, validation_samples=400,
    workers=2, alone_ratio=0.6, worker_start_seconds=6, shares=Shares(least_around_seconds=20),
)  # fmt: skip
#: The best trial had nine epochs and was best after seven.
DONE = TrialsSoFar(epoch_seconds=30, trained_epochs=9, best_epochs=7)
GROWING = TrialsSoFar(epoch_seconds=30, trained_epochs=9, best_epochs=9, improving=True)


def test_example_of_the_docstring_is_right():
    result = doctest.testmod(time_plan)
    assert result.failed == 0 and result.attempted >= 10


# Before the trials


@pytest.mark.parametrize(
    ("minutes", "epoch_seconds", "epochs", "first_rung", "max_epoch_seconds"),
    [
        (15, 30, 9, 1, 45),
        (15, 3, 80, 5, 5.06),  # 90 would fit, the configuration has 80
        (10, 3, 60, 4, 4.5),
        (60, 3, 80, 5, 20.25),
        (10, 100, 4, 1, 67.5),  # one epoch would fit; four are the fewest
    ],
)
def test_full_trial_takes_three_tenths_of_the_budget(minutes, epoch_seconds, epochs, first_rung, max_epoch_seconds):
    fit = TimePlan(60 * minutes).trial_epochs(epoch_seconds, most_epochs=80, first_rung=5)
    assert (fit.epochs, fit.first_rung) == (epochs, first_rung)
    assert fit.max_epoch_seconds == pytest.approx(max_epoch_seconds, abs=0.01)


@pytest.mark.parametrize(("most_epochs", "epochs"), [(4, 1), (13, 4), (40, 4)])
def test_trial_on_a_slow_machine_has_a_quarter_of_few_configured_epochs(most_epochs, epochs):
    """A tenth of an epoch fits the share of a full trial."""
    assert TimePlan(600).trial_epochs(1800, most_epochs, first_rung=1).epochs == epochs


@pytest.mark.parametrize(("left_seconds", "too_slow"), [(300, True), (340, False)])
def test_fine_tuning_needs_time_for_two_final_epochs_after_one_epoch_of_the_trials(left_seconds, too_slow):
    """An epoch of the trials takes 100 s, the work around the final training 35 s. A final epoch takes 100 s x 1.25 /
    (1 + 0.25 / 3) x 0.8 x 1.1 = 101.5 s. Together: 100 s + 35 s + 2 x 101.5 s = 338 s."""
    plan = TimePlan(600, train_samples=800, validation_samples=200, alone_ratio=0.8)
    assert plan.is_too_slow(100, left_seconds) == too_slow


@pytest.mark.parametrize(("epochs", "reserved"), [(1, 35 + 8.8), (2, 35 + 180)])
def test_first_epoch_of_a_function_counts_as_the_measured_epoch(epochs, reserved):
    """A first epoch of 12 s, with the imports, and a measured epoch of 0.1 s; 0.6 of 300 s for 80 epochs of 12 s."""
    plan = TimePlan(300, 80, 80, own_epoch_seconds=0.1)
    trials = TrialsSoFar(epoch_seconds=12, trained_epochs=epochs, best_epochs=epochs, improving=True)
    assert plan.after_trials(trials, left_seconds=290).seconds == pytest.approx(reserved)


def test_configuration_gets_the_epochs_and_keeps_a_limit_that_the_user_gave():
    fit = TimePlan(900).trial_epochs(30, most_epochs=40, first_rung=5)
    fitted = with_epochs(load_config("rnn", profile="data"), fit).search
    assert (fitted.epochs, fitted.grace_period, fitted.fit_epochs) == (9, 1, False)
    assert fitted.max_epoch_seconds == pytest.approx(45)
    own = load_config("rnn", ["search.max_epoch_seconds=7"], profile="data")
    assert with_epochs(own, fit).search.max_epoch_seconds == 7


@pytest.mark.parametrize(("samples", "epochs"), [(172, 320), (532, 301), (1000, 160), (2000, 80), (300_000, 80)])
def test_final_training_may_have_more_epochs_if_samples_are_few(samples, epochs):
    assert TimePlan(train_samples=samples).longest_final_training(80) == epochs


def test_plan_reads_seeds_and_sizes_of_a_search():
    config = load_config("rnn", ["search.epochs=9", "search.retrain_seeds=2"])
    plan = TimePlan.from_config(config, {"train": 80, "val": 20, "test": 10}, workers=4, budget_seconds=900)
    assert (plan.train_samples, plan.validation_samples, plan.workers) == (80, 20, 4)
    assert (plan.full_trial_epochs, plan.most_final_epochs) == (9, 9)
    assert (plan.final_seeds, plan.comparison_seeds) == (2, 5), "the demo compares three variants with five seeds"
    one = load_config("rnn", ["search.balance=null"])
    assert TimePlan.from_config(one, {}, workers=1).comparison_seeds == 0, "nothing is balanced, nothing is compared"


# During the trials


@dataclass
class Clock:
    """A search of two workers whose trials all take `epoch_seconds` an epoch. Time is a number, so it ends at once."""

    plan: TimePlan
    epoch_seconds: float
    improving: bool
    #: When the first trials start: imports and the measurement of the pace took this long.
    now: float = 30.0

    def run(self) -> tuple[int, FinalPlan]:
        """The number of trials, and what follows them; `now` is then the end of the command."""
        workers, trials, stopped, best = [0, 0], 2, False, 0
        begun = [self.now, self.now]
        while not (stopped and all(begin is None for begin in begun)):
            self.now += 1
            left = self.plan.budget_seconds - self.now
            seen = TrialsSoFar(self.epoch_seconds, best, best, self.improving) if best else None
            reserved = self.plan.after_trials(seen, left).seconds
            running = [self.epoch_seconds - (self.now - begin) for begin in begun if begin is not None]
            stopped = stopped or self.plan.must_stop_trials(left, reserved, running)
            for worker, begin in enumerate(begun):
                if begin is None or self.now - begin < self.epoch_seconds:
                    continue
                workers[worker] += 1
                best, begun[worker] = max(best, workers[worker]), self.now
                if workers[worker] == self.plan.full_trial_epochs:
                    workers[worker], more = 0, self.plan.may_start_trial(left, reserved, self.epoch_seconds)
                    trials, begun[worker] = trials + more, self.now if more else None
                if stopped:
                    begun[worker] = None
            stopped = stopped or all(begin is None for begin in begun)
        final = self.plan.after_trials(TrialsSoFar(self.epoch_seconds, best, best, self.improving), 900 - self.now)
        # An epoch of the final training really takes what the docstring says, without the margin.
        self.now += 20.8 / 30 * self.epoch_seconds * (final.epochs or best) + self.plan.around_seconds
        return trials, final


@pytest.mark.parametrize(
    ("improving", "trials", "epochs", "ends"),
    [(False, 4, None, (12 * 60, 15 * 60)), (True, 2, 25, (14 * 60, 15 * 60))],
)
def test_search_of_fifteen_minutes_with_epochs_of_half_a_minute_ends_within_them(improving, trials, epochs, ends):
    clock = Clock(PLAN, 30.0, improving)
    tried, final = clock.run()
    assert final.retrain and final.epochs == epochs and tried == trials
    assert ends[0] <= clock.now <= ends[1]


def test_new_trial_starts_only_if_all_its_epochs_fit():
    assert PLAN.may_start_trial(left_seconds=454, reserved_seconds=184, epoch_seconds=30)
    assert not PLAN.may_start_trial(left_seconds=453, reserved_seconds=184, epoch_seconds=30)


def test_trials_stop_when_their_epochs_end_in_the_reserved_time():
    assert not PLAN.must_stop_trials(left_seconds=210, reserved_seconds=184, running_seconds=[5, 20])
    assert PLAN.must_stop_trials(left_seconds=204, reserved_seconds=184, running_seconds=[5, 20])
    assert PLAN.must_stop_trials(left_seconds=184, reserved_seconds=184, running_seconds=[])


# After the trials


def test_without_a_budget_everything_is_done():
    plan = TimePlan(full_trial_epochs=10, comparison_seeds=5)
    assert plan.after_trials(DONE, left_seconds=float("inf")) == FinalPlan(5, True, None, 0.0)


def test_before_the_first_result_only_the_work_around_the_final_training_is_reserved():
    assert PLAN.after_trials(None, left_seconds=800) == FinalPlan(0, True, None, 24.0)


def test_without_a_final_training_twenty_seconds_are_reserved_for_the_end():
    assert replace(PLAN, retrain=False).after_trials(DONE, 600) == FinalPlan(0, False, None, 20.0)


def test_final_training_is_forecast_from_the_best_trials_epochs():
    final = PLAN.after_trials(DONE, left_seconds=600)
    assert (final.retrain, final.epochs, round(final.seconds)) == (True, None, 184)
    halved = replace(PLAN, alone_ratio=0.3).after_trials(DONE, left_seconds=600)
    assert round(halved.seconds) == 104, "24 s, and seven epochs in half the time"
    seeds = replace(PLAN, alone_ratio=0.3, final_seeds=3).after_trials(TrialsSoFar(3, 9, 7), left_seconds=600)
    assert round(seeds.seconds) == 77, "24 s, and two rounds of seven epochs of 3.8 s beside each other"


@pytest.mark.parametrize(
    ("budget", "left", "retrain", "epochs", "seconds"),
    [
        (600, 600, True, None, 184),
        (400, 150, True, None, 184),  # 160 s of 400 s hold seven epochs of 22.8 s just so
        (390, 150, True, 6, 180),  # six epochs of 2,000 samples are as many steps as seven of 1,600
        (340, 150, False, None, 24),  # 136 s hold five epochs, which are fewer steps
    ],
)
def test_final_training_that_does_not_fit_has_as_many_steps_in_fewer_epochs_or_gives_way(
    budget, left, retrain, epochs, seconds
):
    final = replace(PLAN, budget_seconds=budget).after_trials(DONE, left)
    assert (final.retrain, final.epochs, round(final.seconds)) == (retrain, epochs, seconds)


def test_final_training_of_a_winner_that_still_improved_takes_up_to_six_tenths_of_the_budget():
    assert PLAN.after_trials(GROWING, left_seconds=564) == FinalPlan(0, True, 23, 564.0)
    assert PLAN.after_trials(GROWING, left_seconds=300).epochs == 12, "no more than the time that is left"
    assert PLAN.after_trials(GROWING, left_seconds=100).epochs == 9, "no fewer than its trial had"
    few = replace(PLAN, most_final_epochs=12).after_trials(GROWING, left_seconds=564)
    assert (few.epochs, round(few.seconds)) == (12, 298), "12 epochs of 22.8 s, and 24 s"
    same = replace(PLAN, most_final_epochs=9).after_trials(GROWING, left_seconds=564)
    assert same.epochs is None, "its trial had all epochs that are allowed"


def test_time_is_reserved_for_a_running_trial_that_improves_and_may_become_the_best():
    final = PLAN.after_trials(replace(DONE, longest_improving=8), left_seconds=600)
    assert (final.epochs, round(final.seconds)) == (None, 230), "nine epochs of 22.8 s, and 24 s"


@pytest.mark.parametrize(("start", "around"), [(1, 20), (5, 20), (8, 32), (11, 44), (60, 45)])
def test_machine_that_starts_workers_slowly_gets_more_time_for_the_end(start, around):
    assert replace(PLAN, worker_start_seconds=start).around_seconds == around


@pytest.mark.parametrize(("budget", "around"), [(30, 20), (100, 20), (150, 30), (180, 35), (math.inf, 35)])
def test_short_budget_keeps_less_time_for_the_end(budget, around):
    assert TimePlan(budget_seconds=budget, worker_start_seconds=1).around_seconds == around


def compared(epoch_seconds: float, **changes) -> FinalPlan:
    """The plan for three balanced values with five seeds each."""
    plan = replace(PLAN, comparison_seeds=5, **changes)
    return plan.after_trials(TrialsSoFar(epoch_seconds, 9, 7, False, 0, (epoch_seconds,) * 3), left_seconds=600)


@pytest.mark.parametrize(
    ("epoch_seconds", "seeds", "seconds"),
    [
        (2, 5, 193),  # 3 values x 5 seeds x 9 epochs x 2 s x 1.1 on two workers: 148 s, and 34 s around, and 11 s
        (5, 5, 432),
        (6, 4, 422),  # five seeds would take 511 s, more than half of 900 s
        (9, 2, 349),
        (15, 0, 104),  # two seeds would not fit, and one seed shows no spread
    ],
)
def test_comparison_has_the_seeds_that_fit_half_of_the_budget_and_never_a_single_one(epoch_seconds, seeds, seconds):
    final = compared(epoch_seconds)
    assert final.retrain and final.comparison_seeds == seeds
    assert round(final.seconds) == seconds <= 450


def test_seeds_that_train_as_one_model_take_six_tenths():
    assert round(compared(2).seconds - compared(2, fused=True).seconds) == 59, "four tenths of 148 s"


def test_winner_that_still_improved_leaves_room_for_a_comparison():
    long = replace(PLAN, comparison_seeds=5, most_final_epochs=1000)
    final = long.after_trials(replace(GROWING, compared_epoch_seconds=(30, 30, 30)), left_seconds=600)
    assert final.seconds == 384, "24 s, and four tenths of 900 s instead of six"


def test_measured_epoch_replaces_the_forecast():
    assert PLAN.after_trials(GROWING, 564, final_epoch_seconds=16).epochs == 30
    assert PLAN.after_trials(GROWING, 564, final_epoch_seconds=40).epochs == 12
    late = replace(PLAN, budget_seconds=340)
    assert not late.after_trials(DONE, left_seconds=200).retrain
    assert late.after_trials(DONE, left_seconds=200, final_epoch_seconds=16).retrain, "it is faster than forecast"


def test_measurement_is_worth_its_time_only_if_the_plan_depends_on_it():
    growing = PLAN.after_trials(GROWING, left_seconds=564)
    assert PLAN.worth_measuring(growing, GROWING, left_seconds=564)
    assert not PLAN.worth_measuring(growing, GROWING, left_seconds=59), "ten seconds are too many"
    assert not PLAN.worth_measuring(PLAN.after_trials(DONE, 600), DONE, 600), "seven epochs, however long they take"
    assert not replace(PLAN, final_seeds=3).worth_measuring(growing, GROWING, 564), "they train side by side"
    assert not PLAN.worth_measuring(PLAN.after_trials(None, 600), None, 600)


def test_shares_are_arguments():
    plan = replace(PLAN, shares=replace(PLAN.shares, full_trial=0.5, growing_final_training=0.5))
    assert plan.trial_epochs(30, most_epochs=40, first_rung=5).epochs == 15
    assert plan.after_trials(GROWING, left_seconds=600).seconds == 24 + 450


# What the plan reads of the trials


def state_of(*trials: tuple[list[float], str | None]) -> SearchState:
    """A search whose trials had these losses, with epochs of 2 s, and ended so; None: still training."""
    objective = get_task("rnn").objective
    state = SearchState(objective)
    for number, (losses, outcome) in enumerate(trials):
        trial = state.trials[number] = Trial(number, {"variant": "vanilla"}, seed=number)
        for epoch, loss in enumerate(losses, start=1):
            trial.take(epoch, {"val_mse": loss, "epoch_seconds": 2.0}, objective)
        trial.outcome = outcome
    return state


FALLING = [10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
TURNING = [5.0, 4.0, 3.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
CONFIG = load_config("rnn", ["search.epochs=10", "search.balance=null"])


def test_no_trial_can_win_before_the_first_result():
    assert TrialsSoFar.from_state(CONFIG, state_of(([], None))) is None
    assert TrialsSoFar.from_state(CONFIG, state_of(([1.0], "diverged"))) is None


def test_best_trial_gives_pace_and_epochs():
    trials = TrialsSoFar.from_state(CONFIG, state_of((FALLING, "completed"), ([0.5, 0.4, 0.6], "stopped_early")))
    assert (trials.epoch_seconds, trials.trained_epochs, trials.best_epochs) == (2.0, 3, 2)
    assert not trials.improving and trials.compared_epoch_seconds == (2.0,)


def test_cheap_first_epoch_is_not_the_pace():
    """The first epoch of a pretrained network trains its head alone."""
    state = state_of(([1.0, 0.5, 0.4], "stopped_early"), ([2.0], "paused"))
    for trial in state.trials.values():
        trial.curve[1]["epoch_seconds"] = 0.5
    assert [trial.epoch_seconds for trial in state.trials.values()] == [2.0, 0.5]
    assert TrialsSoFar.from_state(CONFIG, state).epoch_seconds == 2.0


@pytest.mark.parametrize(
    ("complete", "improving"),
    [
        ([FALLING], True),
        ([TURNING], False),
        ([FALLING, TURNING], True),
        ([FALLING, TURNING, TURNING], False),
        ([], False),
    ],
)
def test_winner_that_was_stopped_improves_further_if_half_of_the_complete_trials_did(complete, improving):
    stopped = [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    state = state_of((stopped, "stopped_early"), *((losses, "completed") for losses in complete))
    assert TrialsSoFar.from_state(CONFIG, state).improving == improving


@pytest.mark.parametrize(("losses", "epochs"), [(FALLING[:6], 6), (TURNING[:6], 0)])
def test_running_trial_counts_only_while_it_improves(losses, epochs):
    state = state_of(([0.1], "stopped_early"), (losses, None))
    assert TrialsSoFar.from_state(CONFIG, state).longest_improving == epochs
