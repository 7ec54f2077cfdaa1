"""Runs a search's trials on Ray Tune, which says what ended and asks what comes next; the search decides."""

from __future__ import annotations

import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher as TuneSearcher
from ray.tune.stopper import Stopper

from search.cluster import Placement
from search.engine import Search
from search.journal import Trial
from search.stopping import Deadline
from trainables import get_task
from trainables.task import Fusable, Splits
from trainables.trainable import TaskTrainable

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


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
    # Tune would let one worker after the other start; importing torch, each takes seconds.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(placement.concurrency)
    bridge = _Bridge(search, placement.concurrency)
    tuner = tune.Tuner(
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
            name=f"session-{search.state.sessions:02d}",
            storage_path=str(folder.checkpoints),
            callbacks=[_Notices(bridge)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, checkpoint_at_end=False),
            stop=_WhenStopping(bridge),
            verbose=0,
        ),
    )
    with Deadline(search.stop, config.time_budget_s):
        tuner.fit()


class _Bridge:
    """What Tune's searcher, scheduler and callback share: what is live in this session, and what comes next."""

    def __init__(self, search: Search, concurrency: int) -> None:
        self.search, self.concurrency = search, concurrency
        self.live: set[str] = set()
        self.waiting = [t for t in search.state.trials.values() if not t.over]
        #: Trials whose group failed: which one was the cause shows when each runs alone.
        self.alone: set[int] = set()
        self._launched = 0

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its tuner for its own restore, which is never used here: the journal is the state.
        return (object, ())

    def next_config(self) -> dict[str, Any] | None:
        """Trials to take up, or new ones, as `TaskTrainable` reads them; None where there is none now."""
        group = self._next_group()
        if not group:
            return None
        self._launched += 1  # in the name: a trial that is taken up again must not write over its checkpoints
        name = f"{group[0].number:04d}" + (f"+{len(group) - 1}" if len(group) > 1 else "") + f"-{self._launched}"
        return {
            "name": name,
            "trials": [
                {
                    "number": trial.number,
                    "params": trial.params,
                    "seed": trial.seed,
                    "resume_from": [path for _, path in reversed(trial.checkpoints) if Path(path).is_file()],
                }
                for trial in group
            ],
        }

    def _next_group(self) -> list[Trial]:
        """The trial whose turn it is, with up to `fuse - 1` more of its shape."""
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
            # No more than leaves work for everyone who runs at the same time.
            group = alike[: min(fuse, math.ceil(len(alike) / (self.concurrency - len(self.live))))]
        self.waiting = [t for t in self.waiting if t not in group]
        return group

    def failed(self, trial: TuneTrial) -> None:
        """A single trial is taken up again or has failed; a group is taken apart."""
        numbers = [t["number"] for t in trial.config["trials"]]
        left = [self.search.state.trials[n] for n in numbers if not self.search.state.trials[n].over]
        if len(numbers) > 1:
            self.search.announce({"event": "apart", "numbers": numbers, "traceback": _traceback(trial)})
            self.alone.update(numbers)
            self.waiting = left + self.waiting
        elif left and self.search.fail(numbers[0], _traceback(trial)):
            self.waiting = left + self.waiting

    @property
    def exhausted(self) -> bool:
        """Whether nothing runs and nothing is left to run; what runs may still fail and be taken up again."""
        search = self.search
        return not self.live and (
            bool(search.stopping) or (not self.waiting and len(search.state.trials) >= search.total)
        )


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

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        search = self.bridge.search
        over = search.report(result["trials"], result["device"])
        # A trial that stops with the search still saves this epoch first: its checkpoint is already due.
        if search.stopping or all(search.state.trials[t["number"]].over for t in trial.config["trials"]):
            return TrialScheduler.STOP
        if over:  # calls of one driver reach an actor in their order, so this one comes before the next step
            trial.temporary_state.ray_actor.drop.remote(sorted(over))
        return TrialScheduler.CONTINUE


class _Notices(tune.Callback):
    def __init__(self, bridge: _Bridge) -> None:
        self.bridge = bridge

    def on_checkpoint(self, iteration: int, trials: Any, trial: TuneTrial, checkpoint: Any, **info: Any) -> None:
        search = self.bridge.search
        saved = {t["number"]: t["epoch"] for t in trial.last_result["trials"]}
        keep = {number: epoch for number, epoch in saved.items() if search.state.trials[number].outcome != "diverged"}
        search.record(
            *(
                {"event": "checkpoint", "number": n, "epoch": e, "path": str(Path(checkpoint.path) / f"{n:04d}.pt")}
                for n, e in keep.items()
            )
        )
        for number, epoch in keep.items():
            record = search.state.trials[number]
            _drop_checkpoints(record, keep={epoch, record.best_epoch})

    def on_trial_error(self, iteration: int, trials: Any, trial: TuneTrial, **info: Any) -> None:
        self.bridge.failed(trial)


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
            Path(path).unlink(missing_ok=True)
            if not any(Path(path).parent.glob("*.pt")):
                shutil.rmtree(Path(path).parent, ignore_errors=True)
    trial.checkpoints = [(epoch, path) for epoch, path in trial.checkpoints if epoch in keep]


def prune_checkpoints(search: Search) -> None:
    """After a finished search: only the best `keep_checkpoints` trials keep theirs."""
    kept = {t.number for t in search.state.ranked()[: search.config.search.keep_checkpoints]}
    for trial in search.state.trials.values():
        if trial.number not in kept and trial.over:
            _drop_checkpoints(trial, keep=set())
    left = {Path(path).parents[1] for trial in search.state.trials.values() for _, path in trial.checkpoints}
    for folder in search.folder.checkpoints.glob("session-*/*/"):
        if folder not in left:
            shutil.rmtree(folder, ignore_errors=True)
