"""The runs of a search in MLflow: finds or makes them, and logs to them in batches."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from search.config.load import SearchConfig
from search.record.redaction import redacted
from search.record.store import SearchFolder, Store
from trainables import DataInfo

_PARAM_LIMIT = 6000
#: MLflow takes at most 1,000 items in a request, of which 100 may be parameters and 100 tags.
_METRICS, _OTHERS = 800, 100


@dataclasses.dataclass
class _Pending:
    """What has not been sent to a run yet."""

    metrics: list[Metric] = dataclasses.field(default_factory=list)
    #: By name, as MLflow refuses a parameter twice, and a training that was killed is started twice.
    params: dict[str, str] = dataclasses.field(default_factory=dict)
    tags: dict[str, str] = dataclasses.field(default_factory=dict)


def experiment_id(client: MlflowClient, store: Store, task: str) -> str:
    """The id of the task's experiment, which is made if it is missing; two searches may do so at once."""
    known = client.get_experiment_by_name(task)
    if known is None:
        location = store.artifacts.as_uri() if store.is_local else None
        try:
            # With this tag MLflow's page shows training runs rather than traces.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(task, artifact_location=location, tags=kind))
        except MlflowException:
            known = client.get_experiment_by_name(task)
            if known is None:
                raise
    if known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)
    return str(known.experiment_id)


class Runs:
    """The runs of one search, each found again by its key in the search, such as `parent` or `trial-3`."""

    def __init__(
        self, client: MlflowClient, store: Store, folder: SearchFolder, config: SearchConfig,
        description: dict[str, Any], info: DataInfo,
    ) -> None:  # fmt: skip
        self.client, self.folder, self.config, self.description, self.info = client, folder, config, description, info
        self.experiment = experiment_id(client, store, config.task)
        self._known: dict[str, str] = {}
        self._pending: defaultdict[str, _Pending] = defaultdict(_Pending)
        token = None
        while True:
            page = client.search_runs([self.experiment], f"tags.`search.id` = '{description['id']}'", page_token=token)
            self._known |= {run.data.tags["search.run"]: run.info.run_id for run in page}
            if not (token := page.token):
                break

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> str:
        """The id of a run that exists."""
        return self._known[key]

    def make(self, key: str, name: str, role: str, start: int, tags: dict[str, str]) -> str:
        """The id of the run that `key` names; it is made if it is missing.

        Args:
            start: milliseconds since 1970.
        """
        if key not in self._known:
            common = {
                "search.id": self.description["id"],
                "search.run": key,
                "search": self.folder.name,
                "task": self.config.task,
                "role": role,
                "data.fingerprint": self.info.fingerprint,
                "data.test_fingerprint": self.info.test_fingerprint,
                **{f"data.{name}": str(value) for name, value in self.info.chosen.items()},
                "git.commit": self.description["commit"],
                "seed": str(self.config.search.seed),
                "mlflow.user": os.environ.get("USER", "unknown"),
                "mlflow.source.name": "python -m search",
            }
            if role != "parent":
                common["mlflow.parentRunId"] = self._known["parent"]
            shown = {tag: redacted(value) for tag, value in (common | tags).items()}
            run = self.client.create_run(self.experiment, start_time=start, run_name=name, tags=shown)
            self._known[key] = run.info.run_id
        return self._known[key]

    def log_dataset(self, run_id: str, context: str) -> None:
        """Logs the data set as an input of the run; `context` says what it was used for."""
        profile = json.dumps({"sizes": self.info.sizes, "classes": list(self.info.classes)})
        dataset = Dataset(
            name=Path(redacted(self.info.source)).name, digest=self.info.fingerprint, source_type="local",
            source=json.dumps({"uri": redacted(self.info.source)}), profile=profile[:16000],
        )  # fmt: skip
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def log(self, run_id: str, metrics: dict[str, float], step: int, when: int) -> None:
        """Logs metrics at a step. Values that are not finite are left out, as no chart shows them."""
        finite = [Metric(key, value, when, step) for key, value in metrics.items() if math.isfinite(value)]
        self._pending[run_id].metrics.extend(finite)

    def log_params(self, run_id: str, params: dict[str, Any]) -> None:
        """Logs parameters without secrets; those that are None are left out."""
        shown = {key: redacted(str(value))[:_PARAM_LIMIT] for key, value in params.items() if value is not None}
        self._pending[run_id].params.update(shown)

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        """Sets tags with the next flush."""
        self._pending[run_id].tags.update({tag: redacted(value) for tag, value in tags.items()})

    def flush(self, run_id: str) -> None:
        """Sends what is pending for a run, in as few requests as possible: each is a transaction."""
        pending = self._pending.pop(run_id, _Pending())
        metrics, params = pending.metrics, [Param(key, value) for key, value in pending.params.items()]
        tags = [RunTag(key, value) for key, value in pending.tags.items()]
        while metrics or params or tags:
            self.client.log_batch(run_id, metrics[:_METRICS], params[:_OTHERS], tags[:_OTHERS])
            metrics, params, tags = metrics[_METRICS:], params[_OTHERS:], tags[_OTHERS:]

    def terminate(self, run_id: str, status: str, when: int) -> None:
        """Ends a run at `when` (milliseconds since 1970), after everything pending is sent."""
        self.flush(run_id)
        self.client.set_terminated(run_id, status, when)

    def forget(self) -> None:
        """Drops what a failed attempt left pending; its events will be delivered again."""
        self._pending.clear()

    def flush_all(self) -> None:
        """Sends what is pending for every run."""
        for run_id in list(self._pending):
            self.flush(run_id)
