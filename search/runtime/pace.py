"""Measures the seconds of an epoch: before the trials, and again before the final training."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from search.core.config import SearchConfig
from search.core.searchers import make_searcher
from search.core.time_plan import FinalPlan, TimePlan, TrialsSoFar
from search.runtime.budget import Budget
from search.runtime.placement import Placement
from search.runtime.search import Search
from trainables import InputError, Learner, Mergeable, Params, SelfTrained, Splits, get_task, seed_everything
from trainables.base import training
from trainables.base.device import choose_device


@dataclass(frozen=True)
class PaceMeasurement:
    """The speed of this machine with the first configuration of a search.

    Attributes:
        epoch_seconds: seconds of an epoch (training and validation) while `Placement.concurrency` trials train.
        alone_ratio: seconds of an epoch of training alone with the cores of all trials, divided by its seconds beside
            the others with the cores of one trial.
        worker_start_seconds: seconds of the start of a worker.
        reported: False: a training of the user reported nothing in time, so an epoch is as long as that at least.
    """

    epoch_seconds: float
    alone_ratio: float
    worker_start_seconds: float
    reported: bool = True


def measure_pace(
    config: SearchConfig, splits: Splits, placement: Placement, epochs: int, validation_patience_seconds: float = 20.0,
    unmeasured_validation: float = 0.3, patience_seconds: float = 60.0,
) -> PaceMeasurement:  # fmt: skip
    """Trains the first configuration of the search for a few seconds, on `placement.concurrency` workers at once.

    Args:
        epochs: of a full trial.
        validation_patience_seconds: wait at most these seconds for the validation.
        unmeasured_validation: the seconds of a longer validation, divided by the seconds of an epoch of training. Other
            values were not measured.
        patience_seconds: a training of the user reports its first epoch, or its progress, within these seconds;
            else an epoch counts as this long.

    Raises:
        InputError: the configuration cannot be trained.
    """
    task = get_task(config.task)
    searcher, _ = make_searcher(config, task.objective)
    own = isinstance(task, SelfTrained)
    patience = patience_seconds if own else None
    shared, began = ray.put(splits.for_search()), time.monotonic()
    workers = [_start(config, placement, searcher.ask(0), epochs) for _ in range(placement.concurrency)]
    try:
        ray.get([worker.ready.remote() for worker in workers])
        start = time.monotonic() - began
        trained = [worker.train.remote(shared, placement.cpus, patience_seconds / 2) for worker in workers]
        try:
            beside = alone = max(ray.get(trained, timeout=patience))
        except ray.exceptions.GetTimeoutError:
            return PaceMeasurement(patience_seconds, 1.0, start, reported=False)
        # The other workers stay alive meanwhile: starting or ending them would take the cores that are measured.
        if (cpus := placement.cpus_of(1)) > placement.cpus:
            # With k times the cores and no other trial an epoch takes at least 1 / k of the seconds, and at most all of
            # them. Outside these bounds another program took cores during one of the measurements. Measured on two
            # cores: 0.80 for the first configuration of rnn.
            measured = _within(workers[0].train.remote(shared, cpus, patience_seconds / 2), patience)
            alone = min(beside, max(beside * placement.cpus / cpus, measured))
        if own:  # its epochs hold their validation
            return PaceMeasurement(beside, alone / beside, start)
        validated = [worker.validate.remote(shared, placement.cpus) for worker in workers]
        done, late = ray.wait(validated, num_returns=len(workers), timeout=validation_patience_seconds)
        validation = unmeasured_validation * beside if late else max(ray.get(done))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        raise InputError(f"{config.place}: the first configuration cannot be trained: {cause}") from error
    finally:
        for worker in workers:
            ray.kill(worker)
    return PaceMeasurement(beside + validation, alone / beside, start)


def _within(reference: Any, patience_seconds: float | None) -> float:
    """The result of a worker; infinite if it does not come in time."""
    try:
        return float(ray.get(reference, timeout=patience_seconds))
    except ray.exceptions.GetTimeoutError:
        return math.inf


def plan_final(plan: TimePlan, search: Search, splits: Splits, placement: Placement, budget: Budget) -> FinalPlan:
    """Plans the final training once the trials are over.

    If the plan depends on the seconds of an epoch of the final training, they are measured first. The forecast from the
    trials, which trained side by side, is wrong by up to a third.
    """
    trials = TrialsSoFar.from_state(search.config, search.state)
    final = plan.after_trials(trials, budget.left)
    if trials is None or not plan.worth_measuring(final, trials, budget.left):
        return final
    best, _ = search.state.finalists(search.config.window)[0]
    epochs = final.epochs or trials.best_epochs
    seconds = measure_final_epoch(search.config, splits, placement, best.params, best.micro_batches, epochs)
    return plan.after_trials(trials, budget.left, seconds)


def measure_final_epoch(
    config: SearchConfig, splits: Splits, placement: Placement, params: Params, micro_batches: int, epochs: int,
    patience_seconds: float = 20.0,
) -> float | None:  # fmt: skip
    """The seconds of an epoch of a final training, on train and validation with the cores of all trials.

    Args:
        patience_seconds: stop the measurement after these seconds. It takes about ten.

    Returns:
        None for a training of several processes, or if the measurement fails or takes too long. The final training
        itself reports an error.
    """
    if placement.processes > 1:
        return None
    worker = _start(config, placement, params, epochs, micro_batches, merged=True)
    try:
        shared, cpus = ray.put(splits.for_search()), placement.cpus_of(1)
        seconds = worker.train.remote(shared, cpus, patience_seconds / 2)
        return float(ray.get(seconds, timeout=patience_seconds))
    except (ray.exceptions.RayError, TimeoutError):
        return None
    finally:
        ray.kill(worker)


class _Enough(BaseException):  # no `except Exception` of a user's training stops it
    """Enough steps were measured."""


def time_epoch(
    train_epoch: Callable[[], object], synchronize: Callable[[], None] = lambda: None, least_seconds: float = 3.0,
    warm_up_steps: int = 3, warm_up_seconds: float = 0.0,
) -> float:  # fmt: skip
    """The seconds of an epoch of training. A long epoch is ended early, a short epoch is repeated.

    Args:
        train_epoch: trains an epoch. Its steps are counted if it calls `training.step_ended`.
        synchronize: waits until the device has finished.
        least_seconds: seconds of training to measure. Two trainings side by side, measured for less than a second, were
            wrong by half.
        warm_up_steps: first steps that are not measured, as they allocate memory.
        warm_up_seconds: the first epoch is not measured if it ends within these seconds: it may load libraries and
            read data. 0: it is measured.
    """
    began = measured_from = time.perf_counter()
    first_ended: float | None = None
    epochs = steps = 0
    reached = warm = 0.0  # epochs, with the fraction of the running one

    def count(step: training.Step) -> None:
        nonlocal measured_from, steps, reached, warm
        steps, reached = steps + 1, epochs + step.done / step.of
        if steps == warm_up_steps:
            synchronize()
            measured_from, warm = time.perf_counter(), reached
        if steps > warm_up_steps and time.perf_counter() - measured_from > least_seconds:
            raise _Enough

    with training.observed(count), suppress(_Enough, training.Diverged, training.Ended):
        while time.perf_counter() - (first_ended or began) < least_seconds:
            train_epoch()
            epochs += 1
            if epochs == 1 and (now := time.perf_counter()) - began < warm_up_seconds:
                first_ended = now
    synchronize()
    ended = time.perf_counter()
    if reached > warm and steps > warm_up_steps:
        return (ended - measured_from) / (reached - warm)
    if first_ended is not None and epochs > 1:
        return (ended - first_ended) / (epochs - 1)
    return (ended - began) / max(epochs, 1)


def _start(
    config: SearchConfig, placement: Placement, params: Params, epochs: int, micro_batches: int = 1,
    merged: bool = False,
) -> Any:  # fmt: skip
    """Starts a worker that measures, with the resources of a trial."""
    resources = {"gpus": placement.gpus, "precision": config.resources.precision}
    # A training of the user is ended when its patience is over: Ray would report that it starts it again.
    retries = 0 if isinstance(get_task(config.task), SelfTrained) else 2
    actor = ray.remote(_Measuring).options(
        num_cpus=placement.cpus, num_gpus=placement.gpus, max_restarts=retries, max_task_retries=retries
    )
    return actor.remote(config.task, params, epochs, config.search.seed, resources, micro_batches, merged)


class _Measuring:
    """Runs on a worker: measures a configuration.

    Each call has the data as an argument: a worker that Ray started again has lost the data of a call before.
    """

    def __init__(
        self, name: str, params: Params, epochs: int, seed: int, resources: dict[str, Any], micro_batches: int = 1,
        merged: bool = False,
    ) -> None:  # fmt: skip
        """
        Args:
            merged: whether to train on train and validation together.
        """
        self._task, self._params, self._merged = get_task(name), params, merged
        self._epochs, self._seed, self._resources, self._micro_batches = epochs, seed, resources, micro_batches
        #: Built by the first call, not here: Ray reports an error of a constructor as the death of the worker.
        self._learner: Learner | None = None

    def ready(self) -> None:
        """Returns once the worker has started."""

    def train(self, splits: Splits, cpus: float, warm_up_seconds: float = 0.0) -> float:
        """The seconds of an epoch of training.

        Args:
            warm_up_seconds: of a training of the user; see `time_epoch`.
        """
        if self._merged and isinstance(self._task, Mergeable):
            splits = replace(splits, train=self._task.merge(splits), val=None)
        if isinstance(self._task, SelfTrained):
            return self._train_own(splits, cpus, warm_up_seconds)
        learner = self._learner_on(splits, cpus)
        return time_epoch(lambda: self._task.train_epoch(learner, splits.train), learner.device.synchronize)

    def _train_own(self, splits: Splits, cpus: float, warm_up_seconds: float) -> float:
        """The seconds of an epoch of a training of the user, which writes its files to a folder that is deleted."""
        task: Any = self._task
        with tempfile.TemporaryDirectory(prefix="measured-") as folder:
            seed_everything(self._seed)
            learner = task.build(self._params, splits, self._epochs, choose_device(cpus=cpus, **self._resources))
            task.place(learner, 0, Path(folder))
            os.environ["MLFLOW_TRACKING_URI"] = (Path(folder) / "mlruns").as_uri()  # this is no trial
            try:
                return time_epoch(
                    lambda: training.run_epoch(task, learner, splits.train, None), learner.device.synchronize,
                    warm_up_seconds=warm_up_seconds,
                )  # fmt: skip
            finally:
                learner.end()

    def validate(self, splits: Splits, cpus: float) -> float:
        """The seconds of a validation."""
        learner, began = self._learner_on(splits, cpus), time.perf_counter()
        self._task.evaluate(learner, splits.val)
        learner.device.synchronize()
        return time.perf_counter() - began

    def _learner_on(self, splits: Splits, cpus: float) -> Learner:
        """The learner; sets the number of cores that it uses."""
        device = choose_device(cpus=cpus, **self._resources)
        if self._learner is None:
            seed_everything(self._seed)
            self._learner = self._task.build(self._params, splits, self._epochs, device)
            # The second epoch: the first may train the head of a pretrained network alone.
            self._learner.epoch, self._learner.micro_batches = min(2, self._epochs), self._micro_batches
        return self._learner
