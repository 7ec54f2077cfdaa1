"""Audits early stopping: trains some of the stopped trials for all epochs and asks whether one would have won."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from search.core.events import AuditEvent
from search.core.readable import figure
from search.core.state import SearchState, Trial
from search.runtime.placement import Placement
from trainables import Params, Splits, get_task
from trainables.base.device import choose_device
from trainables.base.storage import Storage

if TYPE_CHECKING:
    from search.runtime.search import Search
    from trainables import Learner


def audit_stopped_trials(search: Search, splits: Splits, placement: Placement) -> None:
    """Trains `audit_stopping` of the stopped trials, drawn with the seed of the search, for all epochs.

    A trial continues from its last checkpoint, or from its first epoch if that checkpoint was deleted. The result of
    the search does not change.

    Raises:
        KeyboardInterrupt: the search was stopped; a resume continues each audit after its last epoch.
    """
    # Imported here, so that a report shows an audit without importing Ray.
    from search.runtime.remote import is_recorded, run_jobs
    from search.runtime.transfer import storage

    config, state = search.config, search.state
    stopped = [trial for trial in state.trials.values() if trial.outcome == "stopped_early"]
    order = np.random.default_rng(config.search.seed).permutation(len(stopped))
    done = state.audited()
    left = [stopped[i] for i in order if stopped[i].number not in done]
    left.sort(key=lambda trial: trial.number not in state.audits)  # first the audits that were begun

    def arguments(trial: Trial) -> tuple[Any, ...]:
        search.record({"event": "audit_started", "number": trial.number})
        states = [(progress(trial), None), *((saved.name, saved.digest) for saved in reversed(trial.checkpoints))]
        return (
            trial.params, trial.micro_batches, trial.seed, config.search.epochs, states,
            storage(search, [name for name, _ in states]),
        )  # fmt: skip

    def on_message(trial: Trial, message: dict[str, Any]) -> None:
        if not is_recorded(message, trial.curve | state.audits[trial.number].curve):
            search.record(cast(AuditEvent, {**message, "number": trial.number}))
        if message["event"] == "audit_finished":
            search.files.delete(progress(trial))

    run_jobs(
        search, splits.for_search(), placement, "audit", left[: max(0, config.search.audit_stopping - len(done))],
        audit_worker, arguments, on_message, lambda trial: f"the audit of trial {trial.number}",
    )  # fmt: skip


def progress(trial: Trial) -> str:
    """The file with the state of an audited trial, relative to the folder of the search."""
    return f"audit/{trial.number:04d}.pt"


def audit_worker(
    name: str, splits: Splits, resources: dict[str, Any], params: Params, micro_batches: int, seed: int, epochs: int,
    states: list[tuple[str, str | None]], storage: Storage,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Runs on a worker. Yields the metrics of each epoch after the newest of the files `states`, up to the last epoch
    or until the training diverges."""
    from search.runtime.remote import train_resumably
    from trainables.base import training

    task = get_task(name)
    device = choose_device(**resources)

    def build() -> Learner:
        training.seed_everything(seed)
        learner = task.build(params, splits, epochs, device)
        learner.micro_batches = micro_batches
        return learner

    def epoch(learner: Learner) -> dict[str, Any]:
        metrics = training.run_epoch(task, learner, splits.train, splits.val)
        return {"event": "audit_result", "epoch": learner.epoch, "metrics": metrics}

    outcome = "completed"
    try:
        with suppress(training.Ended):
            yield from train_resumably(build, epochs, storage, states, epoch)
    except training.Diverged:
        outcome = "diverged"
    yield {"event": "audit_finished", "outcome": outcome}


def audit_rows(state: SearchState) -> list[dict[str, Any]]:
    """A row for each audited trial, sorted by its rank after all epochs.

    Keys:
        `trial`. `epoch`: the epoch at which it was stopped. `then`: its best objective up to that epoch. `end`: its
        best objective over all epochs. `rank_then`, `rank_end`: its rank among all trials with either objective.
    """
    key, loss = state.objective.key, state.objective.loss
    others = {t.number: loss(t.best_value) for t in state.trials.values() if t.can_win}
    rows = []
    for number in state.audited():
        trial = state.trials[number]
        end = min([loss(trial.best_value), *(loss(m[key]) for m in state.audits[number].curve.values() if key in m)])
        rank = {
            when: 1 + sum(value < mine for other, value in others.items() if other != number)
            for when, mine in (("rank_then", loss(trial.best_value)), ("rank_end", end))
        }
        rows.append({"trial": number, "epoch": trial.epoch, "then": trial.best_value, "end": loss(end), **rank})
    return sorted(rows, key=lambda row: row["rank_end"])


def audit_paragraph(rows: list[dict[str, Any]], state: SearchState) -> str:
    """A paragraph about the rows of `audit_rows`; empty where no trial was audited."""
    best = state.best()
    if not rows or best is None:
        return ""
    stopped = sum(t.outcome == "stopped_early" for t in state.trials.values())
    won = [row for row in rows if state.objective.better(row["end"], best.best_value)]
    moved = sum(row["rank_end"] != row["rank_then"] for row in rows)
    metric, first = state.objective.metric, rows[0]
    regret = abs(first["end"] - best.best_value) if won else 0.0
    paragraph = (
        f"Of {stopped} stopped trials {len(rows)} were trained to the end: {len(won)} would have been better than the "
        f"winner, {moved} changed rank; the best came to {metric} {figure(first['end'])} (trial {first['trial']}), the "
        f"winner has {figure(best.best_value)}: a regret of {regret:.2g}."
    )
    if not won and len(rows) < stopped:
        # Exact rule of three: if none of n random trials won, the share of winners is below 1 - 0.05^(1/n) with 95 %
        # confidence.
        paragraph += (
            f" With 95 % confidence fewer than {1 - 0.05 ** (1 / len(rows)):.0%} of the stopped ones would have won."
        )
    return paragraph
