"""The runs of a search in MLflow: finds or creates them, and logs to them in batches."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from search.core.config import SearchConfig
from search.core.record import SearchRecord
from search.core.redaction import redacted
from search.core.store import SearchFolder, Store
from search.tracking import names
from search.tracking.client import every_page
from trainables import DataInfo, InputError
from trainables.base.errors import first_line

#: MLflow takes at most 1,000 items in a request, of which 100 may be parameters and 100 tags.
_METRICS, _OTHERS = 800, 100
#: Error codes of requests that can never succeed. Other errors may pass: a server that is away, a locked database, a
#: token that expired.
_REFUSALS = {
    "INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_CONFLICT", "NOT_IMPLEMENTED", "ENDPOINT_NOT_FOUND", "FEATURE_DISABLED",
}  # fmt: skip


class MissingRun(Exception):
    """MLflow lacks a run that an earlier event created: its database was restored from a backup, or cleaned up."""


class RefusedRun(LookupError):
    """MLflow refused to create a run. A warning said so, and the items of the run are left out."""


def is_refusal(error: Exception) -> bool:
    """Whether the same request can never succeed, because its content is wrong."""
    if isinstance(error, MlflowException):
        return error.error_code in _REFUSALS
    if isinstance(error, OSError):  # errors of connections are OSErrors too
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    return isinstance(error, InputError | ValueError | TypeError | LookupError | AttributeError)


def reason_of(error: Exception) -> str:
    """The first line of an error, behind the name of its class unless MLflow or this program raised it."""
    first = first_line(error)
    return first if isinstance(error, MlflowException | InputError) else f"{type(error).__name__}: {first}"


@dataclasses.dataclass
class _Pending:
    """The items that wait to be sent to a run."""

    metrics: list[Metric] = dataclasses.field(default_factory=list)
    #: By name: MLflow refuses a parameter twice, and a training that was killed is started twice.
    params: dict[str, str] = dataclasses.field(default_factory=dict)
    tags: dict[str, str] = dataclasses.field(default_factory=dict)


def experiment_id(client: MlflowClient, store: Store, task: str) -> str:
    """The id of the experiment of a task. Creates the experiment if it is missing; two searches may do so at once."""
    name = names.experiment_name(task)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = store.artifacts.as_uri() if store.is_local else None
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


class Runs:
    """The runs of one search, by their key in the search, such as `parent` or `trial-3`."""

    def __init__(
        self, client: MlflowClient, store: Store, folder: SearchFolder, config: SearchConfig,
        record: SearchRecord, info: DataInfo, warn: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Finds the runs. `warn` gets a sentence about each item that MLflow refuses."""
        self.client, self.folder, self.config, self.record, self.info = client, folder, config, record, info
        self.experiment = experiment_id(client, store, config.task)
        #: The number of events of the journal that MLflow has, and a digest of the last one.
        self.delivered, self.mark = 0, ""
        self._warn = warn
        self._known: dict[str, str] = {}
        self._deleted: set[str] = set()
        self._refused: set[str] = set()
        self._pending: defaultdict[str, _Pending] = defaultdict(_Pending)
        query = f"tags.`search.id` = '{record.id}'"
        for run in every_page(client.search_runs, [self.experiment], query, ViewType.ALL):
            key = run.data.tags["search.run"]
            self._known[key] = run.info.run_id
            if run.info.lifecycle_stage == "deleted":
                self._deleted.add(run.info.run_id)
            if key == "parent":
                number, _, self.mark = run.data.tags.get(names.DELIVERED, "0").partition(" ")
                self.delivered = int(number)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> str:
        """The id of a run; raises MissingRun or RefusedRun. A run that a user deleted is restored."""
        if key not in self._known:
            raise RefusedRun(key) if key in self._refused else MissingRun(key)
        run_id = self._known[key]
        if run_id in self._deleted:
            self.client.restore_run(run_id)
            self._deleted.discard(run_id)
        return run_id

    def make(self, key: str, name: str, role: str, start: int, tags: dict[str, str]) -> str:
        """The id of the run `key`, which is created if it is missing.

        Args:
            start: milliseconds since 1970.
        """
        if key not in self._known:
            common = {
                "search.id": self.record.id,
                "search.run": key,
                "search": self.folder.name,
                "task": self.config.task,
                "role": role,
                "data.fingerprint": self.info.fingerprint,
                "data.test_fingerprint": self.info.test_fingerprint,
                **{f"data.{name}": str(value) for name, value in self.info.chosen.items()},
                "git.commit": self.record.commit,
                "seed": str(self.config.search.seed),
                "mlflow.user": os.environ.get("USER", "unknown"),
                "mlflow.source.name": "python -m search",
            }
            if role != "parent":
                common["mlflow.parentRunId"] = self["parent"]
            shown = names.storable_text(redacted(name), names.RUN_NAME)
            try:
                run = self.client.create_run(self.experiment, start, _tags(common | tags), shown)
            except MlflowException as error:
                if is_refusal(error):
                    self._refused.add(key)
                raise
            self._known[key] = run.info.run_id
        return self[key]

    def log_dataset(self, run_id: str, context: str) -> None:
        """Logs the data set as an input of the run; `context` is its use, such as `train, test`."""
        profile = json.dumps({"sizes": self.info.sizes, "classes": list(self.info.classes)})
        dataset = Dataset(
            name=names.storable_text(Path(redacted(self.info.source)).name, 500), digest=self.info.fingerprint[:36],
            source_type="local", source=json.dumps({"uri": names.storable_text(redacted(self.info.source))}),
            profile=profile[:16000],
        )  # fmt: skip
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def log(self, run_id: str, metrics: dict[str, float], step: int, when: int) -> None:
        """Logs metrics at a step. Values that are not finite are left out: no chart can show them."""
        for name, value in metrics.items():
            if math.isfinite(number := _as_float(value)):
                self._pending[run_id].metrics.append(Metric(self._named(run_id, name), number, when, step))

    def log_params(self, run_id: str, params: dict[str, Any]) -> None:
        """Logs parameters without secrets. Parameters that are None are left out."""
        for name, value in params.items():
            if value is not None:
                shown = names.storable_text(redacted(str(python_values(value))), names.PARAM)
                self._pending[run_id].params[self._named(run_id, name)] = shown

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        """Sets tags with the next flush."""
        self._pending[run_id].tags.update(_tags({tag: redacted(value) for tag, value in tags.items()}))

    def flush(self, run_id: str) -> None:
        """Sends the waiting items of a run in as few requests as possible, because each request is a transaction.

        Items that MLflow refuses for good are left out, with a warning.
        """
        pending = self._pending.pop(run_id, _Pending())
        metrics, params = pending.metrics, [Param(key, value) for key, value in pending.params.items()]
        tags = [RunTag(key, value) for key, value in pending.tags.items()]
        while metrics or params or tags:
            self._send(run_id, metrics[:_METRICS], params[:_OTHERS], tags[:_OTHERS])
            metrics, params, tags = metrics[_METRICS:], params[_OTHERS:], tags[_OTHERS:]

    def terminate(self, run_id: str, status: str, when: int) -> None:
        """Sends the waiting items of a run and ends it at `when` (milliseconds since 1970)."""
        self.flush(run_id)
        self.client.set_terminated(run_id, status, when)

    def flush_all(self) -> None:
        """Sends the waiting items of all runs."""
        for run_id in list(self._pending):
            self.flush(run_id)

    def confirm(self, delivered: int, mark: str) -> None:
        """Writes the number of delivered events to the parent run: another database may have fewer events.

        Args:
            mark: a digest of the last delivered event, without blanks.
        """
        self.client.set_tag(self["parent"], names.DELIVERED, f"{delivered} {mark}")
        self.delivered, self.mark = delivered, mark

    def of(self, role: str) -> list[str]:
        """The keys of the runs of a role, such as `final`."""
        return [key for key in self._known if key.split("-")[0] == role]

    def key_of(self, run_id: str) -> str:
        """The key of a run in the search."""
        return next(key for key, known in self._known.items() if known == run_id)

    def _named(self, run_id: str, name: str) -> str:
        """The name in MLflow. A tag of the run gets the whole of a name that is cut."""
        shown = names.translated(name)
        if "__cut__" in shown:
            self.set_tags(run_id, {f"{names.NAME_TAG}{shown.rpartition('__')[2]}": name})
        return shown

    def _send(self, run_id: str, metrics: list[Metric], params: list[Param], tags: list[RunTag]) -> None:
        try:
            self.client.log_batch(run_id, metrics, params, tags)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise MissingRun(self.key_of(run_id)) from error
            if not is_refusal(error):
                raise
            if self.client.get_run(run_id).info.lifecycle_stage == "deleted":  # by a user, just now
                self.client.restore_run(run_id)
                self._send(run_id, metrics, params, tags)
                return
            items = [
                *(([m], [], []) for m in metrics),
                *(([], [p], []) for p in params),
                *(([], [], [t]) for t in tags),
            ]
            if len(items) > 1:
                for item in items:
                    self._send(run_id, *item)
                return
            (item,) = [*metrics, *params, *tags]
            self._warn(
                f"MLflow takes no {names.original(item.key)!r} in run {self.key_of(run_id)} ({reason_of(error)}); it "
                "is left out there and stands in the journal"
            )


def python_values(value: Any) -> Any:
    """A value, or lists and mappings of values, with NumPy's types replaced by Python's."""
    return json.loads(json.dumps(value, default=lambda other: other.item() if hasattr(other, "item") else str(other)))


def _tags(tags: dict[str, str]) -> dict[str, str]:
    return {names.translated(key): names.storable_text(redacted(value), names.TAG) for key, value in tags.items()}


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer with hundreds of digits
        return math.inf
