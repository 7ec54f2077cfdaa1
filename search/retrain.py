"""Final training: the best configurations on train and validation together, tested once for each seed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

from search import finalists
from search.cluster import Placement, machines
from search.engine import Search
from search.searchers import trial_seed
from search.sharing import storage
from search.state import FinalRun, Trial
from search.streams import follow, remote, train_resumably
from trainables import get_task, training
from trainables.files import replacing
from trainables.storage import Storage
from trainables.task import Bootstrapped, InputError, Params, Sampling, Splits

#: Seeds of final runs are drawn apart from those of trials.
_FINAL = 1_000_000


def retrain(search: Search, splits: Splits, placement: Placement, seeds: int, count: int = 1) -> None:
    """Trains the `count` best trials' configurations, each for the epoch count that was best, with `seeds` seeds.

    What is done already is not trained again. Each ends as `final/trial-N-seed-S/` with `model/`, `artifacts/`,
    a checkpoint to train on from, an input example and its predictions. Several finalists are then compared.

    Raises:
        InputError: no trial succeeded, so there is nothing to train.
        KeyboardInterrupt: the search was told to stop; a resume goes on with each training after its last epoch.
    """
    state, folder = search.state, search.folder
    chosen = state.ranked()[:count]
    if not chosen:
        raise InputError(f"{folder.name}: no trial succeeded, so there is no configuration to train")
    missing: list[FinalRun] = []
    for seed in range(seeds):
        for trial in chosen:
            known = state.finals.get((trial.number, seed))
            if known is None or known.test is None or known.epochs != trial.best_epoch:
                missing.append(FinalRun(seed, trial.number, state.params_again(trial), trial.best_epoch))
    at_once = max(1, min(placement.concurrency, len(missing)))
    cpus = placement.cpus
    if not placement.gpus:  # few may use what many trials shared, as far as one machine has it
        largest = max(cores for cores, _ in machines())
        cpus = max(cpus, min(cpus * (placement.concurrency // at_once), largest))
    resources = {"cpus": cpus, "gpus": placement.gpus, "precision": search.config.resources.precision}
    shared = ray.put(splits)
    train = remote(search, _train, replace(placement, cpus=cpus), "final")

    def start(run: FinalRun) -> Any:
        which = {"trial": run.trial, "seed": run.seed, "epochs": run.epochs}
        search.record({"event": "final_started", **which, "params": run.params})
        return train.remote(
            search.config.task, shared, run.params, state.trials[run.trial].micro_batches,
            trial_seed(search.config.search.seed, _FINAL + run.seed), search.config.search.epochs, run.epochs,
            resources, f"final/{folder.final(run.trial, run.seed).name}", progress(run),
            storage(search, [progress(run)]),
        )  # fmt: skip

    for position, message in follow(search, [partial(start, run) for run in missing], at_once):
        run = missing[position]
        # An epoch that an earlier, killed final training recorded already keeps its first record.
        if message["event"] == "final_result" and message["epoch"] in state.finals[run.trial, run.seed].curve:
            continue
        if message["event"] == "final_finished":
            message |= {"chosen": count == 1 and run.seed == 0, "spent": state.epochs_trained()}
        search.record({**message, "trial": run.trial, "seed": run.seed, "epochs": run.epochs})
        if message["event"] == "final_finished":
            search.files.delete(progress(run))
    if len(chosen) > 1:
        _decide(search, chosen)


def _decide(search: Search, best: list[Trial]) -> None:
    """Compares the finalists over the seeds that all of them have, and tells it in words."""
    state, task = search.state, get_task(search.config.task)
    seeds = min(len(state.tested(trial.number)) for trial in best)
    runs = {trial.number: state.tested(trial.number)[:seeds] for trial in best}
    resampled = None
    if isinstance(task, Bootstrapped):
        units = [np.load(search.folder.final(r.trial, r.seed) / "units.npy") for group in runs.values() for r in group]
        of_all = finalists.resample(units, task.objective_of).reshape(len(best), seeds, -1)
        resampled = dict(zip(runs, of_all, strict=True))
    test = {n: np.array([r.test[search.objective.metric] for r in group if r.test]) for n, group in runs.items()}
    validation = {trial.number: trial.best_value for trial in best}
    decision = finalists.decide(validation, test, resampled, search.objective)
    lines = [*finalists.table(decision, search.objective.metric), "", finalists.words(decision, search.objective), ""]
    with replacing(search.folder.decision) as file:
        file.write("\n".join(lines).encode())
    if not state.decision or any(state.decision[key] != value for key, value in decision.items()):
        model = state.finals[decision["champion"], 0]
        about = {"epochs": model.epochs, "test": model.test, "spent": state.epochs_trained()}
        search.record({"event": "decided", **decision, **about})


def progress(run: FinalRun) -> str:
    """The file of a final training's state until it is done."""
    return f"final/trial-{run.trial:04d}-seed-{run.seed}-epochs-{run.epochs}.pt"


def _train(
    name: str, splits: Splits, params: Params, micro_batches: int, seed: int, horizon: int, epochs: int,
    resources: dict[str, Any], target: str, progress: str, storage: Storage,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yields each epoch's metrics, then the test's, once everything is on disk.

    Args:
        horizon: epochs that the schedule was laid out for in the search, of which `epochs` are trained.
        target: the folder that it ends in.
        progress: the file where the state after each epoch is kept, to go on from after a kill.
    """
    task = get_task(name)
    device = training.choose_device(**resources)
    everything = task.merge(splits)
    training.seed_everything(seed)
    learner = task.build(params, replace(splits, train=everything, val=None), horizon, device)
    learner.micro_batches = micro_batches

    def epoch() -> dict[str, Any]:
        metrics = training.run_epoch(task, learner, everything, None)
        samples = {"samples": task.samples(learner)} if isinstance(task, Sampling) else {}
        return {"event": "final_result", "epoch": learner.epoch, "metrics": metrics, **samples}

    yield from train_resumably(learner, epochs, storage, progress, epoch)
    test = task.evaluate(learner, splits.test)

    folder = storage.folder / target
    part = folder.with_name(f"{folder.name}.part") if storage.sees_folder else Path(tempfile.mkdtemp())
    shutil.rmtree(part, ignore_errors=True)
    (part / "model").mkdir(parents=True)
    (part / "artifacts").mkdir()
    task.artifacts(learner, splits.test, splits.info, part / "artifacts")
    task.export(learner, splits.info, part / "model")
    training.save(learner, part / "checkpoint.pt")
    example = task.example(splits.test, splits.info)
    example.to_parquet(part / "example.parquet")
    if isinstance(task, Bootstrapped):
        np.save(part / "units.npy", task.units(learner, splits.test))
    task.predict(task.load(part / "model"), example).to_parquet(part / "predictions.parquet")
    files = {}
    if storage.sees_folder:
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    else:
        written = [path for path in part.rglob("*") if path.is_file()]
        files = {f"{target}/{path.relative_to(part).as_posix()}": path.read_bytes() for path in written}
        shutil.rmtree(part)
    about = {"test": test, "baselines": task.baselines(splits), "device": device.name}
    yield {"event": "final_finished", **about, "files": files}
