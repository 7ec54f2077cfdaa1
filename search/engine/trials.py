"""Runs the trials of a search on Ray Tune. Tune reports results and asks for trials; `Search` decides."""

from __future__ import annotations

import math
import tempfile
import time
import traceback
from contextlib import suppress
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher as TuneSearcher
from ray.tune.stopper import Stopper

from search.config.load import parse_duration
from search.config.settings import SearchSection
from search.engine import checkpoints
from search.engine.failures import cause, latest_traceback
from search.engine.interrupts import Deadline
from search.engine.placement import Placement, machines, place
from search.engine.search import Search
from search.engine.transfer import content, keep, storage
from search.record.events import Moved
from search.record.redaction import redacted
from search.record.state import Trial
from trainables import Fusable, InputError, Splits, get_task
from trainables.base.trainable import TaskTrainable

#: Seconds between two counts of the machines that are there.
RECOUNT = 2.0
#: A worker gathers the epochs of so many seconds before it reports: each report costs milliseconds.
GATHER = 0.5


def run_trials(search: Search, splits: Splits, placement: Placement) -> None:
    """Runs unfinished trials, and new ones up to the total.

    Returns once every trial is over, or once the search was stopped and each running trial has finished its epoch and
    is on disk.

    Raises:
        InputError: the first results showed a mistake in the configuration.
    """
    config, folder = search.config, search.folder
    if search.total == sum(t.over for t in search.state.trials.values()):
        return
    checkpoints.tidy(search)
    trainable = tune.with_parameters(
        TaskTrainable,
        task=config.task,
        splits=splits.for_search(),
        epochs=config.search.epochs,
        gather=_gather(config.search),
        resources={"cpus": placement.cpus, "gpus": placement.gpus, "precision": config.resources.precision},
        storage=storage(search),
    )
    bridge = _Bridge(search, placement.concurrency)
    with tempfile.TemporaryDirectory(prefix="search-") as scratch, Deadline(search.stop, config.search.time_budget):
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": placement.cpus, "gpu": placement.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=_Proposals(bridge),
                scheduler=_Decisions(bridge),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=lambda t: f"{config.task}-{folder.name}-{t.config['name']}",
                trial_dirname_creator=lambda t: t.config["name"],
            ),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=scratch,  # Tune's own records, of which nothing is ever read
                callbacks=[_Notices(bridge)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a step saves for itself
                stop=_WhenStopping(bridge),
                verbose=0,
            ),
        ).fit()
    if bridge.refused:
        raise bridge.refused
    if not search.stopping:
        search.give_up(*search.state.paused())


def _gather(search: SearchSection) -> float:
    """Seconds that workers gather epochs for; none where a limit goes by each epoch, as a trial that hangs would lose
    its gathered ones."""
    return GATHER if search.epoch_budget is None and search.trial_timeout is None else 0.0


class _Bridge:
    """What the adapters to Tune (searcher, scheduler, callback) share: live trials, and the queue of those to come."""

    def __init__(self, search: Search, concurrency: int) -> None:
        self.search, self._fits, self._counted = search, concurrency, time.monotonic()
        self.live: set[str] = set()
        #: When each running trial of Tune last began or ended an epoch.
        self.silent_since: dict[TuneTrial, float] = {}
        #: Trials that ended an epoch during this step of Tune's loop.
        self.reported: set[int] = set()
        self.waiting = search.state.unfinished()
        #: Trials whose group failed. Each now runs alone, which shows the one at fault.
        self.alone: set[int] = set()
        self._launched = 0
        #: A mistake in the configuration that only the first results showed.
        self.refused: InputError | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its tuner for its own restore, which is never used: the journal is the state.
        return (object, ())

    @property
    def concurrency(self) -> int:
        """Trials at once: the configured number, else as many as fit on the machines that are there now."""
        config = self.search.config
        if config.search.concurrency is None and time.monotonic() - self._counted > RECOUNT:
            with suppress(InputError):  # none fits now: running trials will be lost, and wait for a machine
                self._fits = place(config, machines()).concurrency
            self._counted = time.monotonic()
        return self._fits

    def next_config(self) -> dict[str, Any] | None:
        """The configuration of the next trial or group, as `TaskTrainable` reads it; None where there is none now."""
        group = self._next_group()
        if not group:
            return None
        self._launched += 1  # part of the name, as a trial may be launched several times
        name = f"{group[0].number:04d}" + (f"+{len(group) - 1}" if len(group) > 1 else "") + f"-{self._launched}"
        search = self.search
        epochs = range(1, search.config.search.epochs)
        return {
            "name": name,
            "trials": [
                {
                    "number": trial.number,
                    "params": trial.params,
                    "seed": trial.seed,
                    "micro_batches": trial.micro_batches,
                    "decisions": [epoch for epoch in epochs if search.scheduler.decides(trial.number, epoch)],
                    "resume_from": (names := [one.name for one in reversed(trial.checkpoints)]),
                    "carried": {name: ray.put(one) for name, one in content(search, names[:1]).items()},
                }
                for trial in group
            ],
        }

    def _next_group(self) -> list[Trial]:
        """The trial whose turn it is, and up to `fuse - 1` more of its shape."""
        search, fuse = self.search, self.search.config.search.fuse
        if search.stopping:
            return []
        while len(self.waiting) < (fuse * self.concurrency if fuse > 1 else 1):
            if (trial := search.propose()) is None:
                break
            self.waiting.append(trial)
        if not self.waiting:
            return []
        first = self.waiting[0]
        task, group = get_task(search.config.task), [first]
        if fuse > 1 and first.number not in self.alone:
            assert isinstance(task, Fusable)  # checked before the search began
            shape = task.shape(first.params)
            alike = [t for t in self.waiting if t.number not in self.alone and task.shape(t.params) == shape]
            # Not so many that another worker would be left without work.
            group = alike[: min(fuse, math.ceil(len(alike) / (self.concurrency - len(self.live))))]
        self.waiting = [t for t in self.waiting if t not in group]
        return group

    def failed(self, trial: TuneTrial, told: str) -> None:
        """Takes in that a trial of Tune failed. A single trial is retried or has failed for good; a group is taken
        apart.

        Args:
            told: the traceback.
        """
        self.silent_since.pop(trial, None)
        why, shown = cause(told), redacted(told)
        search, numbers = self.search, _numbers(trial)
        left = [search.state.trials[n] for n in numbers if not search.state.trials[n].idle]
        if why == "disk":
            search.stop("disk full")  # a resume trains again what could not be saved
        elif why == "unclean":
            search.announce({"event": "unclean", "traceback": shown})
            self.waiting = left + self.waiting
        elif len(numbers) > 1:
            search.announce({"event": "apart", "numbers": numbers, "traceback": shown})
            self.alone.update(numbers)
            self.waiting = left + self.waiting
        elif left and search.fail(numbers[0], why, shown):
            self.waiting = left + self.waiting

    def settle(self) -> None:
        """Work after each step of Tune's loop, while the trials that reported train again already."""
        if self.reported:
            checkpoints.limit(self.search, self.reported)
            self.reported = set()
        self._watch()

    def _watch(self) -> None:
        """Ends the workers of trials that are over their time limit, or hang."""
        search, limit = self.search, self.search.config.search.stall_timeout
        for trial, since in list(self.silent_since.items()):
            silent = time.monotonic() - since
            running = [n for n in _numbers(trial) if not search.state.trials[n].idle]
            late = [n for n in running if search.is_over_time(n, silent / len(running))]
            stalled = limit is not None and silent > parse_duration(limit)
            if not (late or stalled) or trial.temporary_state.ray_actor is None:
                continue
            search.record(*(Moved(event="timed_out", number=number) for number in late))
            if stalled and limit is not None:
                search.announce({"event": "stalled", "numbers": running, "limit": limit})
            del self.silent_since[trial]
            ray.kill(trial.temporary_state.ray_actor)  # Tune reports an error, which reaches `failed`

    @property
    def exhausted(self) -> bool:
        """Whether nothing runs and nothing is left to run. (What runs may still fail and be taken up again.)"""
        search = self.search
        return not self.live and (
            bool(search.stopping)
            or not (self.waiting or len(search.state.trials) < search.total or search.promotable() is not None)
        )


