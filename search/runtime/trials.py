"""Runs the trials of a search on Ray Tune. Tune reports results and asks for trials; `Search` decides."""

from __future__ import annotations

import logging
import tempfile
import traceback
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher as TuneSearcher
from ray.tune.stopper import Stopper

from search.core.config import SearchConfig
from search.core.failures import latest_traceback
from search.core.time_plan import TimePlan
from search.runtime import checkpoint_cleanup
from search.runtime.budget import Budget
from search.runtime.placement import Placement
from search.runtime.search import Search
from search.runtime.transfer import keep, storage
from search.runtime.tune_runner import TuneRunner
from trainables import InputError, Splits
from trainables.base.trainable import TaskTrainable

#: Seconds: a worker reports all epochs of this time together, as a report takes the driver milliseconds.
GATHER = 0.5


def run_trials(
    search: Search, splits: Splits, placement: Placement, budget: Budget | None = None,
    plan: TimePlan | None = None,
) -> None:  # fmt: skip
    """Runs the unfinished trials, and new trials up to `Study.total`.

    It returns when every trial is over, or when the search was stopped and each running trial has finished and saved
    its epoch.

    Args:
        budget: the budget of the whole command; None: no limit.
        plan: decides when the trials stop, so that the final training ends within the budget; None: no limit.

    Raises:
        InputError: the first results show a mistake in the configuration.
    """
    config, folder = search.config, search.folder
    if search.stopping or search.total == sum(t.over for t in search.state.trials.values()):
        return
    checkpoint_cleanup.tidy(search)
    runner = TuneRunner(search, placement.concurrency, budget or Budget(), plan or TimePlan())
    trainable = tune.with_parameters(
        TaskTrainable,
        task=config.task,
        splits=splits.for_search(),
        epochs=config.search.epochs,
        gather=_gather(config),
        resources=placement.training_resources(config),
        storage=storage(search),
        board=runner.board,
    )
    with tempfile.TemporaryDirectory(prefix="search-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable, _request(placement)),
            tune_config=tune.TuneConfig(
                search_alg=_Proposals(runner),
                scheduler=_Decisions(runner),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=lambda t: f"{config.task}-{folder.name}-{t.config['name']}",
                trial_dirname_creator=lambda t: t.config["name"],
            ),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=scratch,  # Tune's own files, which nothing reads
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # each epoch saves its state
                stop=_EachStep(runner),
                verbose=0,
                progress_reporter=_Silent(),
            ),
        ).fit()
    if runner.refused:
        raise runner.refused
    if not search.stopping:
        search.give_up(*search.state.paused())


def _request(placement: Placement) -> Any:
    """The resources of a trial, as Tune takes them.

    The worker of a group of processes takes none: it only directs the processes, which run in the bundles.
    """
    if placement.processes == 1:
        return {"cpu": placement.cpus, "gpu": placement.gpus}
    return tune.PlacementGroupFactory([{}, *placement.bundles], strategy=placement.strategy)


def _gather(config: SearchConfig) -> float:
    """Seconds of epochs that workers report together.

    It is 0 if a limit counts each epoch. Otherwise a trial that hangs would lose the epochs that it has not reported,
    and a trial that reaches the target, or is infeasible, would train some epochs more. It is 0 for a group of
    processes too: their state would have to be collected in memory after each epoch.
    """
    search = config.search
    alone = config.resources.processes == 1
    limits = search.epoch_budget, search.target, search.cost_budget, search.trial_timeout, search.limits
    return GATHER if alone and all(limit is None for limit in limits) else 0.0


class _Silent(tune.ProgressReporter):
    """Tune's own reporter clears the cell of a notebook even with `verbose=0`."""

    def should_report(self, trials: list[TuneTrial], done: bool = False) -> bool:
        return False

    def report(self, trials: list[TuneTrial], done: bool, *sys_info: str) -> None: ...


class _Proposals(TuneSearcher):
    def __init__(self, runner: TuneRunner) -> None:
        super().__init__()
        self.runner = runner

    def suggest(self, trial_id: str) -> Any:
        if not self.runner.queue.live:  # Tune's loop stands still here as long as a request pauses the search
            self.runner.settle()
        if self.runner.queue.exhausted:
            return TuneSearcher.FINISHED
        if len(self.runner.queue.live) >= self.runner.queue.concurrency:
            return None
        config = self.runner.queue.next_config()
        if config is not None:
            self.runner.queue.live.add(trial_id)
        return config

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.runner.queue.live.discard(trial_id)

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search is resumed from its journal")


class _Decisions(FIFOScheduler):
    def __init__(self, runner: TuneRunner) -> None:
        super().__init__()
        self.runner = runner
        #: The number of idle workers that Tune keeps because of this class.
        self._keeps = 0

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        self.runner.watchdog.expect(trial)
        # By default Tune keeps one idle worker, and each round of trials waits seconds for new workers.
        if (concurrency := self.runner.queue.concurrency) > self._keeps:
            more, self._keeps = concurrency - self._keeps, concurrency
            cache: Any = getattr(tune_controller, "_actor_cache", None)  # private: Tune has no public way
            if hasattr(cache, "increase_max"):
                cache.increase_max(trial.placement_group_factory, more)
            else:
                logging.getLogger(__name__).warning(
                    "Ray %s keeps only one idle worker: each round of trials waits for new workers", ray.__version__
                )

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Chooses no trial: a free worker gets a trial that has no worker.

        Tune would choose the trial that waits longest, and end the worker that is starting for it. If trials are
        shorter than the start of a worker, a machine that joins the cluster would never train.
        """

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        self.runner.failed(trial, latest_traceback(trial.error_file))

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        search = self.runner.search
        for damaged in result["damaged"]:
            search.announce({"event": "damaged", "file": damaged["file"], "why": damaged["why"]})
        if failed := result.get("failed"):
            self.runner.failed(trial, failed)
            return TrialScheduler.STOP
        self.runner.hint(result["said"])
        try:
            for reported in result["trials"]:
                keep(search, (reported["checkpoint"] or {}).pop("files", {}))
            over = search.begin(dict(result["figures"]))
            over |= search.report(result["trials"], result["device"], result["over"])
        except OSError:
            self.runner.failed(trial, traceback.format_exc())
            return TrialScheduler.STOP
        except InputError as error:  # Tune would turn it into a traceback
            self.runner.refused = error
            search.stop("failures")
            return TrialScheduler.STOP
        self.runner.reported(trial)
        if self.runner.is_over(trial):
            self.runner.watchdog.forget(trial)
            return TrialScheduler.STOP
        self.runner.watchdog.heard(trial)
        if over:  # an actor runs the calls of a driver in their order, so this call is before the next step
            trial.temporary_state.ray_actor.drop.remote(sorted(over))
        return TrialScheduler.CONTINUE


class _EachStep(Stopper):
    """Works between the steps of Tune's loop, and ends the loop when the search is stopping and no trial trains.

    This is no `tune.Callback`: with a callback Tune imports MLflow and W&B before the first trial, 2.1 of 23 seconds.
    """

    def __init__(self, runner: TuneRunner) -> None:
        self.runner = runner

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Tune asks this after each step."""
        self.runner.settle()
        return bool(self.runner.search.stopping) and not self.runner.queue.live
