"""Runs a search: proposals, trials and decisions, every one of them in the journal before it takes effect."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher as TuneSearcher
from ray.tune.stopper import Stopper

from search.cluster import Placement
from search.config import SearchConfig
from search.journal import Event, Journal, SearchState, Trial
from search.schedulers import make_scheduler
from search.searchers import make_searcher, trial_seed
from search.stopping import Deadline
from search.store import SearchFolder
from trainables import get_task
from trainables.task import Splits
from trainables.trainable import TaskTrainable

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

#: Told of every event, after it is in the journal and in the state.
Listener = Callable[[Event, SearchState], None]


class Search:
    """One search in this process: its journal, the state it adds up to, and what proposes and decides.

    Live and after a kill the same code runs over the same events, so both come to the same state.
    """

    def __init__(self, config: SearchConfig, folder: SearchFolder) -> None:
        """Opens the journal and replays what it holds; raises InputError as `Journal` does."""
        self.config, self.folder = config, folder
        self.objective = get_task(config.task).objective
        self.searcher, self.total = make_searcher(config, self.objective)
        self.scheduler = make_scheduler(config)
        self.state = SearchState(self.objective)
        self.journal = Journal(folder.journal)
        self.listeners: list[Listener] = []
        self.stopping: str | None = None
        for event in self.journal.events:
            self.state.apply(event)
            if event["event"] == "trial":
                self.searcher.replay(self.state.trials[event["number"]])
            self._after(event)

    def record(self, event: Event) -> None:
        """Journal, state, searcher, then everyone who listens."""
        event = self.journal.append(event)
        self.state.apply(event)
        self._after(event)
        for listener in self.listeners:
            listener(event, self.state)

    def _after(self, event: Event) -> None:
        """What an event means for the searcher and the rungs, live or replayed."""
        kind = event["event"]
        if kind == "result" and event["outcome"] != "diverged":
            self.scheduler.record(event["number"], event["epoch"], self._loss(event["metrics"]))
        if kind in ("result", "failed"):
            trial = self.state.trials[event["number"]]
            if trial.outcome == "diverged":
                self.scheduler.remove(trial.number)
            if trial.over:
                self.searcher.tell(trial)

    def _loss(self, metrics: dict[str, float]) -> float:
        return self.objective.loss(metrics[f"val_{self.objective.metric}"])

    def propose(self) -> Trial | None:
        """The next new trial, or None when the search has them all or is stopping."""
        number = len(self.state.trials)
        if number >= self.total or self.stopping:
            return None
        params = self.searcher.ask(number)
        self.record({"event": "trial", "number": number, "params": params,
                     "seed": trial_seed(self.config.search.seed, number)})  # fmt: skip
        return self.state.trials[number]

    def report(self, number: int, epoch: int, metrics: dict[str, float], diverged: str | None, device: str) -> bool:
        """Takes a trial's epoch in; returns whether the trial is to stop.

        An epoch that is known already was trained again after a failure: its first record stands.
        """
        trial = self.state.trials[number]
        if epoch not in trial.curve:
            outcome = None
            if diverged:
                outcome = "diverged"
            elif epoch >= self.config.search.epochs:
                outcome = "completed"
            elif self.scheduler.should_stop(number, epoch, self._loss(metrics)):
                outcome = "stopped_early"
            self.record({"event": "result", "number": number, "epoch": epoch, "metrics": metrics,
                         "outcome": outcome, "diverged": diverged, "device": device})  # fmt: skip
        elif epoch < trial.epoch:
            return False
        return trial.over

    def stop(self, why: str) -> None:
        """No new trials; running ones finish their epoch. `why` is `interrupted` or `time budget`."""
        if self.stopping != "interrupted":
            self.stopping = why
            for listener in self.listeners:
                listener({"event": "stopping", "why": why}, self.state)

    def end(self, status: str) -> None:
        """Closes the session: what still ran is interrupted, and the rungs are told as they stand."""
        for trial in self.state.unfinished():
            if trial.outcome is None:
                self.record({"event": "interrupted", "number": trial.number})
        self.record({"event": "ended", "status": status, "rungs": self.scheduler.rungs()})
        self.journal.close()


def run_trials(search: Search, splits: Splits, placement: Placement) -> None:
    """Runs what is not over yet, and new trials up to the total, on Ray.

    Returns when every trial is over, or when the search was told to stop and each running trial has finished its
    epoch and is on disk.
    """
    config, folder = search.config, search.folder
    if search.total == sum(t.over for t in search.state.trials.values()):
        return
    trainable = tune.with_parameters(
        TaskTrainable,
        task=config.task,
        splits=splits.for_search(),
        epochs=config.search.epochs,
        resources={"cpus": placement.cpus, "gpus": placement.gpus, "precision": config.resources.precision},
    )
    bridge = _Bridge(search, placement.concurrency)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": placement.cpus, "gpu": placement.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=_Proposals(bridge),
            scheduler=_Decisions(bridge),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda t: f"{config.task}-{folder.name}-{t.config['number']:04d}",
            trial_dirname_creator=lambda t: f"{t.config['number']:04d}",
        ),
        run_config=tune.RunConfig(
            name=f"session-{search.state.sessions:02d}",
            storage_path=str(folder.checkpoints),
            callbacks=[_Notices(bridge)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=config.search.max_failures),
            stop=_WhenStopping(bridge),
            verbose=0,
        ),
    )
    with Deadline(search.stop, config.time_budget_s):
        tuner.fit()


class _Bridge:
    """What Tune's searcher, scheduler and callback share: which trials are live in this session."""

    def __init__(self, search: Search, concurrency: int) -> None:
        self.search, self.concurrency = search, concurrency
        self.live: set[str] = set()
        self.waiting = [t for t in search.state.trials.values() if not t.over]

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its tuner for its own restore, which is never used here: the journal is the state.
        return (object, ())

    def next_config(self) -> dict[str, Any] | None:
        """A trial to take up or a new one, as `TaskTrainable` reads it."""
        if self.search.stopping:
            return None
        trial = self.waiting.pop(0) if self.waiting else self.search.propose()
        if trial is None:
            return None
        paths = [path for _, path in reversed(trial.checkpoints) if Path(path).is_dir()]
        return {"number": trial.number, "params": trial.params, "seed": trial.seed, "resume_from": paths}

    @property
    def exhausted(self) -> bool:
        return not self.waiting and len(self.search.state.trials) >= self.search.total


