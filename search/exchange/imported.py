"""Writes a search of another tool into the store."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from search.core.config import SearchConfig
from search.core.events import Event, Failed, Proposed, Result
from search.core.journal import Journal
from search.core.program_config import loop_config
from search.core.record import SearchRecord, task_fields
from search.core.replay import replay
from search.core.state import SearchState
from search.core.store import SearchFolder, Store
from search.tracking.tracker import deliver_stored
from trainables import InputError, Params, get_task
from trainables.base.files import file_safe, replacing
from trainables.base.task import array_digest


@dataclass(frozen=True)
class ImportedTrial:
    """A trial of another tool: its hyperparameters, and its metrics by epoch. The first epoch is 1."""

    params: Params
    curve: Mapping[int, Mapping[str, float]]
    outcome: Literal["completed", "stopped_early", "failed"]


@dataclass(frozen=True)
class Imported:
    """A search that was read from the files of another tool.

    Attributes:
        source: the file, folder or address.
        name: of the search in the other tool.
        metric: the objective. Each epoch of each trial has it.
        mode: `min` or `max`.
        space: the spec of each hyperparameter, as in YAML.
        notes: sentences about content that could not be read exactly.
    """

    source: str
    name: str
    metric: str
    mode: str
    space: Mapping[str, Any]
    trials: list[ImportedTrial]
    notes: list[str] = field(default_factory=list)


def keep_imported(
    store: Store, name: str | None, imported: Imported, warn: Callable[[str], None]
) -> tuple[str, SearchState]:  # fmt: skip
    """Writes an imported search into the store, its journal and MLflow.

    Args:
        name: of the search in this store; by default its name in the other tool.
        warn: gets a sentence if MLflow cannot be written.

    Returns:
        Name and state of the search. The file `space_file(store, name)` has its space.

    Raises:
        InputError: the store has a search of that name, or no trial ended.
    """
    store.check()
    folder = store.search(name or file_safe(imported.name) or "imported")
    folder.begin().close()  # raises InputError where the name is taken
    if not imported.trials:
        raise InputError(f"{imported.source}: {imported.name} has no trial that ended")
    epochs = max(max(trial.curve, default=1) for trial in imported.trials)
    flags = {"search.trials": len(imported.trials), "search.epochs": epochs}
    task, objective = f"imported-{folder.name}", f"{imported.metric} {imported.mode}"
    config = loop_config(task, imported.space, objective, flags, (), imported.source)
    digest = array_digest([json.dumps([dict(t.params) for t in imported.trials], sort_keys=True, default=str).encode()])
    record = SearchRecord(
        **task_fields(task), config=config.raw, place=config.place, id=uuid.uuid4().hex, fingerprint=digest,
        retrain=False, created=int(time.time() * 1000), imported=imported.source,
    )  # fmt: skip
    searches = folder.path.parent
    searches.mkdir(parents=True, exist_ok=True)
    # The folder is made elsewhere and then moved: the search exists completely or not at all.
    with tempfile.TemporaryDirectory(dir=searches, prefix=".import-") as scratch:
        part = SearchFolder(Path(scratch) / folder.name)
        with Journal(part.journal) as journal:
            journal.append(*_events(imported, config))
            with replacing(part.path / "space.yaml") as file:
                file.write(OmegaConf.to_yaml(OmegaConf.create(dict(imported.space))).encode())
            part.write(record)
            try:
                part.path.rename(folder.path)
            except OSError as error:
                raise InputError(f"{folder.name}: another command began a search of that name") from error
            if missing := deliver_stored(store, folder, warn):
                warn(f"MLflow lacks {missing} events, which are kept; send them: python -m search resume {folder.name}")
    return folder.name, replay(folder)[0]


def space_file(store: Store, name: str) -> Path:
    """The file with the space of an imported search."""
    return store.search(name).path / "space.yaml"


def _events(imported: Imported, config: SearchConfig) -> list[Event]:
    """The events of the search: each trial, its epochs and its end."""
    metric = get_task(config.task).objective.key
    events: list[Event] = [{"event": "session"}]
    for number, trial in enumerate(imported.trials):
        events.append(Proposed(event="trial", number=number, params=trial.params, seed=0))
        last = max(trial.curve, default=0)
        for epoch, metrics in sorted(trial.curve.items()):
            ended = trial.outcome if epoch == last and trial.outcome != "failed" else None
            renamed = {**metrics, metric: metrics[imported.metric]}
            events.append(Result(event="result", number=number, epoch=epoch, metrics=renamed, diverged=None,
                                 outcome=ended, device=""))  # fmt: skip
        if trial.outcome == "failed":
            events.append(Failed(event="failed", number=number, why="imported", traceback="it failed there"))
    return [*events, {"event": "ended", "status": "finished", "rungs": {}}]
