"""Audits early stopping: trains some of the stopped trials for all epochs, to see whether one would have won."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from search.core.events import AuditEvent
from search.core.state import Trial
from search.runtime.placement import Placement
from search.runtime.remote import is_recorded, run_jobs, train_resumably
from search.runtime.search import Search
from search.runtime.transfer import storage
from trainables import Learner, Params, SelfTrained, Splits, get_task
from trainables.base import training
from trainables.base.checkpoints import Storage
from trainables.base.device import choose_device


def audit_stopped_trials(search: Search, splits: Splits, placement: Placement) -> None:
    """Trains `search.audit_stopping` of the stopped trials for all epochs, drawn with the seed of the search.

    A trial continues from its last checkpoint, or from its first epoch if that checkpoint was deleted. The result of
    the search does not change.

    Raises:
        KeyboardInterrupt: the search was stopped; a resume continues each audit after its last epoch.
    """
    config, state = search.config, search.state
    stopped = [trial for trial in state.trials.values() if trial.outcome == "stopped_early"]
    order = np.random.default_rng(config.search.seed).permutation(len(stopped))
    done = state.audited()
    left = [stopped[i] for i in order if stopped[i].number not in done]
    left.sort(key=lambda trial: trial.number not in state.audits)  # audits that a stop interrupted come first

    def arguments(trial: Trial) -> tuple[Any, ...]:
        search.record({"event": "audit_started", "number": trial.number})
        states = [(progress(trial), None), *((saved.name, saved.digest) for saved in reversed(trial.checkpoints))]
        return (
            trial.number, trial.params, trial.micro_batches, trial.seed, config.search.epochs, states,
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
    """The path of the file with the state of an audited trial, below the folder of the search."""
    return f"audit/{trial.number:04d}.pt"


def audit_worker(
    name: str, splits: Splits, resources: dict[str, Any], number: int, params: Params, micro_batches: int, seed: int,
    epochs: int, states: list[tuple[str, str | None]], storage: Storage,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Runs on a worker. Yields the metrics of each epoch up to the last, or until the training diverges.

    Args:
        number: of the trial.
        states: names and digests of files to continue from; the first sound file is used.
    """
    task = get_task(name)
    device = choose_device(**resources)

    def build() -> Learner:
        training.seed_everything(seed)
        learner = task.build(params, splits, epochs, device)
        learner.micro_batches = micro_batches
        if isinstance(task, SelfTrained):
            task.place(learner, number, storage.trial_folder(number))
        return learner

    def epoch(learner: Learner) -> dict[str, Any]:
        metrics = training.run_epoch(task, learner, splits.train, splits.val)
        return {"event": "audit_result", "epoch": learner.epoch, "metrics": metrics}

    outcome = "completed"
    try:
        yield from train_resumably(build, epochs, storage, states, epoch)
    except training.Diverged:
        outcome = "diverged"
    yield {"event": "audit_finished", "outcome": outcome}
