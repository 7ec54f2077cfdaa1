"""A search's runs in MLflow: found or made, and what is logged to them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from search.config import SearchConfig
from search.redaction import redacted
from search.store import SearchFolder, Store
from trainables.task import DataInfo

_PARAM_LIMIT = 6000
#: Metrics that MLflow takes at once.
_BATCH = 1000


def experiment_id(client: MlflowClient, store: Store, task: str) -> str:
    """The task's experiment, made where it is missing; two searches may start at once."""
    known = client.get_experiment_by_name(task)
    if known is None:
        location = store.artifacts.as_uri() if store.is_local else None
        try:
            # The kind makes MLflow's UI open on training runs rather than on traces.
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
    """The runs of one search. Each has a key within it (`parent`, `trial-3`), by which it is found again."""

    def __init__(
        self, client: MlflowClient, store: Store, folder: SearchFolder, config: SearchConfig,
        description: dict[str, Any], info: DataInfo,
    ) -> None:  # fmt: skip
        self.client, self.folder, self.config, self.description, self.info = client, folder, config, description, info
        self._experiment = experiment_id(client, store, config.task)
        self._known: dict[str, str] = {}
        self._metrics: dict[str, list[Metric]] = {}
        token = None
        while True:
            page = client.search_runs([self._experiment], f"tags.`search.id` = '{description['id']}'", page_token=token)
            self._known |= {run.data.tags["search.run"]: run.info.run_id for run in page}
            if not (token := page.token):
                break

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> str:
        """The id of a run that is there."""
        return self._known[key]

    def make(self, key: str, name: str, role: str, start: int, tags: dict[str, str]) -> str:
        """The id of the run that `key` names, made where it is missing."""
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
            run = self.client.create_run(self._experiment, start_time=start, run_name=name, tags=shown)
            self._known[key] = run.info.run_id
        return self._known[key]

    def log_dataset(self, run_id: str, context: str) -> None:
        profile = json.dumps({"sizes": self.info.sizes, "classes": list(self.info.classes)})
        dataset = Dataset(
            name=Path(self.info.source).name, digest=self.info.fingerprint, source_type="local",
            source=json.dumps({"uri": redacted(self.info.source)}), profile=profile[:16000],
        )  # fmt: skip
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def log(self, run_id: str, metrics: dict[str, float], step: int, when: int) -> None:
        """What is not finite is left out, as no chart shows it (the outcome says that a trial diverged)."""
        finite = [Metric(key, value, when, step) for key, value in metrics.items() if math.isfinite(value)]
        self._metrics.setdefault(run_id, []).extend(finite)

    def flush(self, run_id: str) -> None:
        metrics = self._metrics.pop(run_id, [])
        for start in range(0, len(metrics), _BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + _BATCH])

    def terminate(self, run_id: str, status: str, when: int) -> None:
        self.flush(run_id)  # a finished run is whole
        self.client.set_terminated(run_id, status, when)

    def forget(self) -> None:
        """Drops the metrics of an attempt that failed; its events are delivered again."""
        self._metrics.clear()

    def flush_all(self) -> None:
        for run_id in list(self._metrics):
            self.flush(run_id)

    def log_params(self, run_id: str, params: dict[str, Any]) -> None:
        shown = [Param(key, redacted(str(value))[:_PARAM_LIMIT]) for key, value in params.items() if value is not None]
        for start in range(0, len(shown), 100):
            self.client.log_batch(run_id, params=shown[start : start + 100])
