"""Splits a time budget between trials, the comparison of balanced values and the final training.

`TimePlan` only calculates. `search/runtime/pace.py` measures; `search/runtime/tune_runner.py` stops the trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil, inf, isinf
from typing import Any, Literal

from search.core.config import SearchConfig, check_config
from search.core.overrides import lay_over
from search.core.state import SearchState


@dataclass(frozen=True)
class Shares:
    """The constants of `TimePlan`. A share is a fraction of the budget of the whole command.

    All of them together were measured by nine searches of ten minutes (`benchmarks/hour.jsonl`). Eight ended after 8:43
    to 10:01. The ninth ended after 10:45; it is older than `growing_final_training` and than the measurement of a final
    epoch. Where no measurement is named below, other values were not tried.

    Attributes:
        full_trial: Share for one trial with all its epochs. Fifteen minutes of TrashNet on two cores held ten to twelve
            trials, two of them complete.
        slowest_trial: A configuration is not tried if its full trial is predicted to take more than this many times
            `full_trial`: at 1.5, 0.45 of the budget. The final training of such a winner hardly fits. A search of
            TrashNet whose winner was too slow tested the trial's own model: accuracy 0.77, others 0.84 to 0.89.
        fewest_epochs: Epochs of a full trial on a machine that is too slow for the budget. Four epochs leave rungs
            after the first and the third epoch, where weak trials stop.
        fewest_epochs_share: Most epochs of such a trial, divided by those of the configuration. A configuration of four
            epochs starts from a pretrained network: one epoch shows which trial is better.
        fewest_final_epochs: If fewer epochs than this are left for the final training after one epoch of the trials,
            the setting `slow` of the task's file applies. A MiniLM that was fine-tuned on verse has a balanced accuracy
            of 0.847, 0.860 and 0.865 after one, two and three epochs. The best head on the frozen encoder has 0.842.
        own_epochs: Most epochs of a trial of a function or a command, whose configuration gives no number. The number
            is as in configs/defaults.yaml.
        measuring: Share in which a function or a command has to report its first epoch, or its progress.
        least_measuring_seconds: The same in seconds, if it is more: imports and reading data come first.
        enough_samples: With fewer samples to train on, the final training may have more epochs than the configuration
            says, in inverse proportion. 532 pictures: test accuracy 0.66 after 70 epochs, 0.72 after 200.
        most_epochs_factor: Upper limit of that proportion. The largest that was measured is 3.2: 227 epochs instead of
            70 had an accuracy of 0.72.
        final_training: Share for the final training.
        growing_final_training: The same if the winner still improved at its last epoch and nothing is compared.
            Accuracy after ten minutes of TrashNet: 0.843 with a share of 0.4, 0.876 with 0.6. Perplexity after ten
            minutes of the King James Bible: 114.5 with 0.4, 108.5 with 0.6.
        after_trials: Share for the comparison and the final training together.
        race: Share for a race (`search.core.race`).
        most_race: The same at most. If a race in which each configuration trains once more takes longer, none is held.
        worker_starts: Seconds of the work around the final training, divided by the seconds in which a worker starts.
            The work is: start a worker, test, draw pictures, export, register, end the command. The start of a worker
            shows how fast the machine imports modules.
        least_around_seconds: Least seconds of that work. Measured with TrashNet on two cores, where a worker starts in
            2 to 3 s: 7 s until the first epoch, 28 s for test, export and baseline, 5 s until the end.
        least_around: The same as a share of a budget that is shorter than 175 s, but at least `fewest_around_seconds`.
        fewest_around_seconds: See `least_around`.
        most_around_seconds: Most seconds of that work.
        comparison_around_seconds: The same for the comparison, which exports and registers no model.
        measurable_seconds: No epoch of the final training is measured if less time is left after the trials. The
            measurement takes about ten seconds: the start of a worker and three seconds of training.
        fused_seeds: Seconds of several seeds that train as one batched model, divided by their seconds one by one.
            Groups of 32 and 20 trials take 0.22 and 0.41 (benchmarks `fused_rnn` and `overhead`). A comparison has
            about five seeds, which gain less.
        validation_sample: Seconds of a sample in validation, divided by its seconds in training. Training adds a
            backward pass, which takes twice as long as the forward pass (Kaplan et al. 2020, section 2.1).
        safety: Forecasts of trainings are multiplied by this, as the seconds of an epoch vary.
    """

    full_trial: float = 0.3
    slowest_trial: float = 1.5
    fewest_epochs: int = 4
    fewest_epochs_share: float = 0.25
    fewest_final_epochs: int = 2
    own_epochs: int = 80
    measuring: float = 0.1
    least_measuring_seconds: float = 20.0
    enough_samples: int = 2000
    most_epochs_factor: float = 4
    final_training: float = 0.4
    growing_final_training: float = 0.6
    after_trials: float = 0.5
    race: float = 0.1
    most_race: float = 0.25
    worker_starts: float = 4.0
    least_around_seconds: float = 35.0
    least_around: float = 0.2
    fewest_around_seconds: float = 20.0
    most_around_seconds: float = 45.0
    comparison_around_seconds: float = 10.0
    measurable_seconds: float = 60.0
    fused_seeds: float = 0.6
    validation_sample: float = 1 / 3
    safety: float = 1.1


@dataclass(frozen=True)
class TrialEpochs:
    """How long a trial may be.

    Attributes:
        epochs: Epochs of a full trial.
        first_rung: The epoch after which the first weak trials stop.
        max_epoch_seconds: Configurations with longer epochs are not tried.
    """

    epochs: int
    first_rung: int
    max_epoch_seconds: float


def with_epochs(config: SearchConfig, trials: TrialEpochs) -> SearchConfig:
    """The configuration with these epochs. A `max_epoch_seconds` that the user gave stays."""
    fitted = {
        "epochs": trials.epochs,
        "grace_period": trials.first_rung,
        "fit_epochs": False,
        "max_epoch_seconds": config.search.max_epoch_seconds or trials.max_epoch_seconds,
    }
    return check_config(config.task, lay_over(config.raw, {"search": fitted}), config.place)


@dataclass(frozen=True)
class TrialsSoFar:
    """The figures of the trials that the plan needs.

    Attributes:
        epoch_seconds: Mean seconds of an epoch (training and validation) of the best trial: `Trial.epoch_seconds`.
        trained_epochs: Epochs that the best trial was trained.
        best_epochs: Epochs after which it was best. Its final training has this number, unless the plan changes it.
        improving: Whether more epochs would improve the winner: the best trial still improved at its end, and, if it
            was stopped early, so did at least half of the complete trials.
        longest_improving: Epochs of the longest running trial that still improves; 0 if none does.
        compared_epoch_seconds: Mean seconds of an epoch of the best trial of each balanced value.
    """

    epoch_seconds: float
    trained_epochs: int
    best_epochs: int
    improving: bool = False
    longest_improving: int = 0
    compared_epoch_seconds: tuple[float, ...] = ()

    @classmethod
    def from_state(cls, config: SearchConfig, state: SearchState) -> TrialsSoFar | None:
        """Reads the trials of a search; None as long as no trial can win."""
        finalists = state.finalists(config.window)
        if not finalists:
            return None
        best, best_epochs = finalists[0]
        full, objective = config.search.epochs, state.objective
        improving = best.improving(objective)
        if improving and best.epoch != full:
            complete = [trial.improving(objective) for trial, _ in finalists if trial.epoch == full]
            improving = bool(complete) and 2 * sum(complete) >= len(complete)
        compared = [state.best(config.search.balance, value) for value in config.balanced]
        return cls(
            best.epoch_seconds,
            best.epoch,
            best_epochs,
            improving,
            max((trial.epoch for trial in state.unfinished() if trial.improving(objective)), default=0),
            tuple(trial.epoch_seconds for trial in compared if trial is not None),
        )


@dataclass(frozen=True)
class FinalPlan:
    """The trainings after the trials.

    Attributes:
        comparison_seeds: Seeds of the comparison of balanced values. 0: no comparison.
        retrain: True: the best configuration is trained on train and validation. False: the best trial's own model is
            tested.
        epochs: Epochs of the final training. None: the number that was best in the search.
        seconds: Seconds of the comparison and the final training, which are reserved. 0 without a budget.
    """

    comparison_seeds: int
    retrain: bool
    epochs: int | None
    seconds: float


@dataclass(frozen=True)
class TimePlan:
    """The plan of one search for its time budget.

    A budget of 15 minutes (900 s), as an example. An epoch of the first configuration takes 30 s beside another trial,
    and 18 s alone on all cores. A worker starts in 6 s. The configuration has 40 epochs and its first rung after 5.

    1. A full trial gets three tenths of the budget, 270 s: 9 epochs of 30 s. The first rung moves from epoch 5 of 40 to
       epoch 1 of 9. Configurations whose epochs take more than 45 s (1.5 x 270 s / 9) are not tried.

    >>> fit = TimePlan(budget_seconds=900).trial_epochs(epoch_seconds=30, most_epochs=40, first_rung=5)
    >>> fit.epochs, fit.first_rung, round(fit.max_epoch_seconds)
    (9, 1, 45)

    2. The epochs of trials were cut from 40 to 9. The final training may have up to 40.

    >>> plan = TimePlan(
    ...     budget_seconds=900, full_trial_epochs=9, most_final_epochs=40, train_samples=1600, validation_samples=400,
    ...     workers=2, alone_ratio=0.6, worker_start_seconds=6,
    ... )
    >>> plan.around_seconds
    35.0

    3. Five minutes have passed, 600 s are left. The best trial had 9 epochs and was best after 7. The final training
       reads 2,000 samples instead of 1,600 and does not validate: its epoch takes 2000 / (1600 + 400 / 3) = 1.15 times
       as long as a trial's. With all cores it takes 0.6 times as long. The margin is 1.1. So an epoch takes
       30 s x 1.15 x 0.6 x 1.1 = 22.8 s. Seven epochs and the 35 s around them are 195 s.

    >>> trials = TrialsSoFar(epoch_seconds=30, trained_epochs=9, best_epochs=7)
    >>> final = plan.after_trials(trials, left_seconds=600)
    >>> final.retrain, final.epochs, round(final.seconds)
    (True, None, 195)

    4. A full trial takes 9 x 30 s = 270 s. New trials start until 270 s + 195 s = 465 s are left, which is after 7:15.
       Trials finish their running epoch and stop as soon as the longest running epoch would end with no more than 195 s
       left: after 11:45 at the latest.

    >>> plan.may_start_trial(600, final.seconds, epoch_seconds=30)
    True
    >>> plan.may_start_trial(450, final.seconds, epoch_seconds=30)
    False
    >>> plan.must_stop_trials(200, final.seconds, running_seconds=[5, 20])
    True

    5. If the best trial still improved at epoch 9, a longer final training gains more than more trials. It then gets
       six tenths of the budget, 540 s. With the 35 s around it, 575 s are reserved: trials stop after 5:25. The final
       training has 540 s / 22.8 s = 23 epochs.

    >>> growing = TrialsSoFar(epoch_seconds=30, trained_epochs=9, best_epochs=9, improving=True)
    >>> plan.after_trials(growing, left_seconds=575)
    FinalPlan(comparison_seeds=0, retrain=True, epochs=23, seconds=575.0)

    6. After the trials a worker measures an epoch of the final training. If it takes 16 s instead of 22.8 s, there are
       540 s / (1.1 x 16 s) = 30 epochs.

    >>> plan.after_trials(growing, left_seconds=575, final_epoch_seconds=16).epochs
    30

    Attributes:
        budget_seconds: Seconds of the whole command, from its start to its end; infinite without a budget.
        full_trial_epochs: Epochs of a full trial.
        most_final_epochs: Most epochs of the final training.
        train_samples: Samples of the split train.
        validation_samples: Samples of the split validation.
        workers: Trainings that run at once.
        alone_ratio: Seconds of an epoch that trains alone on all cores, divided by its seconds beside other trials.
        worker_start_seconds: Seconds in which a worker starts.
        own_epoch_seconds: Measured seconds of an epoch of a function or a command. The first epoch of a trial may load
            libraries and data: until the second, no epoch of it counts as longer than this. None for a task.
        retrain: Whether a final training is wanted.
        final_seeds: Seeds of the final training.
        comparison_seeds: Seeds that are wanted for the comparison of balanced values. 0: no comparison.
        fused: Whether the seeds of a comparison train as one batched model.
        shares: The constants of the plan.
    """

    budget_seconds: float = inf
    full_trial_epochs: int = 1
    most_final_epochs: int = 1
    train_samples: int = 1
    validation_samples: int = 0
    workers: int = 1
    alone_ratio: float = 1.0
    worker_start_seconds: float = 0.0
    own_epoch_seconds: float | None = None
    retrain: bool = True
    final_seeds: int = 1
    comparison_seeds: int = 0
    fused: bool = False
    shares: Shares = Shares()

    @classmethod
    def from_config(
        cls, config: SearchConfig, sizes: Mapping[str, int], workers: int, budget_seconds: float = inf,
        most_final_epochs: int | None = None, alone_ratio: float = 1.0, worker_start_seconds: float = 0.0,
        retrain: bool = True, fused: bool = False, own_epoch_seconds: float | None = None,
    ) -> TimePlan:  # fmt: skip
        """The plan of a search whose trials have the epochs that the configuration says.

        Args:
            sizes: Samples of the splits `train` and `val`; they may be missing if no final training is wanted.
            most_final_epochs: None: the epochs of a full trial.
        """
        settings = config.search
        return cls(
            budget_seconds=budget_seconds,
            full_trial_epochs=settings.epochs,
            most_final_epochs=most_final_epochs or settings.epochs,
            train_samples=sizes.get("train", 1),
            validation_samples=sizes.get("val", 0),
            workers=workers,
            alone_ratio=alone_ratio,
            worker_start_seconds=worker_start_seconds,
            own_epoch_seconds=own_epoch_seconds,
            retrain=retrain,
            final_seeds=settings.retrain_seeds,
            comparison_seeds=settings.compare_seeds if len(config.balanced) > 1 else 0,
            fused=fused,
        )

    def fields(self) -> dict[str, Any]:
        """The arguments of this plan without its constants, as plain data."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "shares"}

    # Before the trials

    @property
    def patience_seconds(self) -> float:
        """Seconds in which the first configuration of a function or a command has to report."""
        return max(self.shares.least_measuring_seconds, self.shares.measuring * self.budget_seconds)

    def is_too_slow(self, epoch_seconds: float, left_seconds: float) -> bool:
        """Whether one epoch of the trials and the shortest final training (`Shares.fewest_final_epochs`) do not fit.

        Args:
            epoch_seconds: Seconds of an epoch (training and validation) while all trials that fit at once train.
            left_seconds: Seconds until the budget ends.
        """
        final_epoch_seconds = self._final_epoch_seconds(TrialsSoFar(epoch_seconds, 1, 1), None)
        final_seconds = left_seconds - epoch_seconds - self.around_seconds
        return final_seconds < self.shares.fewest_final_epochs * final_epoch_seconds

    def trial_epochs(self, epoch_seconds: float, most_epochs: int, first_rung: int) -> TrialEpochs:
        """The epochs of a full trial, from the seconds of a measured epoch.

        Args:
            epoch_seconds: Seconds of an epoch (training and validation) while all trials that fit at once train.
            most_epochs: Epochs of a trial that the configuration says.
            first_rung: First rung that the configuration says. It moves in proportion to the epochs.
        """
        shares, budget = self.shares, self.budget_seconds
        fitting = int(shares.full_trial * budget / epoch_seconds)
        fewest = min(shares.fewest_epochs, ceil(shares.fewest_epochs_share * most_epochs))
        epochs = max(fewest, min(most_epochs, fitting))
        first = max(1, min(epochs, round(first_rung * epochs / most_epochs)))
        return TrialEpochs(epochs, first, shares.slowest_trial * shares.full_trial * budget / epochs)

    def longest_final_training(self, configured_epochs: int) -> int:
        """The most epochs of a final training: those of the configuration, and more if train is small."""
        factor = min(self.shares.most_epochs_factor, max(1.0, self.shares.enough_samples / self.train_samples))
        return round(configured_epochs * factor)

    # During the trials

    def may_start_trial(self, left_seconds: float, reserved_seconds: float, epoch_seconds: float) -> bool:
        """Whether a new trial, with epochs as long as the best trial's, could train to its last epoch.

        Args:
            left_seconds: Seconds until the budget ends.
            reserved_seconds: `FinalPlan.seconds`.
            epoch_seconds: Mean seconds of an epoch of the best trial.
        """
        return left_seconds - reserved_seconds >= epoch_seconds * self.full_trial_epochs

    def must_stop_trials(self, left_seconds: float, reserved_seconds: float, running_seconds: list[float]) -> bool:
        """Whether the trials must stop after their running epochs: another epoch would run into the reserved time.

        Args:
            left_seconds: Seconds until the budget ends.
            reserved_seconds: `FinalPlan.seconds`.
            running_seconds: For each running trial, the seconds until its epoch is expected to end.
        """
        return left_seconds - reserved_seconds <= max(running_seconds, default=0.0)

    def race_seconds(self, epoch_seconds: float, runs: int) -> float:
        """Seconds that are kept for a race (`search.core.race`); 0 if there is no time for one.

        Args:
            epoch_seconds: Mean seconds of an epoch of the best trial.
            runs: Trainings of a race in which each configuration trains once more.
        """
        shares, budget = self.shares, self.budget_seconds
        seconds = ceil(runs / self.workers) * self.full_trial_epochs * epoch_seconds
        if not runs or not self.retrain or seconds > shares.most_race * budget:
            return 0.0
        return max(seconds, shares.race * budget)

    def next_trainings(
        self, left_seconds: float, reserved_seconds: float, epoch_seconds: float, race_runs: int
    ) -> Literal["trials", "race", "paused trials"]:
        """What trains next: new trials, then a race if there is time for one, then trials that were paused.

        Args:
            left_seconds: Seconds until the budget ends.
            reserved_seconds: `FinalPlan.seconds`.
            epoch_seconds: Mean seconds of an epoch of the best trial.
            race_runs: Trainings of a race; 0: no race is possible. See `race_seconds`.
        """
        race_seconds = self.race_seconds(epoch_seconds, race_runs)
        if self.may_start_trial(left_seconds, reserved_seconds + race_seconds, epoch_seconds):
            return "trials"
        races = race_seconds > 0 and self.may_start_trial(left_seconds, reserved_seconds, epoch_seconds)
        return "race" if races else "paused trials"

    # After the trials

    @property
    def around_seconds(self) -> float:
        """Seconds of the work around the final training: start of a worker, test, export, registration."""
        shares = self.shares
        seconds = shares.worker_starts * self.worker_start_seconds
        least = min(shares.least_around_seconds, shares.least_around * self.budget_seconds)
        return min(shares.most_around_seconds, max(shares.fewest_around_seconds, least, seconds))

    def after_trials(
        self, trials: TrialsSoFar | None, left_seconds: float, final_epoch_seconds: float | None = None
    ) -> FinalPlan:
        """Plans the trainings after the trials, as if the trials ended now.

        If the time is too short, first the comparison gets fewer seeds, then none. Then the final training gets fewer
        epochs, but at least the number of steps of the best trial; its epochs have more steps, as it trains on
        validation too. If it has no time for these, there is no final training.

        Args:
            trials: None: no trial can win yet.
            left_seconds: Seconds until the budget ends.
            final_epoch_seconds: Measured seconds of an epoch of the final training. None: forecast from the trials.
        """
        if not self.retrain:
            return FinalPlan(0, False, None, 0.0 if isinf(self.budget_seconds) else self.shares.fewest_around_seconds)
        if isinf(self.budget_seconds):
            return FinalPlan(self.comparison_seeds, True, None, 0.0)
        if trials is None:
            return FinalPlan(self.comparison_seeds, True, None, self.around_seconds)
        growing = trials.improving and trials.trained_epochs < self.most_final_epochs
        own_share = growing and not self.comparison_seeds
        share = self.shares.growing_final_training if own_share else self.shares.final_training
        share_seconds, free_seconds = share * self.budget_seconds, left_seconds - self.around_seconds
        most_seconds = max(share_seconds, free_seconds)
        epoch_seconds = self._final_epoch_seconds(trials, final_epoch_seconds)
        # These epochs of train and validation have as many steps as `best_epochs` epochs of train.
        fewest_epochs = ceil(trials.best_epochs / (self._merged_samples / self.train_samples))
        # An epoch is measured after the last trial. Then the final training may take all the time that is left.
        if epoch_seconds * fewest_epochs > (most_seconds if final_epoch_seconds else share_seconds):
            return self._with_comparison(trials, False, None, self.around_seconds)
        epochs = None
        if growing:
            epochs = max(trials.best_epochs, min(self.most_final_epochs, int(free_seconds / epoch_seconds)))
        if epoch_seconds * trials.best_epochs > most_seconds:
            epochs = int(most_seconds / epoch_seconds)
        # A running trial that improves may be best after its next epoch: its final training needs one more epoch.
        likely_epochs = self.most_final_epochs if growing else max(trials.best_epochs, trials.longest_improving + 1)
        final_seconds = min(share_seconds, epoch_seconds * likely_epochs)
        return self._with_comparison(trials, True, epochs, self.around_seconds + final_seconds)

    def worth_measuring(self, final: FinalPlan, trials: TrialsSoFar | None, left_seconds: float) -> bool:
        """Whether a measured epoch of the final training may change the plan, and time is left to measure it."""
        depends = final.epochs is not None or not final.retrain
        limited = self.retrain and self.final_seeds == 1 and not isinf(self.budget_seconds)
        return trials is not None and depends and limited and left_seconds >= self.shares.measurable_seconds

    @property
    def _merged_samples(self) -> int:
        return self.train_samples + self.validation_samples

    def _final_epoch_seconds(self, trials: TrialsSoFar, measured_seconds: float | None) -> float:
        """Seconds of an epoch of the final training, of all its seeds, with the safety margin."""
        rounds = ceil(self.final_seeds / self.workers)
        # A trial's epoch trains on train and validates on validation; the final training trains on both.
        trial_samples = self.train_samples + self.shares.validation_sample * self.validation_samples
        speed = self.alone_ratio if self.final_seeds == 1 else 1.0
        epoch_seconds = trials.epoch_seconds
        if trials.trained_epochs == 1 and self.own_epoch_seconds is not None:
            epoch_seconds = min(epoch_seconds, self.own_epoch_seconds)
        forecast = epoch_seconds * (self._merged_samples / trial_samples) * speed
        return self.shares.safety * rounds * (measured_seconds or forecast)

    def _with_comparison(self, trials: TrialsSoFar, retrain: bool, epochs: int | None, seconds: float) -> FinalPlan:
        """Adds the comparison with the most seeds that fit; at least two, as one seed shows no variation."""
        limit = self.shares.after_trials * self.budget_seconds
        for seeds in range(self.comparison_seeds, 1, -1):
            seconds_of_both = seconds + self._comparison_seconds(trials, seeds)
            if seconds_of_both <= limit:
                return FinalPlan(seeds, retrain, epochs, seconds_of_both)
        return FinalPlan(0, retrain, epochs, seconds)

    def _comparison_seconds(self, trials: TrialsSoFar, seeds: int) -> float:
        """Seconds of the comparison. Its trainings share the workers; the fused seeds of a value have one worker."""
        factor = self.shares.safety * (self.shares.fused_seeds if self.fused else 1.0)
        each = [factor * seeds * self.full_trial_epochs * seconds for seconds in trials.compared_epoch_seconds]
        longest = max(each, default=0.0) if self.fused else 0.0
        return max(sum(each) / self.workers, longest) + self.shares.comparison_around_seconds
