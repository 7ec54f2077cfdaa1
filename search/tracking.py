"""Reads the journal and delivers it to MLflow; with `registry.py`, the only file that writes there.

Delivery runs in one thread behind the search, so a slow or absent tracking server holds no trial up. What is
delivered twice (after a kill) changes nothing: runs are found again by their tags, and a metric's key, step,
value and time, which are the journal's, identify its row.
"""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from search.config import SearchConfig, digest
from search.journal import Event, SearchState
from search.registry import register
from search.store import SearchFolder, Store
from trainables.files import replacing
from trainables.task import DataInfo, Objective

#: An outcome, and the status that MLflow's own lists show for it.
STATUS = {
    "completed": "FINISHED",
    "stopped_early": "FINISHED",
    "diverged": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
_PARAM_LIMIT = 6000


def connect(store: Store) -> MlflowClient:
    """A client of the store; a new sqlite file gets write-ahead logging, so that readers never block the writer."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # The journal is the queue that waits for a server, so a request need not wait for minutes itself.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    if store.is_local:
        store.root.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(store.database, timeout=60) as database:
            database.execute("PRAGMA journal_mode=WAL")
        database.close()
    # MLflow passes no busy timeout of its own; the query of the URI goes to sqlite3.connect.
    uri = f"{store.tracking_uri}?timeout=60" if store.is_local else store.tracking_uri
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return MlflowClient(uri, uri)


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


class Tracker:
    """Delivers one search's journal to MLflow from a thread of its own."""

    def __init__(
        self, store: Store, folder: SearchFolder, config: SearchConfig, description: dict[str, Any],
        info: DataInfo, objective: Objective, warn: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.store, self.folder, self.config, self.description = store, folder, config, description
        self.info, self.objective, self.warn = info, objective, warn
        self.parent: str | None = None
        #: What was done with the final model, for the summary.
        self.registered: dict[int, str] = {}
        self._runs: dict[str, str] = {}
        self._running: set[str] = set()
        self._queue: queue.Queue[tuple[int, Event] | None] = queue.Queue()
        self._done = folder.delivered_events()
        self._position = 0
        self._failing = False
        self._giving_up = threading.Event()
        self._thread = threading.Thread(target=self._deliver_all, name="mlflow", daemon=True)

    def start(self, events: list[Event], state: SearchState) -> None:
        """Queues what an earlier session did not deliver and starts delivering."""
        self._state = state
        for event in events:
            self(event, state)
        self._thread.start()

    def __call__(self, event: Event, state: SearchState) -> None:
        """A listener of the search."""
        if "time" not in event:
            return
        self._position += 1
        if self._position > self._done:
            self._queue.put((self._position, event))

    def close(self, patience: float) -> int:
        """Waits until all is delivered, at most `patience` seconds without a server; returns what is left."""
        self._queue.put(None)
        waited = 0.0
        while self._thread.is_alive() and waited < patience:
            self._thread.join(0.2)
            waited = waited + 0.2 if self._failing else 0.0
        self._giving_up.set()
        self._thread.join(patience)
        return self._position - self._done

    def _deliver_all(self) -> None:
        pause = 0.5
        client: MlflowClient | None = None
        while (item := self._queue.get()) is not None:
            position, event = item
            while not self._giving_up.is_set():
                try:
                    if client is None:
                        client = connect(self.store)
                        self._find_runs(client)
                    self._deliver(client, event)
                    self._done = position
                    with replacing(self.folder.delivered) as file:
                        file.write(str(position).encode())
                    self._failing, pause = False, 0.5
                    break
                except Exception as error:
                    # Whatever it is (server down, disk full, locked database), training must not stop for it.
                    if not self._failing:
                        first = (str(error).strip() or type(error).__name__).split("\n")[0]
                        self.warn(f"MLflow cannot be written ({first}); kept in the journal, trying again")
                    self._failing = True
                    self._giving_up.wait(pause)
                    pause = min(pause * 2, 15)

    def _find_runs(self, client: MlflowClient) -> None:
        """The search's runs so far, and its parent run, made where it is missing."""
        self._experiment = experiment_id(client, self.store, self.config.task)
        token = None
        while True:
            page = client.search_runs(
                [self._experiment], f"tags.`search.id` = '{self.description['id']}'", page_token=token
            )
            self._runs |= {run.data.tags["search.run"]: run.info.run_id for run in page}
            if not (token := page.token):
                break
        known = "parent" in self._runs
        self.parent = self._run(client, "parent", self.folder.name, "parent", self.description["created"], {
            "config": digest(self.config.raw),
            "data.source": self.info.source,
            "data.notes": "; ".join(self.info.notes),
            "searcher": self.config.search.searcher,
            "scheduler": self.config.search.scheduler,
            "resume": f"python -m search resume {self.folder.name}",
        })  # fmt: skip
        if not known:
            raw = {f"{s}.{k}": v for s in ("search", "resources", "data") for k, v in self.config.raw[s].items()}
            space = {f"space.{p.name}": p.describe() for p in self.config.space.parameters}
            _log_params(client, self.parent, raw | space)
            client.log_dict(self.parent, self.config.raw, "config.yaml")
            self._log_dataset(client, self.parent, "search")

    def _run(self, client: MlflowClient, key: str, name: str, role: str, start: int, tags: dict[str, str]) -> str:
        """The run that `key` names in this search, made where it is missing."""
        if key not in self._runs:
            common = {
                "search.id": self.description["id"],
                "search.run": key,
                "search": self.folder.name,
                "task": self.config.task,
                "role": role,
                "data.fingerprint": self.info.fingerprint,
                "data.test_fingerprint": self.info.test_fingerprint,
                "git.commit": self.description["commit"],
                "seed": str(self.config.search.seed),
                "mlflow.user": os.environ.get("USER", "unknown"),
                "mlflow.source.name": "python -m search",
            }
            if role != "parent" and self.parent:
                common["mlflow.parentRunId"] = self.parent
            run = client.create_run(self._experiment, start_time=start, run_name=name, tags=common | tags)
            self._runs[key] = run.info.run_id
        return self._runs[key]

    def _log_dataset(self, client: MlflowClient, run_id: str, context: str) -> None:
        profile = json.dumps({"sizes": self.info.sizes, "classes": list(self.info.classes)})
        dataset = Dataset(
            name=Path(self.info.source).name, digest=self.info.fingerprint, source_type="local",
            source=json.dumps({"uri": self.info.source}), profile=profile[:16000],
        )  # fmt: skip
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def _deliver(self, client: MlflowClient, event: Event) -> None:
        assert self.parent is not None
        kind = event["event"]
        if kind == "session":
            client.update_run(self.parent, status="RUNNING")
        elif kind == "trial":
            self._trial(client, event)
        elif kind == "ended":
            self._ended(client, event)
        elif kind.startswith("final_"):
            self._final(client, kind, event)
        elif kind != "checkpoint":
            self._of_trial(client, kind, event)

    def _trial(self, client: MlflowClient, event: Event) -> None:
        number = event["number"]
        run_id = self._run(client, f"trial-{number}", f"{self.folder.name}-{number:03d}", "trial", event["time"], {
            "trial": str(number),
            "config": digest(event["params"]),
            "trial.seed": str(event["seed"]),
        })  # fmt: skip
        _log_params(client, run_id, event["params"])

    def _of_trial(self, client: MlflowClient, kind: str, event: Event) -> None:
        run_id = self._runs[f"trial-{event['number']}"]
        if kind == "result":
            _log_metrics(client, run_id, event["metrics"], event["epoch"], event["time"])
            if event["epoch"] == 1:
                client.set_tag(run_id, "device", event["device"])
            if event["diverged"]:
                client.set_tag(run_id, "diverged", f"epoch {event['epoch']}: {event['diverged']}")
            self._end_trial(client, run_id, event, event["outcome"])
        elif kind == "retry":
            client.set_tag(run_id, "retried", "true")
            client.log_text(run_id, event["traceback"], "traceback-retried.txt")
        elif kind == "failed":
            client.log_text(run_id, event["traceback"], "traceback.txt")
            self._end_trial(client, run_id, event, "failed")
        elif kind == "interrupted":
            self._end_trial(client, run_id, event, "interrupted")

    def _end_trial(self, client: MlflowClient, run_id: str, event: Event, outcome: str | None) -> None:
        if outcome is None:
            if run_id not in self._running:  # after a resume it may stand there as interrupted
                client.set_tag(run_id, "outcome", "running")
                client.update_run(run_id, status="RUNNING")
                self._running.add(run_id)
            return
        trial = self._state.trials[event["number"]]
        client.set_tag(run_id, "outcome", outcome)
        if trial.can_win:
            best = {f"best_val_{self.objective.metric}": trial.best_value, "best_epoch": float(trial.best_epoch)}
            # At the last epoch and its time, so that a trial interrupted, resumed and ended has one value a step.
            _log_metrics(client, run_id, best, trial.epoch, trial.reported)
        client.set_terminated(run_id, STATUS[outcome], event["time"])

    def _ended(self, client: MlflowClient, event: Event) -> None:
        assert self.parent is not None
        status, best = event["status"], self._state.best()
        client.set_tag(self.parent, "outcome", "completed" if status == "finished" else status)
        trials = self._state.trials.values()
        if best is not None and status != "interrupted":
            trained = sum(t.epoch for t in trials)
            _log_metrics(client, self.parent, {
                f"best_val_{self.objective.metric}": best.best_value,
                "best_trial": float(best.number),
                "best_epoch": float(best.best_epoch),
                "epochs_trained": float(trained),
            }, trained, max(t.reported for t in trials))  # fmt: skip
        client.log_dict(self.parent, event["rungs"], "rungs.json")
        client.set_terminated(
            self.parent, {"finished": "FINISHED", "interrupted": "KILLED"}.get(status, "FAILED"), event["time"]
        )

    def _final(self, client: MlflowClient, kind: str, event: Event) -> None:
        seed = event["seed"]
        key = f"final-{seed}-{event['trial']}-{event['epochs']}"
        name = f"{self.folder.name}-final" + (f"-{seed}" if seed else "")
        if kind == "final_started":
            run_id = self._run(client, key, name, "final", event["time"], {
                "config": digest(event["params"]), "final.seed": str(seed), "final.epochs": str(event["epochs"]),
                "final.trial": str(event["trial"]),
            })  # fmt: skip
            client.update_run(run_id, status="RUNNING")
            _log_params(client, run_id, event["params"])
            self._log_dataset(client, run_id, "train+val, test")
            return
        run_id = self._runs[key]
        if kind == "final_result":
            _log_metrics(client, run_id, event["metrics"], event["epoch"], event["time"])
            return
        _log_metrics(client, run_id, {f"test_{k}": v for k, v in event["test"].items()}, 0, event["time"])
        named = {f"baseline_{k}_test_{self.objective.metric}": v for k, v in event["baselines"].items()}
        _log_metrics(client, run_id, named, 0, event["time"])
        if seed == 0:
            _log_metrics(
                client,
                self.parent or "",
                {f"test_{k}": v for k, v in event["test"].items()},
                event["epochs"],
                event["time"],
            )
        client.set_tag(run_id, "device", event["device"])
        client.set_tag(run_id, "outcome", "completed")
        folder = self.folder.final(seed)
        client.log_artifacts(run_id, str(folder / "artifacts"))
        if seed == 0:
            self.registered[seed] = register(
                client, self.config.task, self.objective, run_id, folder, event["test"],
                self.info.test_fingerprint,
                {"search": self.folder.name, "config": digest(self.config.raw),
                 "git.commit": self.description["commit"], "data.fingerprint": self.info.fingerprint},
            )  # fmt: skip
        client.set_terminated(run_id, "FINISHED", event["time"])


def _log_params(client: MlflowClient, run_id: str, params: dict[str, Any]) -> None:
    shown = [Param(key, str(value)[:_PARAM_LIMIT]) for key, value in params.items() if value is not None]
    for start in range(0, len(shown), 100):
        client.log_batch(run_id, params=shown[start : start + 100])


def _log_metrics(client: MlflowClient, run_id: str, metrics: dict[str, float], step: int, when: int) -> None:
    """One batch; what is not finite is left out, as no chart shows it (the outcome says that a trial diverged)."""
    finite = [Metric(key, value, when, step) for key, value in metrics.items() if math.isfinite(value)]
    if finite:
        client.log_batch(run_id, metrics=finite)
