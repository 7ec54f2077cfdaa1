"""Final training: the best configuration on train and validation together, tested once for each seed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from search.cluster import Placement
from search.engine import Search
from search.journal import FinalRun, Trial
from search.searchers import trial_seed
from trainables import get_task, training
from trainables.task import InputError, Params, Sampling, Splits

#: Seeds of final runs are drawn apart from those of trials.
_FINAL = 1_000_000


def retrain(search: Search, splits: Splits, placement: Placement, seeds: int) -> Trial:
    """Trains the best trial's configuration for the epoch count that was best, with `seeds` seeds.

    A seed that is done already is not trained again. Each ends as `final/seed-N/` with `model/`, `artifacts/`,
    a checkpoint to train on from, an input example and its predictions.

    Raises:
        InputError: no trial succeeded, so there is nothing to train.
        KeyboardInterrupt: the search was told to stop; a resume begins this training again.
    """
    best = search.state.best()
    if best is None:
        raise InputError(f"{search.folder.name}: no trial succeeded, so there is no configuration to train")
    # Alone on this machine, the final training may use what the trials shared.
    cpus = placement.cpus if placement.gpus else placement.cpus * placement.concurrency
    shared, params = ray.put(splits), search.state.params_again(best)
    train = ray.remote(_train).options(  # on a machine of the cluster, as trials are
        num_cpus=cpus,
        num_gpus=placement.gpus,
        num_returns="streaming",
        name=f"{search.config.task}-{search.folder.name}-final",
        max_retries=0,
    )
    resources = {"cpus": cpus, "gpus": placement.gpus, "precision": search.config.resources.precision}
    for seed in range(seeds):
        known = search.state.finals.get(seed)
        wanted = FinalRun(seed, best.number, params, best.best_epoch)
        if known is not None and wanted.same_as(known) and known.test is not None:
            continue
        which = {"seed": seed, "trial": best.number, "epochs": best.best_epoch}
        search.record({"event": "final_started", **which, "params": params})
        stream = train.remote(
            search.config.task, shared, params, trial_seed(search.config.search.seed, _FINAL + seed),
            search.config.search.epochs, best.best_epoch, resources, search.folder.final(seed),
        )  # fmt: skip
        for reference in stream:
            message = ray.get(reference)
            # An epoch that an earlier, killed final training recorded already keeps its first record.
            if message["event"] != "final_result" or message["epoch"] not in search.state.finals[seed].curve:
                search.record({**message, **which})
            if search.stopping == "interrupted":
                raise KeyboardInterrupt
    return best


def _train(
    name: str, splits: Splits, params: Params, seed: int, horizon: int, epochs: int,
    resources: dict[str, Any], folder: Path,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yields each epoch's metrics, then the test's, once everything is on disk.

    Args:
        horizon: epochs that the schedule was laid out for in the search, of which `epochs` are trained.
    """
    task = get_task(name)
    device = training.choose_device(**resources)
    training.seed_everything(seed)
    everything = task.merge(splits)
    learner = task.build(params, replace(splits, train=everything, val=None), horizon, device)
    for _ in range(epochs):
        metrics = training.run_epoch(task, learner, everything, None)
        said = {"samples": task.samples(learner)} if isinstance(task, Sampling) else {}
        yield {"event": "final_result", "epoch": learner.epoch, "metrics": metrics, **said}
    test = task.evaluate(learner, splits.test)

    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "model").mkdir(parents=True)
    (part / "artifacts").mkdir()
    task.artifacts(learner, splits.test, splits.info, part / "artifacts")
    task.export(learner, splits.info, part / "model")
    training.save(learner, part / "checkpoint.pt")
    example = task.example(splits.test, splits.info)
    example.to_parquet(part / "example.parquet")
    task.predict(task.load(part / "model"), example).to_parquet(part / "predictions.parquet")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    yield {"event": "final_finished", "test": test, "baselines": task.baselines(splits), "device": device.name}
