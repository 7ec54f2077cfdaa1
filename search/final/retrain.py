"""Final training: trains the best configurations on train and validation together, and tests each model once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from search.core.events import FinalEvent
from search.core.seeds import trial_seed
from search.core.state import FinalRun, SearchState, Trial, final_name, final_progress
from search.final import finalist_comparison
from search.runtime.checkpoint_cleanup import sound_checkpoint
from search.runtime.placement import Placement
from search.runtime.remote import is_recorded, run_jobs, train_resumably
from search.runtime.search import Search
from search.runtime.transfer import storage
from trainables import (
    Baselined,
    Bootstrapped,
    Exported,
    Illustrated,
    InputError,
    Learner,
    Mergeable,
    Params,
    Sampling,
    SelfTrained,
    Splits,
    get_task,
)
from trainables.base import training
from trainables.base.checkpoints import Storage
from trainables.base.device import choose_device
from trainables.base.digests import check_all, digest
from trainables.base.errors import Damaged
from trainables.base.files import replacing

#: Added to the number of a seed: so final trainings have other random numbers than the trials.
_FINAL = 1_000_000


def train_final_models(
    search: Search, splits: Splits, placement: Placement, seeds: int, count: int = 1, merged: bool = True,
    planned: int | None = None,
) -> None:  # fmt: skip
    """Trains the configurations of the `count` best trials with `seeds` seeds each, and compares several finalists.

    The number of epochs is the one that was best in the search (`Trial.steady`). A finished training is not repeated.
    Each training writes the folder `SearchFolder.final`: `model/`, `artifacts/`, a checkpoint, an example of the input
    and the predictions for it.

    Args:
        merged: True: train on train and validation together. False: train nothing; test and write the model of the best
            trial's best epoch.
        planned: the number of epochs if the time budget sets it.

    Raises:
        InputError: no trial succeeded.
        KeyboardInterrupt: the search was stopped; a resume continues each training after its last epoch.
    """
    state, folder = search.state, search.folder
    candidates = state.finalists(search.config.window if merged else 1)[:count]
    chosen, epochs = [trial for trial, _ in candidates], {trial.number: epoch for trial, epoch in candidates}
    if not chosen:
        raise InputError(f"{folder.name}: no trial succeeded, so there is no configuration to train")
    own = None if merged else sound_checkpoint(search, chosen[0], chosen[0].best_epoch)
    if not merged and own is None:
        # Its checkpoint is damaged, or was deleted for lack of space: the model has to be trained again.
        return train_final_models(search, splits, placement, seeds, count)
    for trial in chosen if merged else ():
        known = state.finals.get((trial.number, 0))
        begun = known.epochs if known and known.merged else 0
        # A training that was begun keeps its number of epochs: the plan would be different now.
        epochs[trial.number] = begun or planned if planned else max(epochs[trial.number], begun)
    runs = [
        _training(state, trial, seed, epochs[trial.number], merged)
        for seed in range(seeds if merged else 1)
        for trial in chosen
    ]
    missing = [run for run in runs if not _is_done(search, run)]
    at_once = max(1, min(placement.concurrency, len(missing)))

    def arguments(run: FinalRun) -> tuple[Any, ...]:
        search.record({
            "event": "final_started", "trial": run.trial, "seed": run.seed, "epochs": run.epochs,
            "params": run.params, "merged": merged, "folder": run.folder,
        })  # fmt: skip
        states = [(final_progress(run), None), *([(own.name, own.digest)] if own else [])]
        return (
            run.trial, run.params, state.trials[run.trial].micro_batches,
            trial_seed(search.config.search.seed, _FINAL + run.seed), run.epochs, run.folder,
            states, storage(search, [name for name, _ in states]),
        )  # fmt: skip

    def on_message(run: FinalRun, message: dict[str, Any]) -> None:
        if is_recorded(message, state.finals[run.trial, run.seed].curve):
            return
        if message["event"] == "final_finished":
            message |= {"chosen": count == 1 and run.seed == 0, "spent": state.epochs_trained()}
        which = {"trial": run.trial, "seed": run.seed, "epochs": run.epochs, "merged": merged}
        search.record(cast(FinalEvent, {**message, **which}))
        if message["event"] == "final_finished":
            search.files.delete(final_progress(run))

    run_jobs(
        search, splits, replace(placement, cpus=placement.cpus_of(at_once), concurrency=at_once), "final", missing,
        final_worker, arguments, on_message,
        lambda run: f"the final training of trial {run.trial} with seed {run.seed}",
    )  # fmt: skip
    if len(chosen) > 1:
        _compare(search, chosen)


def _training(state: SearchState, trial: Trial, seed: int, epochs: int, merged: bool) -> FinalRun:
    """A final training. It does not replace the files of an earlier one, which MLflow may need again."""
    run = FinalRun(seed, trial.number, state.params_again(trial), epochs, final_name(trial.number, seed), merged)
    earlier = state.finals.get((trial.number, seed))
    if earlier is None:
        return run
    if earlier.test is None or earlier.repeats(run):
        return replace(run, folder=earlier.folder)
    return replace(run, folder=f"{run.folder}-{'epochs' if merged else 'own-epochs'}-{epochs}")


def _is_done(search: Search, run: FinalRun) -> bool:
    """Whether the same training is finished and its model is sound."""
    known = search.state.finals.get((run.trial, run.seed))
    if known is None or known.test is None or not known.repeats(run):
        return False
    lacks_test = isinstance(search.task, SelfTrained) and search.task.tests and not known.tested
    return not lacks_test and not _is_damaged(search, known)


def _is_damaged(search: Search, run: FinalRun) -> bool:
    """Whether a file of a finished model was changed or deleted; the listeners get a `damaged` notice."""
    folder = search.folder.final(run)
    try:
        check_all(folder, run.digests)
    except Damaged as error:
        search.announce({"event": "damaged", "file": error.file, "why": error.why})
        return True
    return False


def _compare(search: Search, best: list[Trial]) -> None:
    """Compares the finalists over the seeds that all of them have; writes `finalists.md` and the event `decided`."""
    state, task = search.state, search.task
    seeds = min(len(state.tested(trial.number)) for trial in best)
    runs = {trial.number: state.tested(trial.number)[:seeds] for trial in best}
    resampled = None
    files = [search.folder.final(run) / "units.npy" for group in runs.values() for run in group]
    if isinstance(task, Bootstrapped) and all(file.exists() for file in files):
        units = [np.load(file) for file in files]
        of_all = finalist_comparison.resample(units, task.objective_of).reshape(len(best), seeds, -1)
        resampled = dict(zip(runs, of_all, strict=True))
    test = {n: np.array([r.test[search.objective.metric] for r in group if r.test]) for n, group in runs.items()}
    validation = {trial.number: trial.best_value for trial in best}
    decision = finalist_comparison.compare_finalists(validation, test, resampled, search.objective)
    table = finalist_comparison.finalists_grid(decision, search.objective.metric).markdown()
    lines = [*table, "", finalist_comparison.finalists_paragraph(decision, search.objective), ""]
    with replacing(search.folder.decision) as file:
        file.write("\n".join(lines).encode())
    recorded = dict(state.decision or {})
    if any(recorded.get(key) != value for key, value in decision.items()):
        model = state.finals[decision["champion"], 0]
        assert model.test is not None  # only tested models are compared
        spent = state.epochs_trained()
        search.record({"event": "decided", **decision, "epochs": model.epochs, "test": model.test, "spent": spent})


def final_worker(
    name: str, splits: Splits, resources: dict[str, Any], trial: int, params: Params, micro_batches: int, seed: int,
    epochs: int, target: str, states: list[tuple[str, str | None]], storage: Storage,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Runs on a worker. Yields the metrics of each epoch, then the test metrics once all files are on disk.

    Args:
        trial: the number of the trial whose configuration is trained.
        epochs: number of epochs; the learning-rate schedule ends with them.
        target: the folder of the result, relative to the folder of the search.
        states: first the file with the state after each epoch, from which a killed training continues. A second file is
            the checkpoint of the trial's own model: then nothing is trained.

    Raises:
        Damaged: nothing is to be trained, and the checkpoint is damaged.
    """
    task = get_task(name)
    device = choose_device(**resources)
    kept, scratch = states[1:], tempfile.TemporaryDirectory(prefix="model-")
    everything = task.merge(splits) if isinstance(task, Mergeable) and not kept else splits.train

    def build() -> Learner:
        training.seed_everything(seed)
        learner = task.build(params, replace(splits, train=everything, val=None), epochs, device)
        learner.micro_batches = micro_batches
        if isinstance(task, SelfTrained):
            own = storage.folder / f"{target}.files" if storage.sees_folder else Path(tempfile.mkdtemp())
            task.place(learner, trial, storage.trial_folder(trial) if kept else own)
        for checkpoint, expected in kept:
            with storage.open_checked(checkpoint, expected) as file:
                training.load(learner, file, storage.others(checkpoint, Path(scratch.name)))
        return learner

    def epoch(learner: Learner) -> dict[str, Any]:
        metrics = training.run_epoch(task, learner, everything, None)
        samples = {"samples": task.samples(learner)} if isinstance(task, Sampling) else {}
        return {"event": "final_result", "epoch": learner.epoch, "metrics": metrics, **samples}

    learner = yield from train_resumably(build, epochs, storage, states[:1], epoch)
    training.finish(task, learner, everything)
    test = task.evaluate(learner, splits.test)

    folder = storage.folder / target
    part = folder.with_name(f"{folder.name}.part") if storage.sees_folder else Path(tempfile.mkdtemp())
    shutil.rmtree(part, ignore_errors=True)
    (part / "artifacts").mkdir(parents=True)
    training.save(learner, part / "checkpoint.pt")
    if isinstance(task, Illustrated):
        task.artifacts(learner, splits.test, splits.info, part / "artifacts")
    if isinstance(task, Exported):
        (part / "model").mkdir()
        example = task.export(learner, splits.info, part / "model")
        example = task.example(splits.test, splits.info) if example is None else example
        if example is not None:
            example.to_parquet(part / "example.parquet")
            task.predict(task.load(part / "model"), example).to_parquet(part / "predictions.parquet")
    units = task.units(learner, splits.test) if isinstance(task, Bootstrapped) else None
    if units is not None:
        np.save(part / "units.npy", units)
    written = {path.relative_to(part).as_posix(): path for path in sorted(part.rglob("*")) if path.is_file()}
    digests, files = {}, {}
    for file, path in written.items():
        if not file.startswith("artifacts/"):  # users may change the pictures; the other files are the model
            with path.open("rb") as opened:
                digests[file] = digest(opened)
    if storage.sees_folder:
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    else:
        files = {f"{target}/{file}": path.read_bytes() for file, path in written.items()}
        shutil.rmtree(part)
    baselines = task.baselines(splits) if isinstance(task, Baselined) else {}
    about = {"test": test, "baselines": baselines, "device": device.name, "digests": digests}
    yield {"event": "final_finished", **about, "files": files}
