"""Trains the best trial of each variant (a value of `search.balance`) again with several seeds, and compares them."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pandas as pd

from search.core.events import RepeatEvent, RepeatStarted
from search.core.seeds import trial_seed
from search.core.space import Plain
from search.core.state import Trial
from search.final import variant_comparison as comparison
from search.runtime.placement import Placement
from search.runtime.remote import is_recorded, run_jobs
from search.runtime.search import Search
from trainables import Diverged, Fusable, Params, SelfTrained, Splits, Traced, get_task
from trainables.base import checkpoint_files, fused, training
from trainables.base.device import choose_device
from trainables.base.errors import first_line
from trainables.base.files import replacing
from trainables.base.fused import Member

#: Added to the number of a seed: so repeats have other random numbers than trials and final trainings.
_REPEAT = 2_000_000


def compare_variants(search: Search, splits: Splits, placement: Placement, seeds: int) -> None:
    """Trains the repeats and writes their comparison; nothing without several balanced values, or with 0 `seeds`."""
    config, state = search.config, search.state
    if not seeds or len(config.balanced) < 2:
        return
    train_repeats(search, splits, placement, seeds)
    if not state.compared:
        name, repeats = str(config.search.balance), list(state.repeats.values())
        comparison.write_variant_comparison(search.folder.comparison, repeats, _errors(search), name, search.objective)
        search.record({"event": "compared"})


def train_repeats(search: Search, splits: Splits, placement: Placement, seeds: int) -> None:
    """Trains the best configuration of each variant with `seeds` seeds; finished repeats are not trained again.

    A repeat trains on the training split alone and for all epochs, so that training and validation can be compared.
    The weights of its best epoch on validation are tested.

    Raises:
        KeyboardInterrupt: the search was stopped; a resume trains unfinished repeats from the beginning.
    """
    config = search.config
    jobs: list[tuple[Trial, list[int]]] = []
    for value in config.balanced:
        best = search.state.best(config.search.balance, value)
        if best is None:
            continue
        done = {r.seed for r in search.state.repeats.values() if r.trial == best.number and r.test is not None}
        missing = [seed for seed in range(seeds) if seed not in done]
        task = search.task
        together = isinstance(task, Fusable) and task.shape(best.params) is not None
        jobs += [(best, seeds) for seeds in ([missing] if together else [[seed] for seed in missing]) if seeds]
    balance = str(config.search.balance)

    def arguments(job: tuple[Trial, list[int]]) -> tuple[Any, ...]:
        best, seeds = job
        params = search.state.params_again(best)
        search.record(*(
            RepeatStarted(event="repeat_started", value=params[balance], trial=best.number, seed=seed, params=params)
            for seed in seeds
        ))  # fmt: skip
        generators = [trial_seed(config.search.seed, _REPEAT + seed) for seed in seeds]
        return best.number, params, list(zip(seeds, generators, strict=True)), config.search.epochs

    run_jobs(
        search, splits, placement, "repeat", jobs, repeats_worker, arguments,
        lambda job, messages: _record_repeats(search, job[0], messages),
        lambda job: f"the repeats of trial {job[0].number} with the seeds {', '.join(map(str, job[1]))}",
    )  # fmt: skip


def _record_repeats(search: Search, best: Trial, messages: list[dict[str, Any]]) -> None:
    """Writes the errors on the test samples to files, and records the other fields of the messages."""
    value = best.params[str(search.config.search.balance)]
    for message in messages:
        errors = message.pop("errors", None)
        if errors is not None:
            with replacing(search.folder.errors(best.number, message["seed"])) as file:
                errors.to_parquet(file)
    repeats = search.state.repeats
    search.record(*(
        cast(RepeatEvent, {**message, "value": value, "trial": best.number})
        for message in messages
        if not is_recorded(message, repeats[value, message["seed"]].curve)
    ))  # fmt: skip


def repeats_worker(
    name: str, splits: Splits, resources: dict[str, Any], trial: int, params: Params, seeds: list[tuple[int, int]],
    epochs: int,
) -> Iterator[list[dict[str, Any]]]:  # fmt: skip
    """Runs on a worker. Yields the metrics of all seeds after each epoch, then the test metrics of each seed.

    A seed that diverges yields nothing more.

    Args:
        trial: the number of the trial whose configuration is trained.
        seeds: the number of each seed, and the seed of its random generators.
    """
    task = get_task(name)
    device = choose_device(**resources)
    running: dict[int, Member] = {}
    best: dict[int, tuple[float, int, Any]] = {}
    for seed, generator in seeds:
        training.seed_everything(generator)
        learner = task.build(params, splits, epochs, device)
        if isinstance(task, SelfTrained):
            task.place(learner, trial, Path(tempfile.mkdtemp(prefix="repeat-")))
        running[seed] = Member(learner, training.rng_state())
    for epoch in range(1, epochs + 1):
        try:
            outcomes = fused.run_epoch(task, list(running.values()), splits.train, splits.val) if running else []
        except training.Ended:  # a training of the user, which is alone in its worker
            break
        results = []
        for (seed, member), metrics in zip(list(running.items()), outcomes, strict=True):
            loss = math.nan
            if not isinstance(metrics, Diverged):
                loss = task.objective.val_loss(metrics)
                results.append({"event": "repeat_result", "seed": seed, "epoch": epoch, "metrics": metrics})
            if not math.isfinite(loss):
                del running[seed]
            elif seed not in best or loss < best[seed][0]:
                best[seed] = (loss, epoch, _kept(task, member.learner))
        yield results
    generators = dict(seeds)
    for seed, member in running.items():
        _, epoch, kept = best[seed]
        learner = member.learner
        if isinstance(task, SelfTrained):
            learner = _trained_again(task, splits, learner, epoch, generators[seed], kept)
        else:
            learner.model.load_state_dict(kept)
        yield [
            {
                "event": "repeat_finished",
                "seed": seed,
                "best_epoch": epoch,
                "parameters": learner.parameters,
                "test": task.evaluate(learner, splits.test),
                "errors": task.errors(learner, splits.test) if isinstance(task, Traced) else None,
            }
        ]


def _kept(task: Any, learner: Any) -> Any:
    """What is kept of the best epoch: the weights, or the checkpoint of a training of the user."""
    if not isinstance(task, SelfTrained):
        return {key: tensor.clone() for key, tensor in learner.model.state_dict().items()}
    training.write(learner, file := io.BytesIO())
    folder = None
    if files := training.files_of(learner):
        folder = tempfile.TemporaryDirectory(prefix="repeat-")  # it is deleted with the last reference to it
        checkpoint_files.link(checkpoint_files.flat(files), Path(folder.name))
    return file.getvalue(), folder


def _trained_again(task: Any, splits: Splits, trained: Any, epochs: int, generator: int, kept: Any) -> Any:
    """A training of the user with the state of its best epoch, at its end: only then it can be tested.

    A training without parts trains its epochs again. A command trains again by its final command, which tests.
    """
    trained.end()
    own = splits if trained.code.command is None else replace(splits, train=task.merge(splits))
    training.seed_everything(generator)
    learner = task.build(trained.params, own, epochs, trained.device)
    task.place(learner, trained.trial.number, Path(tempfile.mkdtemp(prefix="repeat-")))
    if trained.code.command is None:
        content, folder = kept
        training.load(learner, io.BytesIO(content), None if folder is None else Path(folder.name))
    training.finish(task, learner, own.train)
    return learner


def _errors(search: Search) -> dict[tuple[Plain, int], pd.DataFrame]:
    """The errors on the test samples of each repeat whose file exists and is sound."""
    errors = {}
    for key, repeat in search.state.repeats.items():
        path = search.folder.errors(repeat.trial, repeat.seed)
        if repeat.test and path.exists():
            try:
                errors[key] = pd.read_parquet(path)
            except (OSError, ValueError) as error:  # pyarrow's errors are subclasses of these
                search.announce({"event": "damaged", "file": str(path), "why": first_line(error)})
    return errors
