"""What each event of a journal is in MLflow.

Delivering an event twice changes nothing: runs are found again by their tags, and a metric's key, step, value and
time, which are the journal's, identify its row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml
from mlflow.tracking import MlflowClient

from search.comparison import figures
from search.config import SearchConfig, digest
from search.cost import cost
from search.front import value_of
from search.journal import Event
from search.redaction import redacted
from search.registry import register
from search.runs import Runs
from search.state import SearchState
from search.store import SearchFolder, Store
from trainables.task import DataInfo, Objective

#: An outcome, and the status that MLflow's own lists show for it.
STATUS = {
    "completed": "FINISHED",
    "stopped_early": "FINISHED",
    "timed_out": "FINISHED",
    "diverged": "FINISHED",
    "failed": "FAILED",
    "paused": "SCHEDULED",
    "interrupted": "KILLED",
}


class Delivery:
    """One search in MLflow: its parent run and a run for each trial, repeat and final training."""

    def __init__(
        self, client: MlflowClient, store: Store, folder: SearchFolder, config: SearchConfig,
        description: dict[str, Any], info: DataInfo, objective: Objective, state: SearchState,
    ) -> None:  # fmt: skip
        """Finds the search's runs, and makes its parent run where it is missing."""
        self.client, self.folder, self.config, self.description = client, folder, config, description
        self.info, self.objective, self._state = info, objective, state
        #: What was done with the final models, for the summary.
        self.registered: list[str] = []
        self._running: set[str] = set()
        self.runs = Runs(client, store, folder, config, description, info)
        self.parent = self.runs.make("parent", folder.name, "parent", description["created"], {
            "config": digest(config.raw),
            "data.source": info.source,
            "data.notes": "; ".join(info.notes),
            "created": str(description["created"]),
            "objective": ", ".join(config.search.objective or [f"{objective.metric} {objective.mode}"]),
            "searcher": config.search.searcher,
            "scheduler": config.search.scheduler,
            "resume": f"python -m search resume {folder.name}",
        })  # fmt: skip
        if not client.get_run(self.parent).inputs.dataset_inputs:  # which are given last: a kill may come before
            raw = {f"{s}.{k}": v for s in ("search", "resources", "data") for k, v in config.raw[s].items()}
            space = {f"space.{p.name}": p.describe() for p in config.space.parameters}
            self.runs.log_params(self.parent, raw | space)
            self.runs.flush(self.parent)
            client.log_text(self.parent, redacted(yaml.safe_dump(config.raw, sort_keys=False)), "config.yaml")
            self.runs.log_dataset(self.parent, "search")

    def deliver(self, events: Iterable[Event]) -> None:
        """Writes events in their order; what is logged to a run together, which takes a fraction of the time."""
        self.runs.forget()
        for event in events:
            self._deliver(event)
        self.runs.flush_all()

    def _deliver(self, event: Event) -> None:
        kind = event["event"]
        if kind == "session":
            self.client.update_run(self.parent, status="RUNNING")
        elif kind == "warm_start":
            self.runs.set_tags(self.parent, {"warm_start": f"{len(event['trials'])} trials of {event['from']}"})
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
        elif kind.startswith("audit_"):
            self._audit(kind, event)
        elif kind == "decided":
            self._decided(event)
        elif kind != "checkpoint":
            self._of_trial(kind, event)

    def _trial(self, event: Event) -> None:
        number, key = event["number"], f"trial-{event['number']}"
        known = key in self.runs
        run_id = self.runs.make(key, f"{self.folder.name}-{number:03d}", "trial", event["time"], {
            "trial": str(number),
            "config": digest(event["params"]),
            "trial.seed": str(event["seed"]),
            "outcome": "running",
        })  # fmt: skip
        if not known:  # else it may stand there as interrupted
            self._running.add(run_id)
        self.runs.log_params(run_id, event["params"])

    def _of_trial(self, kind: str, event: Event) -> None:
        run_id = self.runs[f"trial-{event['number']}"]
        if kind == "result":
            self.runs.log(run_id, event["metrics"], event["epoch"], event["time"])
            if event["epoch"] == 1:
                self.runs.set_tags(run_id, {"device": event["device"]})
            if event["diverged"]:
                self.runs.set_tags(run_id, {"diverged": f"epoch {event['epoch']}: {event['diverged']}"})
            self._end_trial(run_id, event, event["outcome"])
        elif kind == "retry":
            self.runs.set_tags(run_id, {"retried": event["why"]})
            if event["micro_batches"] > 1:
                self.runs.set_tags(run_id, {"micro_batches": str(event["micro_batches"])})
            self.client.log_text(run_id, event["traceback"], "traceback-retried.txt")
        elif kind == "failed":
            self.client.log_text(run_id, event["traceback"], "traceback.txt")
            self._end_trial(run_id, event, "failed")
        elif kind in ("reopened", "promoted"):
            self._end_trial(run_id, event, None)
        else:  # timed_out, stopped_early, interrupted
            self._end_trial(run_id, event, kind)

    def _end_trial(self, run_id: str, event: Event, outcome: str | None) -> None:
        if outcome is None:
            if run_id not in self._running:
                self.runs.set_tags(run_id, {"outcome": "running"})
                self.client.update_run(run_id, status="RUNNING")
                self._running.add(run_id)
            return
        self._running.discard(run_id)
        trial = self._state.trials[event["number"]]
        self.runs.set_tags(run_id, {"outcome": outcome})
        if trial.curve:
            best = {f"best_val_{self.objective.metric}": trial.best_value, "best_epoch": float(trial.best_epoch)}
            others = {f"at_best_epoch/{o.metric}": value_of(trial, o) for o in self.config.objectives[1:]}
            figures = ((best | others) if trial.can_win else {}) | cost(trial, self.config.resources)
            # At the last epoch and its time, so that a trial interrupted, resumed and ended has one value a step.
            self.runs.log(run_id, figures, trial.epoch, trial.reported)
        self.runs.terminate(run_id, STATUS[outcome], event["time"])

    def _ended(self, event: Event) -> None:
        status, best = event["status"], self._state.best()
        self.runs.set_tags(self.parent, {"outcome": "completed" if status == "finished" else status})
        trials = self._state.trials.values()
        if best is not None and status != "interrupted":
            trained = sum(t.epoch for t in trials)
            self.runs.log(self.parent, {
                f"best_val_{self.objective.metric}": best.best_value,
                "best_trial": float(best.number),
                "best_epoch": float(best.best_epoch),
                "epochs_trained": float(trained),
            }, trained, max(t.reported for t in trials))  # fmt: skip
        self.client.log_dict(self.parent, event["rungs"], "rungs.json")
        self.runs.terminate(
            self.parent, {"finished": "FINISHED", "interrupted": "KILLED"}.get(status, "FAILED"), event["time"]
        )

    def _final(self, kind: str, event: Event) -> None:
        seed = event["seed"]
        key = f"final-{seed}-{event['trial']}-{event['epochs']}"
        name = f"{self.folder.name}-final-{event['trial']:03d}" + (f"-{seed}" if seed else "")
        if kind == "final_started":
            run_id = self.runs.make(key, name, "final", event["time"], {
                "config": digest(event["params"]), "final.seed": str(seed), "final.epochs": str(event["epochs"]),
                "final.trial": str(event["trial"]),
            })  # fmt: skip
            self.client.update_run(run_id, status="RUNNING")
            self.runs.log_params(run_id, event["params"])
            self.runs.log_dataset(run_id, "train+val, test")
            return
        run_id = self.runs[key]
        if kind == "final_result":
            self.runs.log(run_id, event["metrics"], event["epoch"], event["time"])
            if "samples" in event:
                self.client.log_text(run_id, "\n".join(event["samples"]), f"samples/epoch-{event['epoch']:04d}.txt")
            return
        self.runs.log(run_id, {f"test_{k}": v for k, v in event["test"].items()}, 0, event["time"])
        named = {f"baseline_{k}_test_{self.objective.metric}": v for k, v in event["baselines"].items()}
        self.runs.log(run_id, named, 0, event["time"])
        self.runs.set_tags(run_id, {"device": event["device"], "outcome": "completed"})
        self.client.log_artifacts(run_id, str(self.folder.final(event["trial"], seed) / "artifacts"))
        if event["chosen"]:
            self._register(event["trial"], event)
        self.runs.terminate(run_id, "FINISHED", event["time"])

    def _register(self, trial: int, event: Event) -> None:
        """The model that stands for the search: that of the first seed, not of the luckiest."""
        epochs, test = event["epochs"], event["test"]
        self.runs.log(self.parent, {f"test_{k}": v for k, v in test.items()}, event["spent"], event["time"])
        said = register(
            self.client, self.config.task, self.objective, self.runs[f"final-0-{trial}-{epochs}"],
            self.folder.final(trial, 0), test, self.info.test_fingerprint,
            {"search": self.folder.name, "trial": str(trial), "config": digest(self.config.raw),
             "git.commit": self.description["commit"], "data.fingerprint": self.info.fingerprint},
        )  # fmt: skip
        if said not in self.registered:
            self.registered.append(said)

    def _decided(self, event: Event) -> None:
        finalists = ", ".join(str(row["trial"]) for row in event["finalists"])
        self.runs.set_tags(self.parent, {"finalists": finalists, "winner": str(event["winner"]).lower()})
        self.client.log_artifact(self.parent, str(self.folder.decision))
        self._register(event["champion"], event)

    def _repeat(self, kind: str, event: Event) -> None:
        value, seed, trial = event["value"], event["seed"], event["trial"]
        key, name = f"repeat-{trial}-{seed}", f"{self.folder.name}-{value}-{seed}"
        of = f"{self.config.search.balance}={value}"
        tags = {"repeat.of": of, "repeat.trial": str(trial), "repeat.seed": str(seed)}
        run_id = self.runs.make(key, name, "repeat", event["time"], tags)
        if kind == "repeat_started":
            self.client.update_run(run_id, status="RUNNING")
            self.runs.log_params(run_id, event["params"])
        elif kind == "repeat_result":
            self.runs.log(run_id, event["metrics"], event["epoch"], event["time"])
        else:
            tested = {f"test_{k}": v for k, v in event["test"].items()}
            numbers = {"best_epoch": float(event["best_epoch"]), "parameters": float(event["parameters"])}
            self.runs.log(run_id, tested | numbers, 0, event["time"])
            self.runs.set_tags(run_id, {"outcome": "completed"})
            self.runs.terminate(run_id, "FINISHED", event["time"])

    def _audit(self, kind: str, event: Event) -> None:
        number = event["number"]
        tags = {"trial": str(number)}
        run_id = self.runs.make(
            f"audit-{number}", f"{self.folder.name}-{number:03d}-audit", "audit", event["time"], tags
        )
        if kind == "audit_started":
            self.client.update_run(run_id, status="RUNNING")
            self.runs.log_params(run_id, self._state.trials[number].params)
        elif kind == "audit_result":
            self.runs.log(run_id, event["metrics"], event["epoch"], event["time"])
        else:
            self.runs.set_tags(run_id, {"outcome": event["outcome"]})
            self.runs.terminate(run_id, "FINISHED", event["time"])

    def _compared(self, event: Event) -> None:
        """Table, words and pictures to the parent run, and what can be charted as metrics."""
        for repeat in self._state.repeats.values():
            if repeat.test is None:  # it diverged, so nothing ended its run
                run_id = self.runs[f"repeat-{repeat.trial}-{repeat.seed}"]
                self.runs.set_tags(run_id, {"outcome": "diverged"})
                self.runs.terminate(run_id, "FINISHED", event["time"])
        if self.folder.comparison.exists():
            self.client.log_artifacts(self.parent, str(self.folder.comparison), "comparison")
        frame = figures(self._state.repeats.values(), self.objective)
        for value, row in frame.iterrows():
            named = {f"comparison/{value}/{key}": float(row[key]) for key in ("test", "low", "high", "seconds")}
            self.runs.log(self.parent, named, 0, event["time"])
