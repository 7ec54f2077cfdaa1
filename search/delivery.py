"""What each event of a journal is in MLflow.

Delivering an event twice changes nothing: runs are found again by their tags, and a metric's key, step, value and
time, which are the journal's, identify its row.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from search.comparison import figures
from search.config import SearchConfig, digest
from search.cost import cost
from search.journal import Event, SearchState
from search.redaction import redacted
from search.registry import register
from search.store import SearchFolder, Store
from trainables.task import DataInfo, Objective

#: An outcome, and the status that MLflow's own lists show for it.
STATUS = {
    "completed": "FINISHED",
    "stopped_early": "FINISHED",
    "timed_out": "FINISHED",
    "diverged": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
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


class Delivery:
    """One search in MLflow: its parent run and a run for each trial, repeat and final training."""

    def __init__(
        self, client: MlflowClient, store: Store, folder: SearchFolder, config: SearchConfig,
        description: dict[str, Any], info: DataInfo, objective: Objective, state: SearchState,
    ) -> None:  # fmt: skip
        """Finds the search's runs, and makes its parent run where it is missing."""
        self.client, self.store, self.folder, self.config = client, store, folder, config
        self.description, self.info, self.objective, self._state = description, info, objective, state
        self.parent: str | None = None
        #: What was done with the final model of a seed, for the summary.
        self.registered: dict[int, str] = {}
        self._runs: dict[str, str] = {}
        self._running: set[str] = set()
        self._metrics: dict[str, list[Metric]] = {}
        self._find_runs()

    def _find_runs(self) -> None:
        """The search's runs so far, and its parent run, made where it is missing."""
        self._experiment = experiment_id(self.client, self.store, self.config.task)
        token = None
        while True:
            page = self.client.search_runs(
                [self._experiment], f"tags.`search.id` = '{self.description['id']}'", page_token=token
            )
            self._runs |= {run.data.tags["search.run"]: run.info.run_id for run in page}
            if not (token := page.token):
                break
        known = "parent" in self._runs
        self.parent = self._run("parent", self.folder.name, "parent", self.description["created"], {
            "config": digest(self.config.raw),
            "data.source": self.info.source,
            "data.notes": "; ".join(self.info.notes),
            "created": str(self.description["created"]),
            "objective": f"{self.objective.metric} {self.objective.mode}",
            "searcher": self.config.search.searcher,
            "scheduler": self.config.search.scheduler,
            "resume": f"python -m search resume {self.folder.name}",
        })  # fmt: skip
        if not known:
            raw = {f"{s}.{k}": v for s in ("search", "resources", "data") for k, v in self.config.raw[s].items()}
            space = {f"space.{p.name}": p.describe() for p in self.config.space.parameters}
            _log_params(self.client, self.parent, raw | space)
            self.client.log_text(self.parent, redacted(yaml.safe_dump(self.config.raw, sort_keys=False)), "config.yaml")
            self._log_dataset(self.parent, "search")

    def _run(self, key: str, name: str, role: str, start: int, tags: dict[str, str]) -> str:
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
                **{f"data.{name}": str(value) for name, value in self.info.chosen.items()},
                "git.commit": self.description["commit"],
                "seed": str(self.config.search.seed),
                "mlflow.user": os.environ.get("USER", "unknown"),
                "mlflow.source.name": "python -m search",
            }
            if role != "parent" and self.parent:
                common["mlflow.parentRunId"] = self.parent
            shown = {tag: redacted(value) for tag, value in (common | tags).items()}
            run = self.client.create_run(self._experiment, start_time=start, run_name=name, tags=shown)
            self._runs[key] = run.info.run_id
        return self._runs[key]

    def _log_dataset(self, run_id: str, context: str) -> None:
        profile = json.dumps({"sizes": self.info.sizes, "classes": list(self.info.classes)})
        dataset = Dataset(
            name=Path(self.info.source).name, digest=self.info.fingerprint, source_type="local",
            source=json.dumps({"uri": redacted(self.info.source)}), profile=profile[:16000],
        )  # fmt: skip
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def deliver(self, events: Iterable[Event]) -> None:
        """Writes events in their order; each run's metrics together, which takes a fraction of the time."""
        self._metrics.clear()  # of an attempt that failed; its events are delivered again
        for event in events:
            self._deliver(event)
        for run_id in list(self._metrics):
            self._flush(run_id)

    def _log(self, run_id: str, metrics: dict[str, float], step: int, when: int) -> None:
        """What is not finite is left out, as no chart shows it (the outcome says that a trial diverged)."""
        finite = [Metric(key, value, when, step) for key, value in metrics.items() if math.isfinite(value)]
        self._metrics.setdefault(run_id, []).extend(finite)

    def _flush(self, run_id: str) -> None:
        metrics = self._metrics.pop(run_id, [])
        for start in range(0, len(metrics), _BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + _BATCH])

    def _terminate(self, run_id: str, status: str, when: int) -> None:
        self._flush(run_id)  # a finished run is whole
        self.client.set_terminated(run_id, status, when)

    def _deliver(self, event: Event) -> None:
        assert self.parent is not None
        kind = event["event"]
        if kind == "session":
            self.client.update_run(self.parent, status="RUNNING")
        elif kind == "warm_start":
            self.client.set_tag(self.parent, "warm_start", f"{len(event['trials'])} trials of {event['from']}")
        elif kind == "trial":
            self._trial(event)
        elif kind == "ended":
            self._ended(event)
        elif kind.startswith("final_"):
            self._final(kind, event)
        elif kind.startswith("repeat_"):
            self._repeat(kind, event)
        elif kind == "compared":
            self._compared(event)
        elif kind != "checkpoint":
            self._of_trial(kind, event)

    def _trial(self, event: Event) -> None:
        number = event["number"]
        run_id = self._run(f"trial-{number}", f"{self.folder.name}-{number:03d}", "trial", event["time"], {
            "trial": str(number),
            "config": digest(event["params"]),
            "trial.seed": str(event["seed"]),
        })  # fmt: skip
        _log_params(self.client, run_id, event["params"])

    def _of_trial(self, kind: str, event: Event) -> None:
        run_id = self._runs[f"trial-{event['number']}"]
        if kind == "result":
            self._log(run_id, event["metrics"], event["epoch"], event["time"])
            if event["epoch"] == 1:
                self.client.set_tag(run_id, "device", event["device"])
            if event["diverged"]:
                self.client.set_tag(run_id, "diverged", f"epoch {event['epoch']}: {event['diverged']}")
            self._end_trial(run_id, event, event["outcome"])
        elif kind == "retry":
            self.client.set_tag(run_id, "retried", event["why"])
            if event["micro_batches"] > 1:
                self.client.set_tag(run_id, "micro_batches", str(event["micro_batches"]))
            self.client.log_text(run_id, event["traceback"], "traceback-retried.txt")
        elif kind == "failed":
            self.client.log_text(run_id, event["traceback"], "traceback.txt")
            self._end_trial(run_id, event, "failed")
        elif kind == "reopened":
            self._end_trial(run_id, event, None)
        else:  # timed_out, interrupted
            self._end_trial(run_id, event, kind)

    def _end_trial(self, run_id: str, event: Event, outcome: str | None) -> None:
        if outcome is None:
            if run_id not in self._running:  # after a resume it may stand there as interrupted
                self.client.set_tag(run_id, "outcome", "running")
                self.client.update_run(run_id, status="RUNNING")
                self._running.add(run_id)
            return
        trial = self._state.trials[event["number"]]
        self.client.set_tag(run_id, "outcome", outcome)
        if trial.curve:
            best = {f"best_val_{self.objective.metric}": trial.best_value, "best_epoch": float(trial.best_epoch)}
            figures = (best if trial.can_win else {}) | cost(trial, self.config.resources)
            # At the last epoch and its time, so that a trial interrupted, resumed and ended has one value a step.
            self._log(run_id, figures, trial.epoch, trial.reported)
        self._terminate(run_id, STATUS[outcome], event["time"])

    def _ended(self, event: Event) -> None:
        assert self.parent is not None
        status, best = event["status"], self._state.best()
        self.client.set_tag(self.parent, "outcome", "completed" if status == "finished" else status)
        trials = self._state.trials.values()
        if best is not None and status != "interrupted":
            trained = sum(t.epoch for t in trials)
            self._log(self.parent, {
                f"best_val_{self.objective.metric}": best.best_value,
                "best_trial": float(best.number),
                "best_epoch": float(best.best_epoch),
                "epochs_trained": float(trained),
            }, trained, max(t.reported for t in trials))  # fmt: skip
        self.client.log_dict(self.parent, event["rungs"], "rungs.json")
        self._terminate(
            self.parent, {"finished": "FINISHED", "interrupted": "KILLED"}.get(status, "FAILED"), event["time"]
        )

    def _final(self, kind: str, event: Event) -> None:
        seed = event["seed"]
        key = f"final-{seed}-{event['trial']}-{event['epochs']}"
        name = f"{self.folder.name}-final" + (f"-{seed}" if seed else "")
        if kind == "final_started":
            run_id = self._run(key, name, "final", event["time"], {
                "config": digest(event["params"]), "final.seed": str(seed), "final.epochs": str(event["epochs"]),
                "final.trial": str(event["trial"]),
            })  # fmt: skip
            self.client.update_run(run_id, status="RUNNING")
            _log_params(self.client, run_id, event["params"])
            self._log_dataset(run_id, "train+val, test")
            return
        run_id = self._runs[key]
        if kind == "final_result":
            self._log(run_id, event["metrics"], event["epoch"], event["time"])
            if "samples" in event:
                self.client.log_text(run_id, "\n".join(event["samples"]), f"samples/epoch-{event['epoch']:04d}.txt")
            return
        self._log(run_id, {f"test_{k}": v for k, v in event["test"].items()}, 0, event["time"])
        named = {f"baseline_{k}_test_{self.objective.metric}": v for k, v in event["baselines"].items()}
        self._log(run_id, named, 0, event["time"])
        if seed == 0:
            self._log(
                self.parent or "",
                {f"test_{k}": v for k, v in event["test"].items()},
                event["epochs"],
                event["time"],
            )
        self.client.set_tag(run_id, "device", event["device"])
        self.client.set_tag(run_id, "outcome", "completed")
        folder = self.folder.final(seed)
        self.client.log_artifacts(run_id, str(folder / "artifacts"))
        if seed == 0:
            self.registered[seed] = register(
                self.client, self.config.task, self.objective, run_id, folder, event["test"],
                self.info.test_fingerprint,
                {"search": self.folder.name, "config": digest(self.config.raw),
                 "git.commit": self.description["commit"], "data.fingerprint": self.info.fingerprint},
            )  # fmt: skip
        self._terminate(run_id, "FINISHED", event["time"])

    def _repeat(self, kind: str, event: Event) -> None:
        value, seed, trial = event["value"], event["seed"], event["trial"]
        key, name = f"repeat-{trial}-{seed}", f"{self.folder.name}-{value}-{seed}"
        of = f"{self.config.search.balance}={value}"
        tags = {"repeat.of": of, "repeat.trial": str(trial), "repeat.seed": str(seed)}
        run_id = self._run(key, name, "repeat", event["time"], tags)
        if kind == "repeat_started":
            self.client.update_run(run_id, status="RUNNING")
            _log_params(self.client, run_id, event["params"])
        elif kind == "repeat_result":
            self._log(run_id, event["metrics"], event["epoch"], event["time"])
        else:
            tested = {f"test_{k}": v for k, v in event["test"].items()}
            numbers = {"best_epoch": float(event["best_epoch"]), "parameters": float(event["parameters"])}
            self._log(run_id, tested | numbers, 0, event["time"])
            self.client.set_tag(run_id, "outcome", "completed")
            self._terminate(run_id, "FINISHED", event["time"])

    def _compared(self, event: Event) -> None:
        """Table, words and pictures to the parent run, and what can be charted as metrics."""
        assert self.parent is not None
        for repeat in self._state.repeats.values():
            if repeat.test is None:  # it diverged, so nothing ended its run
                run_id = self._runs[f"repeat-{repeat.trial}-{repeat.seed}"]
                self.client.set_tag(run_id, "outcome", "diverged")
                self._terminate(run_id, "FINISHED", event["time"])
        if self.folder.comparison.exists():
            self.client.log_artifacts(self.parent, str(self.folder.comparison), "comparison")
        frame = figures(self._state.repeats.values(), self.objective)
        for value, row in frame.iterrows():
            named = {f"comparison/{value}/{key}": float(row[key]) for key in ("test", "low", "high", "seconds")}
            self._log(self.parent, named, 0, event["time"])


def _log_params(client: MlflowClient, run_id: str, params: dict[str, Any]) -> None:
    shown = [Param(key, redacted(str(value))[:_PARAM_LIMIT]) for key, value in params.items() if value is not None]
    for start in range(0, len(shown), 100):
        client.log_batch(run_id, params=shown[start : start + 100])
