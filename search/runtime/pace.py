"""How long an epoch takes, measured before the search begins, and how many epochs a time budget then holds."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray

from search.core.config import SearchConfig, check_config
from search.core.overrides import lay_over
from search.core.searchers import make_searcher
from search.runtime.placement import Placement
from trainables import InputError, Learner, Mergeable, Params, Splits, get_task, seed_everything
from trainables.base import training
from trainables.base.device import choose_device

#: A full trial may take this share of the time budget: enough trials are tried beside it, and it is trained again at
#: the end.
FULL = 0.3
#: Configurations whose full trial would take this many times as much are not tried.
SLOWEST = 1.5
#: Fewest epochs of a full trial, so that there are rungs below the last.
FEWEST = 4
#: Seconds of training that are measured, of several epochs where they are short, after so many steps that are not: the
#: first ones allocate memory. Less than a second's measurement of two threads is off by half.
MEASURED, WARM = 3.0, 3
#: Seconds to wait for the measurement of the validation, and what it takes of an epoch where it is not done by then.
PATIENCE, VALIDATION = 20.0, 0.3


#: Where there are fewer samples to train on, the epochs of a task's file show a network too few of them: with 532
#: pictures 70 epochs had a test accuracy of 0.66, and 200 epochs 0.72. A final training may then have more, up to so
#: many times.
SAMPLES, MORE = 2000, 4


class _Enough(Exception):
    """Enough steps were measured."""


@dataclass(frozen=True)
class Pace:
    """What the first configuration of a search shows of the machine.

    Attributes:
        seconds: of an epoch, as trials run side by side.
        alone: how many times as long it takes as the only training, with the cores of all.
        start: seconds in which a worker starts.
    """

    seconds: float
    alone: float
    start: float

    def fit(self, config: SearchConfig, budget: float) -> SearchConfig:
        """The configuration with as many epochs as the budget, in seconds, holds; the first rung moves with them, and
        configurations whose epochs would take too long are ruled out."""
        most = config.search.epochs
        epochs = max(min(FEWEST, most), min(most, int(FULL * budget / self.seconds)))
        first = max(1, min(epochs, round(config.search.grace_period * epochs / most)))
        limit = config.search.max_epoch_seconds or SLOWEST * FULL * budget / epochs
        found = {"epochs": epochs, "grace_period": first, "fit_epochs": False, "max_epoch_seconds": limit}
        raw = lay_over(config.raw, {"search": found})
        return check_config(config.task, raw, config.place)


def most_epochs(config: SearchConfig, samples: int) -> int:
    """Epochs that a final training may have where its trial was best at its end, and time is left."""
    return round(config.search.epochs * min(MORE, max(1.0, SAMPLES / samples)))


def measure_pace(config: SearchConfig, splits: Splits, placement: Placement) -> Pace:
    """Trains the first configuration of the search for a few seconds, as often side by side as trials will run.

    Raises:
        InputError: the configuration cannot be trained.
    """
    searcher, _ = make_searcher(config, get_task(config.task).objective)
    shared, began = ray.put(splits.for_search()), time.monotonic()
    probes = [_start(config, placement, searcher.ask(0), config.search.epochs) for _ in range(placement.concurrency)]
    try:
        ray.get([one.ready.remote() for one in probes])
        start = time.monotonic() - began
        beside = alone = max(ray.get([one.train.remote(shared, placement.cpus) for one in probes]))
        # The others wait meanwhile: what has to start or end would take the cores that are measured.
        if (cpus := placement.cpus_of(1)) > placement.cpus:
            # No less than its share of the cores: if it seems so, other work took some of them before.
            alone = max(ray.get(probes[0].train.remote(shared, cpus)), beside * placement.cpus / cpus)
        validated = [one.validate.remote(shared, placement.cpus) for one in probes]
        done, late = ray.wait(validated, num_returns=len(probes), timeout=PATIENCE)
        validation = VALIDATION * beside if late else max(ray.get(done))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        raise InputError(f"{config.place}: the first configuration cannot be trained: {cause}") from error
    finally:
        for one in probes:
            ray.kill(one)
    return Pace(beside + validation, alone / beside, start)


def measure_final(
    config: SearchConfig, splits: Splits, placement: Placement, params: Params, micro_batches: int, epochs: int
) -> float | None:
    """The seconds that an epoch of a final training takes, on train and validation with the cores of all.

    None where it cannot be told in time: what is wrong, the training itself says.
    """
    probe = _start(config, placement, params, epochs, micro_batches, merged=True)
    try:
        told = probe.train.remote(ray.put(splits.for_search()), placement.cpus_of(1))
        return float(ray.get(told, timeout=PATIENCE))
    except (ray.exceptions.RayError, TimeoutError):
        return None
    finally:
        ray.kill(probe)


def _start(
    config: SearchConfig, placement: Placement, params: Params, epochs: int, micro_batches: int = 1,
    merged: bool = False,
) -> Any:  # fmt: skip
    """A worker that measures, with the resources of a trial."""
    resources = {"gpus": placement.gpus, "precision": config.resources.precision}
    probe = ray.remote(_Probe).options(
        num_cpus=placement.cpus, num_gpus=placement.gpus, max_restarts=2, max_task_retries=2
    )
    return probe.remote(config.task, params, epochs, config.search.seed, resources, micro_batches, merged)


class _Probe:
    """A worker that trains a configuration for some seconds at a time.

    It gets the data with each call: one that is started again could not get them from the first.
    """

    def __init__(
        self, name: str, params: Params, epochs: int, seed: int, resources: dict[str, Any], micro_batches: int = 1,
        merged: bool = False,
    ) -> None:  # fmt: skip
        """
        Args:
            merged: whether train and validation together are trained on.
        """
        self._task, self._params, self._merged = get_task(name), params, merged
        self._epochs, self._seed, self._resources, self._micro_batches = epochs, seed, resources, micro_batches
        #: Made by the first call: an error of it is then told in its own words, not as the end of a worker.
        self._learner: Learner | None = None

    def ready(self) -> None:
        """Returns once the worker has started."""

    def _on(self, splits: Splits, cpus: float) -> Learner:
        """The learner, on so many cores."""
        device = choose_device(cpus=cpus, **self._resources)
        if self._learner is None:
            seed_everything(self._seed)
            self._learner = self._task.build(self._params, splits, self._epochs, device)
            self._learner.epoch, self._learner.micro_batches = 1, self._micro_batches
        return self._learner

    def train(self, splits: Splits, cpus: float) -> float:
        """The seconds that an epoch of training takes."""
        if self._merged and isinstance(self._task, Mergeable):
            splits = replace(splits, train=self._task.merge(splits), val=None)
        learner = self._on(splits, cpus)
        began = begun = time.perf_counter()
        epochs = steps = of = 0

        def watch(step: training.Step) -> None:
            nonlocal begun, steps, of
            steps, of = steps + 1, step.of
            if steps == WARM:
                learner.device.synchronize()
                begun = time.perf_counter()
            if steps > WARM and time.perf_counter() - begun > MEASURED:
                raise _Enough

        with training.observed(watch), suppress(_Enough, training.Diverged):
            while time.perf_counter() - began < MEASURED:
                self._task.train_epoch(learner, splits.train)
                epochs += 1
        learner.device.synchronize()
        ended = time.perf_counter()
        return (ended - begun) / (steps - WARM) * of if steps > WARM else (ended - began) / max(epochs, 1)

    def validate(self, splits: Splits, cpus: float) -> float:
        """The seconds that a validation takes."""
        learner, began = self._on(splits, cpus), time.perf_counter()
        self._task.evaluate(learner, splits.val)
        learner.device.synchronize()
        return time.perf_counter() - began
