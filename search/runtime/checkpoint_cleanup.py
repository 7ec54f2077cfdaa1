"""Decides which checkpoints of a search stay on disk."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from search.core.state import Checkpoint, SearchState, Trial
from search.runtime.search import Search
from trainables.base.checkpoint_files import checkpoint_of
from trainables.base.digests import check
from trainables.base.errors import Damaged, first_line


def tidy(search: Search) -> None:
    """Makes the checkpoints in the state and the files agree. Call it while no trial runs.

    It removes checkpoints without a file from the state, and deletes files that a kill left without an event.
    """
    files, recorded = search.files.names("checkpoints"), set()
    for trial in search.state.trials.values():
        trial.checkpoints = [saved for saved in trial.checkpoints if saved.name in files]
        recorded |= {saved.name for saved in trial.checkpoints}
    for name in {checkpoint_of(name) for name in files} - recorded:
        search.files.delete(name)


def limit(search: Search, reported: Iterable[int]) -> None:
    """Deletes checkpoints that are not needed, after an epoch of the trials `reported`.

    Each trial keeps its last and its best checkpoint. If all checkpoints together are larger than `max_checkpoint_gb`,
    the oldest are deleted, except the last one of a running or paused trial and the best one of the search. If that is
    not enough, paused trials end, and their last checkpoints are deleted.
    """
    for number in reported:
        trial = search.state.trials[number]
        _keep(search, trial, {_last(trial), trial.best_epoch})
    trials = search.state.trials.values()
    excess = (
        sum(saved.bytes for t in trials for saved in t.checkpoints) - search.config.search.max_checkpoint_gb * 2**30
    )
    if excess <= 0:
        return
    best = search.state.best()
    for trial in sorted(trials, key=lambda t: (not t.over, t.reported)):
        needed = set() if trial.over else {_last(trial)}
        for saved in [saved for saved in trial.checkpoints if saved.epoch not in needed]:
            if excess > 0 and not (trial is best and saved.epoch == trial.best_epoch):
                excess -= saved.bytes
                _delete(search, trial, saved)
    # The trial at the lowest rung with the largest loss is the least likely to be promoted.
    paused = [search.state.trials[number] for number in search.state.paused()]
    for trial in sorted(paused, key=lambda t: (t.epoch, -search.objective.loss(t.best_value))):
        if excess > 0:
            limit = f"search.max_checkpoint_gb is {search.config.search.max_checkpoint_gb:g}"
            search.give_up(trial.number, reason=f"checkpoints take more space than allowed ({limit})")
            excess -= sum(saved.bytes for saved in trial.checkpoints)
            _keep(search, trial, {trial.best_epoch} if trial is best else set())


def sound_checkpoint(search: Search, trial: Trial, epoch: int) -> Checkpoint | None:
    """The checkpoint of an epoch; None if it is missing or damaged. Listeners get a notice of a damaged file."""
    for saved in trial.checkpoints:
        if saved.epoch == epoch:
            try:
                with search.files.open(saved.name) as file:
                    check(file, saved.name, saved.digest)
                return saved
            except Damaged as error:
                search.announce({"event": "damaged", "file": error.file, "why": error.why})
            except Exception as error:  # each file system raises its own errors
                search.announce({"event": "damaged", "file": saved.name, "why": first_line(error)})
    return None


def _last(trial: Trial) -> int:
    return trial.checkpoints[-1].epoch if trial.checkpoints else 0


def prune(search: Search) -> None:
    """Deletes the checkpoints of a finished search, except those of its best `keep_checkpoints` trials."""
    tidy(search)
    kept = {trial.number for trial in search.state.ranked()[: search.config.search.keep_checkpoints]}
    for trial in search.state.trials.values():
        if trial.number not in kept and trial.over:
            _keep(search, trial, set())


def needed(state: SearchState, keep_checkpoints: int, files: Collection[str]) -> set[str]:
    """The names of the checkpoints that a resume or a retrain of a search that does not run may read.

    Args:
        files: the names of the existing files.
    """
    best = {trial.number for trial in state.ranked()[:keep_checkpoints]}
    forks = state.forks()
    names = set()
    for trial in state.trials.values():
        names |= {one.name for one in trial.checkpoints if (trial.number, one.epoch) in forks}
        if state.status == "finished" and trial.over and trial.number not in best:
            continue
        saved = [checkpoint for checkpoint in trial.checkpoints if checkpoint.name in files]
        names |= {one.name for one in saved if one.epoch in (saved[-1].epoch, trial.best_epoch)}
    return names


def _keep(search: Search, trial: Trial, epochs: set[int]) -> None:
    for saved in [saved for saved in trial.checkpoints if saved.epoch not in epochs]:
        _delete(search, trial, saved)


def _delete(search: Search, trial: Trial, saved: Checkpoint) -> None:
    if (trial.number, saved.epoch) in search.state.forks():
        return
    search.files.delete(saved.name)
    trial.checkpoints.remove(saved)
