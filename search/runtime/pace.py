"""Measures the seconds of an epoch: before the trials, and again before the final training."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray

from search.core.config import SearchConfig
from search.core.searchers import make_searcher
from search.core.time_plan import FinalPlan, TimePlan, TrialsSoFar
from search.runtime.budget import Budget
from search.runtime.placement import Placement
from search.runtime.search import Search
from trainables import InputError, Learner, Mergeable, Params, Splits, get_task, seed_everything
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
    """

    epoch_seconds: float
    alone_ratio: float
    worker_start_seconds: float


def measure_pace(
    config: SearchConfig, splits: Splits, placement: Placement, validation_patience_seconds: float = 20.0,
    unmeasured_validation: float = 0.3,
) -> PaceMeasurement:  # fmt: skip
    """Trains the first configuration of the search for a few seconds, on `placement.concurrency` workers at once.

    Args:
        validation_patience_seconds: wait at most these seconds for the validation.
        unmeasured_validation: the seconds of a longer validation, divided by the seconds of an epoch of training. Other
            values were not measured.

    Raises:
        InputError: the configuration cannot be trained.
    """
    searcher, _ = make_searcher(config, get_task(config.task).objective)
    shared, began = ray.put(splits.for_search()), time.monotonic()
    workers = [_start(config, placement, searcher.ask(0), config.search.epochs) for _ in range(placement.concurrency)]
    try:
        ray.get([worker.ready.remote() for worker in workers])
        start = time.monotonic() - began
        beside = alone = max(ray.get([worker.train.remote(shared, placement.cpus) for worker in workers]))
        # The other workers stay alive meanwhile: starting or ending them would take the cores that are measured.
        if (cpus := placement.cpus_of(1)) > placement.cpus:
            # With k times the cores and no other trial an epoch takes at least 1 / k of the seconds, and at most all of
            # them. Outside these bounds another program took cores during one of the measurements. Measured on two
            # cores: 0.80 for the first configuration of rnn.
            measured, ideal = ray.get(workers[0].train.remote(shared, cpus)), beside * placement.cpus / cpus
            alone = min(beside, max(ideal, measured))
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
        None if the measurement fails or takes too long. The final training itself reports an error.
    """
    worker = _start(config, placement, params, epochs, micro_batches, merged=True)
    try:
        seconds = worker.train.remote(ray.put(splits.for_search()), placement.cpus_of(1))
        return float(ray.get(seconds, timeout=patience_seconds))
    except (ray.exceptions.RayError, TimeoutError):
        return None
    finally:
        ray.kill(worker)


class _Enough(Exception):
    """Enough steps were measured."""


def time_epoch(
    train_epoch: Callable[[], object], synchronize: Callable[[], None] = lambda: None, least_seconds: float = 3.0,
    warm_up_steps: int = 3,
) -> float:  # fmt: skip
    """The seconds of an epoch of training. A long epoch is ended early, a short epoch is repeated.

    Args:
        train_epoch: trains an epoch. Its steps are counted if it calls `training.step_ended`.
        synchronize: waits until the device has finished.
        least_seconds: seconds of training to measure. Two trainings side by side, measured for less than a second, were
            wrong by half.
        warm_up_steps: first steps that are not measured, as they allocate memory.
    """
    began = measured_from = time.perf_counter()
    epochs = steps = steps_per_epoch = 0

    def count(step: training.Step) -> None:
        nonlocal measured_from, steps, steps_per_epoch
        steps, steps_per_epoch = steps + 1, step.of
        if steps == warm_up_steps:
            synchronize()
            measured_from = time.perf_counter()
        if steps > warm_up_steps and time.perf_counter() - measured_from > least_seconds:
            raise _Enough

    with training.observed(count), suppress(_Enough, training.Diverged):
        while time.perf_counter() - began < least_seconds:
            train_epoch()
            epochs += 1
    synchronize()
    ended = time.perf_counter()
    if steps > warm_up_steps:
        return (ended - measured_from) / (steps - warm_up_steps) * steps_per_epoch
    return (ended - began) / max(epochs, 1)


def _start(
    config: SearchConfig, placement: Placement, params: Params, epochs: int, micro_batches: int = 1,
    merged: bool = False,
) -> Any:  # fmt: skip
    """Starts a worker that measures, with the resources of a trial."""
    resources = {"gpus": placement.gpus, "precision": config.resources.precision}
    actor = ray.remote(_Measuring).options(
        num_cpus=placement.cpus, num_gpus=placement.gpus, max_restarts=2, max_task_retries=2
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

    def train(self, splits: Splits, cpus: float) -> float:
        """The seconds of an epoch of training."""
        if self._merged and isinstance(self._task, Mergeable):
            splits = replace(splits, train=self._task.merge(splits), val=None)
        learner = self._learner_on(splits, cpus)
        return time_epoch(lambda: self._task.train_epoch(learner, splits.train), learner.device.synchronize)

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
