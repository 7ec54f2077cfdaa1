"""What each event of a journal becomes in MLflow.

Delivering an event twice changes nothing: runs are found again by their tags, and a metric's row is identified by its
key, step, value and time, which are the journal's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, assert_never

import yaml
from mlflow.tracking import MlflowClient

from search.algorithms.pareto import value_of
from search.config.load import SearchConfig, digest
from search.finals.variant_comparison import figures
from search.record.cost import cost
from search.record.events import (
    AuditEvent,
    Compared,
    Decided,
    Ended,
    Event,
    Failed,
    FinalEvent,
    FinalFinished,
    Proposed,
    RepeatEvent,
    Result,
    Retried,
)  # fmt: skip
from search.record.redaction import redacted
from search.record.state import SearchState
from search.record.store import SearchFolder, Store
from search.tracking.card import write_card
from search.tracking.registry import register
from search.tracking.runs import Runs
from search.tracking.views import pages, share_view, view_key
from trainables import DataInfo, Exported, Objective, get_task
from trainables.base.errors import Damaged
from trainables.base.storage import check_all

#: The status that MLflow shows for each outcome.
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
    """One search in MLflow: a parent run, and a run for each trial, repeat, audit and final training."""

    def __init__(
        self, client: MlflowClient, store: Store, folder: SearchFolder, config: SearchConfig,
        description: dict[str, Any], info: DataInfo, objective: Objective, state: SearchState,
    ) -> None:  # fmt: skip
        """Finds the search's runs, and makes its parent run if it is missing."""
        self.client, self.store, self.folder, self.config, self.description = client, store, folder, config, description
        self.info, self.objective, self._state = info, objective, state
        #: A sentence for each final model that was registered.
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
        if not client.get_run(self.parent).inputs.dataset_inputs:  # they come last, so a kill may have prevented them
            raw = {f"{s}.{k}": v for s in ("search", "resources", "data") for k, v in config.raw[s].items()}
            space = {f"space.{p.name}": p.describe() for p in config.space.parameters}
            self.runs.log_params(self.parent, raw | space)
            self.runs.flush(self.parent)
            client.log_text(self.parent, redacted(yaml.safe_dump(config.raw, sort_keys=False)), "config.yaml")
            key = view_key(description)
            share_view(client, self.runs.experiment, key, folder.name, self.parent, config, objective)
            self.runs.log_dataset(self.parent, "search")

    @property
    def pages(self) -> list[str]:
        """The addresses of the search in MLflow's page."""
        return pages(self.store, self.runs.experiment, view_key(self.description))

    def deliver(self, events: Iterable[Event]) -> None:
        """Writes events in their order; what goes to one run is sent together, in a fraction of the time."""
        self.runs.forget()
        for event in events:
            self._deliver(event)
        self.runs.flush_all()

    def _deliver(self, event: Event) -> None:
        match event["event"]:
            case "session":
                self.client.update_run(self.parent, status="RUNNING")
            case "warm_start":
                self.runs.set_tags(self.parent, {"warm_start": f"{len(event['trials'])} trials of {event['from']}"})
            case "trial":
                self._trial(event)
            case "result":
                self._result(event)
            case "retry" | "failed":
                self._failure(event)
            case "reopened" | "promoted":
                self._end_trial(event["number"], event["time"], None)
            case "timed_out" | "stopped_early" | "paused" | "interrupted" | "completed" as outcome:
                self._end_trial(event["number"], event["time"], outcome)
            case "checkpoint":
                pass
            case "final_started" | "final_result" | "final_finished":
                self._final(event)
            case "repeat_started" | "repeat_result" | "repeat_finished":
                self._repeat(event)
            case "compared":
                self._compared(event)
            case "audit_started" | "audit_result" | "audit_finished":
                self._audit(event)
            case "decided":
                self._decided(event)
            case "ended":
                self._ended(event)
            case _:
                assert_never(event)

    def _trial(self, event: Proposed) -> None:
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

    def _result(self, event: Result) -> None:
        run_id = self.runs[f"trial-{event['number']}"]
        self.runs.log(run_id, event["metrics"], event["epoch"], event["time"])
        if event["epoch"] == 1:
            self.runs.set_tags(run_id, {"device": event["device"]})
        if event["diverged"]:
            self.runs.set_tags(run_id, {"diverged": f"epoch {event['epoch']}: {event['diverged']}"})
        self._end_trial(event["number"], event["time"], event["outcome"])

    def _failure(self, event: Retried | Failed) -> None:
        run_id = self.runs[f"trial-{event['number']}"]
        if event["event"] == "failed":
            self.client.log_text(run_id, event["traceback"], "traceback.txt")
            self._end_trial(event["number"], event["time"], "failed")
            return
        self.runs.set_tags(run_id, {"retried": event["why"]})
        if event["micro_batches"] > 1:
            self.runs.set_tags(run_id, {"micro_batches": str(event["micro_batches"])})
        self.client.log_text(run_id, event["traceback"], "traceback-retried.txt")

    def _end_trial(self, number: int, time: int, outcome: str | None) -> None:
        """Gives a trial's run its outcome; None: it goes on."""
        run_id = self.runs[f"trial-{number}"]
        if outcome is None:
            if run_id not in self._running:
                self.runs.set_tags(run_id, {"outcome": "running"})
                self.client.update_run(run_id, status="RUNNING")
                self._running.add(run_id)
            return
        self._running.discard(run_id)
        trial = self._state.trials[number]
        self.runs.set_tags(run_id, {"outcome": outcome})
        if trial.curve:
            best = {f"best_val_{self.objective.metric}": trial.best_value, "best_epoch": float(trial.best_epoch)}
            others = {f"at_best_epoch/{o.metric}": value_of(trial, o) for o in self.config.objectives[1:]}
            figures = ((best | others) if trial.can_win else {}) | cost(trial, self.config.resources)
            # With the step and time of the last epoch, so that a trial that is interrupted, resumed and ended has one
            # value a step.
            self.runs.log(run_id, figures, trial.epoch, trial.reported)
        self.runs.terminate(run_id, STATUS[outcome], time)

    def _ended(self, event: Ended) -> None:
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

    def _final(self, event: FinalEvent) -> None:
        seed = event["seed"]
        merged = self._state.finals[event["trial"], seed].merged
        key = _final_key(seed, event["trial"], event["epochs"], merged)
        name = f"{self.folder.name}-final-{event['trial']:03d}" + (f"-{seed}" if seed else "")
        if event["event"] == "final_started":
            run_id = self.runs.make(key, name, "final", event["time"], {
                "config": digest(event["params"]), "final.seed": str(seed), "final.epochs": str(event["epochs"]),
                "final.trial": str(event["trial"]),
            })  # fmt: skip
            self.client.update_run(run_id, status="RUNNING")
            self.runs.log_params(run_id, event["params"])
            self.runs.log_dataset(run_id, "train+val, test" if merged else "train, test")
            return
        run_id = self.runs[key]
        if event["event"] == "final_result":
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

    def _register(self, trial: int, event: FinalFinished | Decided) -> None:
        """Registers the model of the first seed, not of the luckiest one, as the search's."""
        epochs, test = event["epochs"], event["test"]
        self.runs.log(self.parent, {f"test_{k}": v for k, v in test.items()}, event["spent"], event["time"])
        run_id = self.runs[_final_key(0, trial, epochs, self._state.finals[trial, 0].merged)]
        damage = self._damage(trial)
        if damage:
            made = f"python -m search retrain {self.folder.name}"
            said = f"no model is registered, as {damage}; make it again: {made}"
        elif isinstance(get_task(self.config.task), Exported):
            card = write_card(
                self.folder, self.config, self.description, self.info, self._state, trial, self.store.tracking_uri,
                run_id,
            )  # fmt: skip
            self.client.log_text(run_id, card, "model_card.md")
            said = register(
                self.client, self.config.task, self.objective, run_id,
                self.folder.final(trial, 0), test, self.info.test_fingerprint,
                {"search": self.folder.name, "trial": str(trial), "config": digest(self.config.raw),
                 "git.commit": self.description["commit"], "data.fingerprint": self.info.fingerprint}, card,
            )  # fmt: skip
        else:
            kept = self.folder.final(trial, 0) / "checkpoint.pt"
            said = f"no model is registered, as {self.config.task} has no `export`; its state is {kept}"
        if said not in self.registered:
            self.registered.append(said)

    def _damage(self, trial: int) -> Damaged | None:
        """What is wrong with the files of a final model, if they are not what was written."""
        try:
            check_all(self.folder.final(trial, 0), self._state.finals[trial, 0].digests)
        except Damaged as error:
            return error
        return None

    def _decided(self, event: Decided) -> None:
        finalists = ", ".join(str(row["trial"]) for row in event["finalists"])
        self.runs.set_tags(self.parent, {"finalists": finalists, "winner": str(event["winner"]).lower()})
        self.client.log_artifact(self.parent, str(self.folder.decision))
        self._register(event["champion"], event)

    def _repeat(self, event: RepeatEvent) -> None:
        value, seed, trial = event["value"], event["seed"], event["trial"]
        key, name = f"repeat-{trial}-{seed}", f"{self.folder.name}-{value}-{seed}"
        of = f"{self.config.search.balance}={value}"
        tags = {"repeat.of": of, "repeat.trial": str(trial), "repeat.seed": str(seed)}
        run_id = self.runs.make(key, name, "repeat", event["time"], tags)
        if event["event"] == "repeat_started":
            self.client.update_run(run_id, status="RUNNING")
            self.runs.log_params(run_id, event["params"])
        elif event["event"] == "repeat_result":
            self.runs.log(run_id, event["metrics"], event["epoch"], event["time"])
        else:
            tested = {f"test_{k}": v for k, v in event["test"].items()}
            numbers = {"best_epoch": float(event["best_epoch"]), "parameters": float(event["parameters"])}
            self.runs.log(run_id, tested | numbers, 0, event["time"])
            self.runs.set_tags(run_id, {"outcome": "completed"})
            self.runs.terminate(run_id, "FINISHED", event["time"])

    def _audit(self, event: AuditEvent) -> None:
        number = event["number"]
        tags = {"trial": str(number)}
        run_id = self.runs.make(
            f"audit-{number}", f"{self.folder.name}-{number:03d}-audit", "audit", event["time"], tags
        )
        if event["event"] == "audit_started":
            self.client.update_run(run_id, status="RUNNING")
            self.runs.log_params(run_id, self._state.trials[number].params)
        elif event["event"] == "audit_result":
            self.runs.log(run_id, event["metrics"], event["epoch"], event["time"])
        else:
            self.runs.set_tags(run_id, {"outcome": event["outcome"]})
            self.runs.terminate(run_id, "FINISHED", event["time"])

    def _compared(self, event: Compared) -> None:
        """Logs the comparison to the parent run: table, paragraph and pictures as files, figures as metrics."""
        for repeat in self._state.repeats.values():
            if repeat.test is None:  # it diverged, so no event ended its run
                run_id = self.runs[f"repeat-{repeat.trial}-{repeat.seed}"]
                self.runs.set_tags(run_id, {"outcome": "diverged"})
                self.runs.terminate(run_id, "FINISHED", event["time"])
        if self.folder.comparison.exists():
            self.client.log_artifacts(self.parent, str(self.folder.comparison), "comparison")
        frame = figures(self._state.repeats.values(), self.objective)
        for value, row in frame.iterrows():
            named = {f"comparison/{value}/{key}": float(row[key]) for key in ("test", "low", "high", "seconds")}
            self.runs.log(self.parent, named, 0, event["time"])


def _final_key(seed: int, trial: int, epochs: int, merged: bool) -> str:
    return f"final-{seed}-{trial}-{epochs}" + ("" if merged else "-kept")
