"""The record of a search in `search.json`: its task, configuration, data and start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # before Python 3.12 pydantic needs this one

from search.core.space import all_numbers, is_spec
from trainables import LOOP_TASK, InputError, Objective, get_task, registered_address, runnable_tasks, task_names

#: The version of the format. A file without a version has version 1. In version 1 a choice of numbers has no order.
VERSION = 2


class StoredObjective(TypedDict):
    """The objective as `search.json` holds it. A reader then needs no installed task.

    Keys:
        metric, mode, tuned: the fields of `Objective`.
        named: the name of the metric in the training function, or `val_METRIC` of a task.
    """

    metric: str
    mode: Literal["min", "max"]
    tuned: list[str]
    named: str


@dataclass(frozen=True)
class SearchRecord:
    """The content of `search.json`. Each default is the value of a file that was written before the field existed.

    Attributes:
        task: the name of the task.
        config: the merged configuration as plain data, `SearchConfig.raw`.
        place: the source of the configuration in messages, such as `configs/rnn.yaml with --set`.
        id: a random id. It marks the runs of the search in MLflow.
        offered: the address of a task that no package installs, such as that of a training function.
        objective_stored: the objective; the key of the file is `objective`.
        data: the path or URI of the user's data, without secrets; None for the demo data of the task.
        fingerprint: a hash of the data, or of the code of a training function.
        address: the address of the Ray cluster; None for a cluster on this machine.
        retrain: whether the search ends with a final training.
        start_from: the name of the search (or `auto`) whose trials the searcher learned first.
        plan: the fields of the forecast (`search.reports.plan.Plan`) that was made before the search.
        commit: the git commit of this program; `none` outside a checkout.
        created: the time of the start, in milliseconds since 1970.
        most_epochs: the largest number of epochs for a trial of this data; None if no time budget was measured.
        alone: the duration of an epoch of a training that has the cores of all trials, divided by that of a trial.
        worker_start: the seconds that a worker process needs to start.
        own_epoch: the measured seconds of an epoch of a function or a command; None if nothing was measured.
        imported: the file or URL of the other tool that made the search; None for a search of this program.
        asked: whether the search is a study: programs of the user ask it for trials and train them.
        extended_after: the number of sessions before the last command that gave the search more trials, epochs or time.
        former: the name before a renaming that is not complete; else None.
        version: the version of the format.
    """

    task: str
    config: dict[str, Any]
    place: str
    id: str = ""
    offered: str | None = None
    objective_stored: StoredObjective | None = None
    data: str | None = None
    fingerprint: str = ""
    address: str | None = None
    retrain: bool = True
    start_from: str | None = None
    plan: dict[str, Any] | None = None
    commit: str = "none"
    created: int = 0
    most_epochs: int | None = None
    alone: float = 1.0
    worker_start: float = 0.0
    own_epoch: float | None = None
    imported: str | None = None
    asked: bool = False
    extended_after: int | None = None
    former: str | None = None
    version: int = VERSION

    @classmethod
    def from_json(cls, content: Mapping[str, Any], path: Path) -> SearchRecord:
        """Reads the object of a file. Keys that this version does not know are ignored.

        Args:
            path: the file, for messages.

        Raises:
            InputError: a key is missing or its value has the wrong type, or a newer program wrote the file.
        """
        fields = {"version": 1, **content, "objective_stored": content.get("objective")}
        try:
            record = _checker().validate_python(fields)
        except ValidationError as error:
            name = error.errors()[0]["loc"][0]
            key = "objective" if name == "objective_stored" else str(name)
            raise InputError(f"{path}: is damaged: {key}: {content.get(key, 'missing')!r}") from None
        if record.version > VERSION:
            raise InputError(
                f"{path}: version {record.version}: this program reads versions up to {VERSION}; use a newer program"
            )
        if record.version == 1:
            old = record.config.get("space")
            space = {"space": _without_order(old)} if isinstance(old, Mapping) else {}
            record = replace(record, config={**record.config, **space}, version=VERSION)
        return record

    def to_json(self) -> dict[str, Any]:
        """The object for the file."""
        content = asdict(self)
        content["objective"] = content.pop("objective_stored")
        return content

    @property
    def objective(self) -> Objective:
        """The objective of the search. For a file without an objective it is that of the installed task.

        Raises:
            InputError: the file has no objective, and the task is not installed here.
        """
        stored = self._stored()
        return Objective(stored["metric"], stored["mode"], tuple(stored["tuned"]))

    @property
    def metric(self) -> str:
        """The metric's name in the training function, or `val_METRIC` of a task; raises as `objective`."""
        return self._stored()["named"]

    @property
    def elsewhere(self) -> str:
        """Where the trials of a search are trained that this program does not train, as the end of a sentence.

        Empty for a search that this program trains.
        """
        if self.imported:
            return f"was imported from {self.imported} and has nothing to train"
        return "is a study, whose trials your own programs ask for and train" if self.asked else ""

    def _stored(self) -> StoredObjective:
        if self.objective_stored is not None:
            return self.objective_stored
        address, _, arguments = (self.offered or "").partition("?")
        if address == LOOP_TASK:
            given = dict(parse_qsl(arguments))
            metric = given.get("metric", "")
            mode: Literal["min", "max"] = "max" if given.get("mode") == "max" else "min"
            return {"metric": metric.removeprefix("val_"), "mode": mode, "tuned": [], "named": metric}
        if self.task not in task_names():
            raise not_installed(self.task)
        return stored_objective(self.task)


def stored_objective(task: str) -> StoredObjective:
    """The objective of a task for `SearchRecord.objective_stored`."""
    made = get_task(task)
    own = made.objective
    named = getattr(made, "metric", own.key)  # a training function yields it under its own name
    return {"metric": own.metric, "mode": own.mode, "tuned": list(own.tuned), "named": named}


def task_fields(task: str) -> dict[str, Any]:
    """The fields of a new record that follow from its task: `task`, `offered` and `objective_stored`."""
    return {"task": task, "offered": registered_address(task), "objective_stored": stored_objective(task)}


def not_installed(task: str) -> InputError:
    """The error if the task of a search is not installed here."""
    return InputError(f"task {task!r}: is not installed here; there are {', '.join(runnable_tasks())}")


@cache
def _checker() -> TypeAdapter[SearchRecord]:
    """Checks the types of the fields. It is made when a file is first read, as that takes 40 ms."""
    return TypeAdapter(SearchRecord)


def _without_order(space: Mapping[str, Any]) -> dict[str, Any]:
    """The space of version 1 with its meaning then, so that a search proposes what it would have proposed."""
    entries: dict[str, Any] = {}
    for name, entry in space.items():
        if isinstance(entry, Mapping) and not is_spec(entry):
            entry = _without_order(entry)
        elif isinstance(entry, Mapping) and all_numbers(entry.get("choice") or ["no numbers"]):
            entry = {**entry, "ordered": False}
        entries[name] = entry
    return entries
