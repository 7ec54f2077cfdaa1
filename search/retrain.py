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
        KeyboardInterrupt: the search was told to stop; a resume goes on with this training after its last epoch.
    """
    best = search.state.best()
    if best is None:
        raise InputError(f"{search.folder.name}: no trial succeeded, so there is no configuration to train")
    cpus = placement.cpus
    if not placement.gpus:  # alone, the final training may use what trials shared, as far as one machine has it
        largest = max(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
        cpus = max(cpus, min(cpus * placement.concurrency, largest))
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
            search.config.task, shared, params, best.micro_batches,
            trial_seed(search.config.search.seed, _FINAL + seed), search.config.search.epochs, best.best_epoch,
            resources, search.folder.final(seed), search.folder.final_progress(seed, best.number, best.best_epoch),
        )  # fmt: skip
        while True:
            # An epoch may take an hour; whoever wants to stop does not wait for it.
            if search.cut_off:
                raise KeyboardInterrupt
            if not ray.wait([stream], timeout=0.5)[0]:
                continue
            try:
                message = ray.get(next(stream))
            except StopIteration:
                break
            # An epoch that an earlier, killed final training recorded already keeps its first record.
            if message["event"] != "final_result" or message["epoch"] not in search.state.finals[seed].curve:
                search.record({**message, **which})
    return best


def _train(
    name: str, splits: Splits, params: Params, micro_batches: int, seed: int, horizon: int, epochs: int,
    resources: dict[str, Any], folder: Path, progress: Path,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yields each epoch's metrics, then the test's, once everything is on disk.

    Args:
        horizon: epochs that the schedule was laid out for in the search, of which `epochs` are trained.
        progress: where the state after each epoch is kept, to go on from after a kill.
    """
    task = get_task(name)
    device = training.choose_device(**resources)
    everything = task.merge(splits)
    training.seed_everything(seed)
    learner = task.build(params, replace(splits, train=everything, val=None), horizon, device)
    learner.micro_batches = micro_batches
    if progress.exists():
        training.load(learner, progress)
        # Not `yield from`: Ray sends into its generators, which a list cannot take.
        for result in learner.notes["results"]:  # the driver may have been killed before it heard of the last
            yield result
    while learner.epoch < epochs:
        metrics = training.run_epoch(task, learner, everything, None)
        said = {"samples": task.samples(learner)} if isinstance(task, Sampling) else {}
        result = {"event": "final_result", "epoch": learner.epoch, "metrics": metrics, **said}
        learner.notes.setdefault("results", []).append(result)
        training.save(learner, progress)
        yield result
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
    progress.unlink()
    yield {"event": "final_finished", "test": test, "baselines": task.baselines(splits), "device": device.name}
