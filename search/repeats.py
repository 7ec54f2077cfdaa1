"""The best trial of each balanced value trained again over several seeds: what their comparison stands on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import ray

from search import comparison
from search.cluster import Placement
from search.engine import Search
from search.searchers import trial_seed
from search.space import Plain
from search.state import Trial
from search.streams import follow, remote
from trainables import fused, get_task, training
from trainables.files import replacing
from trainables.fused import Member
from trainables.task import Fusable, Params, Splits, Traced
from trainables.training import Diverged

#: Seeds of repeats are drawn apart from those of trials and final runs.
_REPEAT = 2_000_000


def compare(search: Search, splits: Splits, placement: Placement) -> None:
    """Repeats and their comparison in `comparison/`, where the search balances several values."""
    config, state = search.config, search.state
    if not config.search.compare_seeds or len(config.balanced) < 2:
        return
    repeat(search, splits, placement)
    if not state.compared:
        errors = {key: pd.read_parquet(path) for key, path in _errors(search).items() if path.exists()}
        name, repeats = str(config.search.balance), list(state.repeats.values())
        comparison.write(search.folder.comparison, repeats, errors, name, search.objective)
        search.record({"event": "compared"})


def repeat(search: Search, splits: Splits, placement: Placement) -> None:
    """Trains each value's best configuration with `compare_seeds` seeds, those that are done already left out.

    On train alone and for all epochs, so that train and validation can be told apart; what is tested are the weights
    of the epoch that was best on validation.

    Raises:
        KeyboardInterrupt: the search was told to stop; a resume begins what is not done again.
    """
    config = search.config
    jobs: list[tuple[Trial, list[int]]] = []
    for value in config.balanced:
        best = search.state.best(config.search.balance, value)
        if best is None:
            continue
        done = {r.seed for r in search.state.repeats.values() if r.trial == best.number and r.test is not None}
        missing = [seed for seed in range(config.search.compare_seeds) if seed not in done]
        together = isinstance(get_task(config.task), Fusable)
        jobs += [(best, seeds) for seeds in ([missing] if together else [[seed] for seed in missing]) if seeds]
    if not jobs:
        return
    shared = ray.put(splits)
    resources = {"cpus": placement.cpus, "gpus": placement.gpus, "precision": config.resources.precision}
    train = remote(search, _train, placement, "repeat")

    def start(best: Trial, seeds: list[int]) -> Any:
        params = search.state.params_again(best)
        which = {"value": params[str(config.search.balance)], "trial": best.number, "params": params}
        search.record(*({"event": "repeat_started", **which, "seed": seed} for seed in seeds))
        generators = [trial_seed(config.search.seed, _REPEAT + seed) for seed in seeds]
        names = config.task, shared, params, list(zip(seeds, generators, strict=True))
        return train.remote(*names, config.search.epochs, resources)

    for position, messages in follow(search, [partial(start, *job) for job in jobs], placement.concurrency):
        _take(search, jobs[position][0], messages)


def _take(search: Search, best: Trial, messages: list[dict[str, Any]]) -> None:
    value = best.params[str(search.config.search.balance)]
    for message in messages:
        errors = message.pop("errors", None)
        if errors is not None:
            with replacing(search.folder.errors(best.number, message["seed"])) as file:
                errors.to_parquet(file)
    known = search.state.repeats
    search.record(
        # An epoch that an earlier, killed session recorded already keeps its first record.
        *(
            {**message, "value": value, "trial": best.number}
            for message in messages
            if message["event"] != "repeat_result" or message["epoch"] not in known[value, message["seed"]].curve
        )
    )


def _train(
    name: str, splits: Splits, params: Params, seeds: list[tuple[int, int]], epochs: int, resources: dict[str, Any]
) -> Iterator[list[dict[str, Any]]]:
    """Yields what each epoch gave every seed, then each one's test; a seed that diverges has neither any more.

    Args:
        seeds: the number of each seed, and what its generators start from.
    """
    task = get_task(name)
    device = training.choose_device(**resources)
    running: dict[int, Member] = {}
    best: dict[int, tuple[float, int, dict[str, Any]]] = {}
    for seed, generator in seeds:
        training.seed_everything(generator)
        running[seed] = Member(task.build(params, splits, epochs, device), training.rng_state())
    for epoch in range(1, epochs + 1):
        outcomes = fused.run_epoch(task, list(running.values()), splits.train, splits.val) if running else []
        results = []
        for (seed, member), metrics in zip(list(running.items()), outcomes, strict=True):
            loss = math.nan
            if not isinstance(metrics, Diverged):
                loss = task.objective.val_loss(metrics)
                results.append({"event": "repeat_result", "seed": seed, "epoch": epoch, "metrics": metrics})
            if not math.isfinite(loss):
                del running[seed]
            elif seed not in best or loss < best[seed][0]:
                weights = {key: tensor.clone() for key, tensor in member.learner.model.state_dict().items()}
                best[seed] = (loss, epoch, weights)
        yield results
    for seed, member in running.items():
        _, epoch, weights = best[seed]
        member.learner.model.load_state_dict(weights)
        yield [
            {
                "event": "repeat_finished",
                "seed": seed,
                "best_epoch": epoch,
                "parameters": member.learner.parameters,
                "test": task.evaluate(member.learner, splits.test),
                "errors": task.errors(member.learner, splits.test) if isinstance(task, Traced) else None,
            }
        ]


def _errors(search: Search) -> dict[tuple[Plain, int], Path]:
    return {key: search.folder.errors(r.trial, r.seed) for key, r in search.state.repeats.items() if r.test}