class _Proposals(TuneSearcher):
    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self.bridge = bridge

    def suggest(self, trial_id: str) -> Any:
        if self.bridge.exhausted or self.bridge.search.stopping:
            return TuneSearcher.FINISHED
        if len(self.bridge.live) >= self.bridge.concurrency:
            return None
        config = self.bridge.next_config()
        if config is None:
            return TuneSearcher.FINISHED
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

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        number = trial.config["number"]
        metrics = {key[8:]: value for key, value in result.items() if key.startswith("metrics/")}
        stop = self.bridge.search.report(number, result["epoch"], metrics, result["diverged"], result["device"])
        # A trial that stops with the search still saves this epoch first: its checkpoint is already due.
        return TrialScheduler.STOP if stop or self.bridge.search.stopping else TrialScheduler.CONTINUE


class _Notices(tune.Callback):
    def __init__(self, bridge: _Bridge) -> None:
        self.bridge = bridge

    def on_checkpoint(self, iteration: int, trials: Any, trial: TuneTrial, checkpoint: Any, **info: Any) -> None:
        search = self.bridge.search
        record = search.state.trials[trial.config["number"]]
        if record.outcome == "diverged":
            return
        epoch = trial.last_result["epoch"]
        search.record({"event": "checkpoint", "number": record.number, "epoch": epoch, "path": checkpoint.path})
        _drop_checkpoints(record, keep={epoch, record.best_epoch})

    def on_trial_recover(self, iteration: int, trials: Any, trial: TuneTrial, **info: Any) -> None:
        self.bridge.search.record({"event": "retry", "number": trial.config["number"], "traceback": _traceback(trial)})

    def on_trial_error(self, iteration: int, trials: Any, trial: TuneTrial, **info: Any) -> None:
        self.bridge.search.record({"event": "failed", "number": trial.config["number"], "traceback": _traceback(trial)})


class _WhenStopping(Stopper):
    """Ends Tune's loop once the search is stopping and no trial is inside an epoch."""

    def __init__(self, bridge: _Bridge) -> None:
        self.bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(self.bridge.search.stopping) and not self.bridge.live


def _traceback(trial: TuneTrial) -> str:
    """The trial's latest error, from the file that Tune appends each one to."""
    try:
        latest = Path(trial.error_file).read_text().split("Failure # ")[-1]
        return _COLOURS.sub("", latest.partition("\n")[2]).strip()
    except (OSError, TypeError):
        return "no traceback: the worker died without one"


def _drop_checkpoints(trial: Trial, keep: set[int | None]) -> None:
    """Deletes all but these epochs' checkpoints; the last and the best are what a running trial needs."""
    for epoch, path in trial.checkpoints:
        if epoch not in keep:
            shutil.rmtree(path, ignore_errors=True)
    trial.checkpoints = [(epoch, path) for epoch, path in trial.checkpoints if epoch in keep]


def prune_checkpoints(search: Search) -> None:
    """After a finished search: only the best `keep_checkpoints` trials keep theirs."""
    kept = {t.number for t in search.state.ranked()[: search.config.search.keep_checkpoints]}
    for trial in search.state.trials.values():
        if trial.number not in kept and trial.over:
            _drop_checkpoints(trial, keep=set())
            for folder in search.folder.checkpoints.glob(f"session-*/{trial.number:04d}"):
                shutil.rmtree(folder, ignore_errors=True)