def _numbers(trial: TuneTrial) -> list[int]:
    return [t["number"] for t in trial.config["trials"]]


class _Proposals(TuneSearcher):
    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self.bridge = bridge

    def suggest(self, trial_id: str) -> Any:
        if self.bridge.exhausted:
            return TuneSearcher.FINISHED
        if len(self.bridge.live) >= self.bridge.concurrency:
            return None
        config = self.bridge.next_config()
        if config is not None:
            self.bridge.live.add(trial_id)
        return config

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.bridge.live.discard(trial_id)

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search is resumed from its journal")


class _Decisions(FIFOScheduler):
    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self.bridge = bridge
        self._keeps_workers = False

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        # By default Tune keeps one idle worker: each round of trials would wait seconds for new ones.
        if not self._keeps_workers:
            tune_controller._actor_cache.increase_max(trial.placement_group_factory, self.bridge.concurrency)
            self._keeps_workers = True

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Chooses no trial out of turn: a free worker takes a trial that has no worker.

        Tune would choose the trial that waits longest and throw away the worker that is starting for it. With trials
        shorter than the start of a worker, a machine that joins would never train.
        """

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        search = self.bridge.search
        if failed := result.get("failed"):
            self.bridge.failed(trial, failed)
            return TrialScheduler.STOP
        try:
            written = [one for t in result["trials"] if (one := t["checkpoint"]) and "content" in one]
            keep(search, {one["name"]: one.pop("content") for one in written})
            over = search.report(result["trials"], result["device"])
        except OSError:
            self.bridge.failed(trial, traceback.format_exc())
            return TrialScheduler.STOP
        except InputError as error:  # Tune would turn it into a traceback
            self.bridge.refused = error
            search.stop("failures")
            return TrialScheduler.STOP
        self.bridge.reported.update(_numbers(trial))
        if search.stopping or all(search.state.trials[number].idle for number in _numbers(trial)):
            self.bridge.silent_since.pop(trial, None)
            return TrialScheduler.STOP
        self.bridge.silent_since[trial] = time.monotonic()
        if over:  # an actor gets the calls of one driver in their order, so this comes before the next step
            trial.temporary_state.ray_actor.drop.remote(sorted(over))
        return TrialScheduler.CONTINUE


class _Notices(tune.Callback):
    def __init__(self, bridge: _Bridge) -> None:
        self.bridge = bridge

    def on_trial_start(self, iteration: int, trials: Any, trial: TuneTrial, **info: Any) -> None:
        self.bridge.silent_since[trial] = time.monotonic()

    def on_trial_error(self, iteration: int, trials: Any, trial: TuneTrial, **info: Any) -> None:
        self.bridge.failed(trial, latest_traceback(trial.error_file))

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        self.bridge.settle()


class _WhenStopping(Stopper):
    """Ends Tune's loop once the search is stopping and no trial is in an epoch."""

    def __init__(self, bridge: _Bridge) -> None:
        self.bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(self.bridge.search.stopping) and not self.bridge.live
