"""Writes each event of a journal to MLflow.

Delivering an event twice changes nothing: tags identify a run, and key, step, value and time identify a row of a
metric; all of them come from the journal. The parent run holds the number of delivered events. A database that was
deleted, restored from a backup or replaced therefore gets the events that it lacks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, assert_never

import yaml
from mlflow.tracking import MlflowClient

from search.core.config import SearchConfig, digest
from search.core.cost import cost
from search.core.events import (
    AuditEvent,
    Compared,
    Decided,
    Ended,
    Event,
    Failed,
    FinalEvent,
    FinalFinished,
    LimitReached,
    Proposed,
    RepeatEvent,
    Requested,
    Result,
    Retried,
    TrialEvent,
    WarmStarted,
)  # fmt: skip
from search.core.pareto import value_of
from search.core.record import SearchRecord
from search.core.redaction import redacted
from search.core.state import FinalRun, SearchState, Trial
from search.core.store import SearchFolder, Store
from search.final.variant_comparison import variant_figures
from search.tracking.card import write_card
from search.tracking.model_registry import register
from search.tracking.names import DELIVERED, NOTE, storable_text
from search.tracking.runs import MissingRun, RefusedRun, Runs, is_refusal, python_values, reason_of
from search.tracking.views import search_pages, share_view, view_key
from trainables import DataInfo, Exported, Objective, get_task
from trainables.base.digests import check_all
from trainables.base.errors import Damaged

#: The status that MLflow shows for each outcome.
STATUS = {
    "completed": "FINISHED",
    "stopped_early": "FINISHED",
    "timed_out": "FINISHED",
    "diverged": "FINISHED",
    "infeasible": "FINISHED",
    "failed": "FAILED",
    "paused": "SCHEDULED",
    "interrupted": "KILLED",
}

#: Metrics of a whole trial, logged beside the metrics of its epochs. A metric of the training with one of these names
#: is logged as `training/NAME`.
SUMMARY = {"best_epoch", "best_step", "seconds", "cpu_seconds", "gpu_seconds", "cost", "energy_joules_in_all"}
#: The name `energy_joules` is taken by the metric of each epoch.
_TOTAL = {"energy_joules": "energy_joules_in_all"}


class Delivery:
    """One search in MLflow: a parent run, and a run for each trial, repeat, audit and final training."""

    def __init__(
        self, client: MlflowClient, store: Store, folder: SearchFolder, config: SearchConfig,
        record: SearchRecord, info: DataInfo, objective: Objective, warn: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Finds the runs of the search, and creates its parent run if it is missing.

        Args:
            warn: gets a sentence about each item that MLflow refuses for good.
        """
        self.client, self.store, self.folder, self.config, self.record = client, store, folder, config, record
        self.info, self.objective, self._warn = info, objective, warn
        self._unit = config.search.unit
        #: The state of the search after the delivered events. What is written depends only on it.
        self._state = SearchState(objective, config.objectives, config.search.preference)
        self._applied = 0
        #: The epochs and the best trial that the parent run shows.
        self._shown: tuple[int, int | None] = 0, None
        #: A sentence for each final model that was registered.
        self.registered: list[str] = []
        self._running: set[str] = set()
        self.runs = Runs(client, store, folder, config, record, info, warn)
        self.parent = self.runs.make("parent", folder.name, "parent", record.created, {
            DELIVERED: "0",
            "config": digest(python_values(config.raw)),
            "data.source": info.source,
            "data.notes": "; ".join(info.notes),
            "created": str(record.created),
            "objective": ", ".join(config.search.objective or [f"{objective.metric} {objective.mode}"]),
            "searcher": config.search.searcher,
            "scheduler": config.search.scheduler,
            "resume": f"python -m search resume {folder.name}",
            NOTE: self._about(),
        })  # fmt: skip
        if not client.get_run(self.parent).inputs.dataset_inputs:  # logged last: a kill may have prevented it
            self._describe()

    def _describe(self) -> None:
        """Logs the configuration, the view for MLflow's page and the data set to the parent run."""
        self.runs.log_params(self.parent, self.config.by_name)
        self.runs.flush(self.parent)
        with self._leaving_out("configuration"):
            shown = redacted(yaml.safe_dump(python_values(self.config.raw), sort_keys=False))
            self.client.log_text(self.parent, storable_text(shown), "config.yaml")
        with self._leaving_out("view"):
            key, about = view_key(self.record.id), (self.parent, self.config, self.objective)
            share_view(self.client, self.runs.experiment, key, self.folder.name, *about)
        with self._leaving_out("data set"):
            self.runs.log_dataset(self.parent, "search")

    def _about(self) -> str:
        """The description of the parent run, in Markdown: the searched space, the best trial, how to continue."""
        config, best = self.config.search, self._state.best()
        searched = [f"- `{p.name}`: {p.describe()}" for p in self.config.space.parameters if p.searched]
        return "\n".join([
            f"Search of the task **{self.config.task}** on {redacted(self.info.source)}: up to {config.trials} trials "
            f"of {config.unit.count(config.epochs)}, {config.searcher} and {config.scheduler}, for "
            f"{self.objective.metric} ({self.objective.mode}).",
            "",
            f"Best so far: {self._best(best, f'trial {best.number}, ') if best else 'no trial has a result yet'}.",
            "",
            "Searched:",
            *searched,
            "",
            f"Go on after an interruption: `python -m search resume {self.folder.name}`",
        ])  # fmt: skip

    @property
    def pages(self) -> list[str]:
        """The addresses of the search in MLflow's page."""
        return search_pages(self.store, self.runs.experiment, view_key(self.record.id))

    def deliver(self, events: Sequence[Event]) -> None:
        """Writes the events that MLflow lacks; the items of one run are sent together.

        An item that MLflow refuses for good is left out, with a warning. Otherwise no later event would arrive.

        Raises:
            MissingRun: MLflow lacks a run that an earlier event created; deliver again from the first event.
        """
        start = self.runs.delivered if self._continues(events) else 0
        for event in events[self._applied : start]:
            self._state.apply(event)
        if self._applied < start:
            self._shown = self._standing()
        for event in events[start:]:
            self._state.apply(event)
            with self._leaving_out(_named(event)):
                try:
                    self._deliver(event)
                except MissingRun as error:
                    if start:
                        raise
                    raise LookupError(f"there is no run {error}") from error
        self._applied = len(events)
        self._show_best(events[-1]["time"])
        self.runs.flush_all()
        self.runs.confirm(len(events), digest(events[-1]))

    def _continues(self, events: Sequence[Event]) -> bool:
        """Whether the delivered events are the first events of this journal. False for a journal that lost lines."""
        count = self.runs.delivered
        return count <= len(events) and (count == 0 or self.runs.mark == digest(events[count - 1]))

    @contextlib.contextmanager
    def _leaving_out(self, item: str) -> Iterator[None]:
        """Turns a refusal within the block that MLflow would repeat into a warning about `item`."""
        try:
            yield
        except RefusedRun:
            pass  # `Runs.make` warned already
        except Exception as error:
            if not is_refusal(error):
                raise
            self._warn(f"MLflow takes no {item} of {self.folder.name} ({reason_of(error)}); it is left out there")

    def _standing(self) -> tuple[int, int | None]:
        """The sum of the trials' epochs, and the number of the best trial."""
        best = self._state.best()
        return sum(trial.epoch for trial in self._state.trials.values()), None if best is None else best.number

    def _show_best(self, now: int) -> None:
        """Shows the best trial on the parent run, also while the search runs."""
        standing, best = self._standing(), self._state.best()
        if best is None or standing == self._shown:
            return
        # A value that is delivered again must have the same time, or MLflow would hold it twice.
        fresh = standing[0] > self._shown[0]
        self.runs.log(self.parent, {
            f"best_{self.objective.key}": best.best_value,
            "best_trial": float(best.number),
            **self._best_place(best),
            "epochs_trained": float(standing[0]),
        }, standing[0], max(t.reported for t in self._state.trials.values()) if fresh else now)  # fmt: skip
        self.runs.set_tags(self.parent, {"best": self._best(best, f"trial {best.number}: "), NOTE: self._about()})
        self._shown = standing

    def _best_place(self, trial: Trial) -> dict[str, float]:
        """The epoch of a trial's best value; in a search that counts in steps, the report's number and its step."""
        best = {"best_epoch": float(trial.best_epoch)}
        return best if self._unit.report_every is None else {**best, "best_step": float(self._unit(trial.best_epoch))}

    def _best(self, trial: Trial, begin: str = "") -> str:
        return f"{begin}{self.objective.key} {trial.best_value:.4g} at {self._unit.at(trial.best_epoch)}"

    def _deliver(self, event: Event) -> None:
        match event["event"]:
            case "session":
                self.client.update_run(self.parent, status="RUNNING")
            case "warm_start" | "request" | "limit":
                self._tag(event)
            case "trial":
                self._trial(event)
            case "result" | "checkpoint" | "retry" | "failed":
                self._trial_event(event)
            case (
                "promoted" | "stopped_early" | "paused" | "timed_out" | "interrupted" | "reopened" | "completed"
                | "infeasible"
            ):  # fmt: skip
                self._trial_event(event)
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

    def _tag(self, event: WarmStarted | Requested | LimitReached) -> None:
        """Names the start and the end of the search on the parent run. What a request changed has its own events."""
        if event["event"] == "limit":
            self.runs.set_tags(self.parent, {"limit": f"{event['why']}: {event['reason']}"})
        elif event["event"] == "warm_start":
            self.runs.set_tags(self.parent, {"warm_start": f"{len(event['trials'])} trials of {event['from']}"})

    def _trial_event(self, event: TrialEvent) -> None:
        match event["event"]:
            case "result":
                self._result(event)
            case "retry" | "failed":
                self._failure(event)
            case "reopened" | "promoted":
                self._end_trial(event["number"], event["time"], None)
            case "timed_out" | "stopped_early" | "paused" | "interrupted" | "completed" as outcome:
                self._end_trial(event["number"], event["time"], outcome)
            case "infeasible":
                self.runs.set_tags(self.runs[f"trial-{event['number']}"], {"infeasible": event.get("reason", "")})
                self._end_trial(event["number"], event["time"], "infeasible")
            case "checkpoint":
                pass
            case _:
                assert_never(event)

    def _trial(self, event: Proposed) -> None:
        number, key = event["number"], f"trial-{event['number']}"
        has_run = key in self.runs
        run_id = self.runs.make(key, f"trial {number:03d}", "trial", event["time"], {
            "trial": str(number),
            "config": digest(python_values(event["params"])),
            "trial.seed": str(event["seed"]),
            "outcome": "running",
        })  # fmt: skip
        if not has_run:  # else its run may have the outcome `interrupted`
            self._running.add(run_id)
        self.runs.log_params(run_id, event["params"])

    def _result(self, event: Result) -> None:
        run_id = self.runs[f"trial-{event['number']}"]
        measured = {f"training/{name}" if name in SUMMARY else name: value for name, value in event["metrics"].items()}
        self.runs.log(run_id, measured, self._unit(event["epoch"]), event["time"])
        if event["epoch"] == 1:
            self.runs.set_tags(run_id, {"device": event["device"]})
        if event["diverged"]:
            self.runs.set_tags(run_id, {"diverged": f"{self._unit.at(event['epoch'])}: {event['diverged']}"})
        if why := event.get("infeasible"):
            self.runs.set_tags(run_id, {"infeasible": f"{self._unit.at(event['epoch'])}: {why}"})
        trial = self._state.trials[event["number"]]
        if trial.best_epoch == event["epoch"]:
            self.runs.set_tags(run_id, {"best": self._best(trial)})
        self._end_trial(event["number"], event["time"], event["outcome"])

    def _failure(self, event: Retried | Failed) -> None:
        run_id = self.runs[f"trial-{event['number']}"]
        if event["event"] == "failed":
            self.client.log_text(run_id, storable_text(event["traceback"]), "traceback.txt")
            self._end_trial(event["number"], event["time"], "failed")
            return
        self.runs.set_tags(run_id, {"retried": event["why"]})
        if event["micro_batches"] > 1:
            self.runs.set_tags(run_id, {"micro_batches": str(event["micro_batches"])})
        self.client.log_text(run_id, storable_text(event["traceback"]), "traceback-retried.txt")

    def _end_trial(self, number: int, time: int, outcome: str | None) -> None:
        """Sets the outcome of a trial's run; None: the trial runs again."""
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
        if self.config.search.limits:
            self.runs.set_tags(run_id, {"feasible": str(trial.can_win).lower()})
        if trial.curve:
            best = {f"best_{self.objective.key}": trial.best_value, **self._best_place(trial)}
            others = {f"at_best_epoch/{o.metric}": value_of(trial, o) for o in self.config.objectives[1:]}
            spent = {_TOTAL.get(name, name): value for name, value in cost(trial, self.config.resources).items()}
            figures = ((best | others) if trial.can_win else {}) | spent
            # Step and time are those of the last epoch: a trial that was interrupted and resumed then has one value for
            # each step.
            self.runs.log(run_id, figures, self._unit(trial.epoch), trial.reported)
        self.runs.terminate(run_id, STATUS[outcome], time)

    def _ended(self, event: Ended) -> None:
        status = event["status"]
        self.runs.set_tags(self.parent, {"outcome": "completed" if status == "finished" else status})
        self.client.log_dict(self.parent, event["rungs"], "rungs.json")
        self.runs.terminate(
            self.parent, {"finished": "FINISHED", "interrupted": "KILLED"}.get(status, "FAILED"), event["time"]
        )
        for key in self._cut_off():
            if key in self.runs:  # a damaged journal may lack the event that made it
                self.runs.set_tags(self.runs[key], {"outcome": "interrupted"})
                self.runs.terminate(self.runs[key], "KILLED", event["time"])

    def _cut_off(self) -> Iterator[str]:
        """The keys of the repeats, audits and final trainings that have begun and have not finished.

        A repeat without test figures diverged if the repeats were compared; `_compared` ended its run.
        """
        if not self._state.compared:
            repeats = [repeat for repeat in self._state.repeats.values() if repeat.test is None]
            yield from (f"repeat-{repeat.trial}-{repeat.seed}" for repeat in repeats)
        yield from (f"audit-{number}" for number, audit in self._state.audits.items() if not audit.outcome)
        for run in self._state.finals.values():
            if run.test is None:
                yield _final_key(run.seed, run.trial, run.epochs, run.merged)

    def _final(self, event: FinalEvent) -> None:
        seed = event["seed"]
        merged = self._state.finals[event["trial"], seed].merged
        key = _final_key(seed, event["trial"], event["epochs"], merged)
        name = "final" if not self.runs.of("final") else f"final, trial {event['trial']:03d}, seed {seed}"
        if event["event"] == "final_started":
            run_id = self.runs.make(key, name, "final", event["time"], {
                "config": digest(python_values(event["params"])), "final.seed": str(seed),
                "final.epochs": str(event["epochs"]), "final.trial": str(event["trial"]),
            })  # fmt: skip
            self.client.update_run(run_id, status="RUNNING")
            self.runs.log_params(run_id, event["params"])
            self.runs.log_dataset(run_id, "train+val, test" if merged else "train, test")
            return
        run_id = self.runs[key]
        if event["event"] == "final_result":
            self.runs.log(run_id, event["metrics"], self._unit(event["epoch"]), event["time"])
            if "samples" in event:
                self.client.log_text(
                    run_id, storable_text("\n".join(event["samples"])), f"samples/epoch-{event['epoch']:04d}.txt"
                )
            return
        self.runs.log(run_id, {f"test_{k}": v for k, v in event["test"].items()}, 0, event["time"])
        named = {f"baseline_{k}_test_{self.objective.metric}": v for k, v in event["baselines"].items()}
        self.runs.log(run_id, named, 0, event["time"])
        self.runs.set_tags(run_id, {"device": event["device"], "outcome": "completed"})
        with self._leaving_out("files of the final training"):
            self.client.log_artifacts(
                run_id, str(self.folder.final(self._state.finals[event["trial"], seed]) / "artifacts")
            )
        if event["chosen"]:
            with self._leaving_out("model"):
                self._register(event["trial"], event)
        self.runs.terminate(run_id, "FINISHED", event["time"])

    def _register(self, trial: int, event: FinalFinished | Decided) -> None:
        """Registers the model of the first seed; choosing the best seed would flatter the test figure."""
        epochs, test, final = event["epochs"], event["test"], self._state.finals[trial, 0]
        self.runs.log(self.parent, {f"test_{k}": v for k, v in test.items()}, event["spent"], event["time"])
        run_id = self.runs[_final_key(0, trial, epochs, final.merged)]
        if damage := self._damage(final):
            again = f"python -m search retrain {self.folder.name}"
            sentence = f"no model is registered, as {damage}; make it again: {again}"
        elif isinstance(get_task(self.config.task), Exported) and self._has_model(final):
            card = write_card(
                self.folder, self.config, self.record, self.info, self._state, trial, self.store.tracking_uri,
                run_id,
            )  # fmt: skip
            self.client.log_text(run_id, storable_text(card), "model_card.md")
            sentence = register(
                self.client, self.config.task, self.objective, run_id,
                self.folder.final(final), test, self.info.test_fingerprint,
                {"search": self.folder.name, "trial": str(trial), "config": digest(python_values(self.config.raw)),
                 "git.commit": self.record.commit, "data.fingerprint": self.info.fingerprint}, card,
            )  # fmt: skip
        else:
            checkpoint = self.folder.final(final) / "checkpoint.pt"
            sentence = f"no model is registered, as {self.config.task} has no `export`; its state is {checkpoint}"
        if sentence not in self.registered:
            self.registered.append(sentence)

    def _has_model(self, final: FinalRun) -> bool:
        """Whether the final training wrote a model. A function without `export` and without a module writes none."""
        return not self.config.is_own_program or any(name.startswith("model/") for name in final.digests)

    def _damage(self, final: FinalRun) -> Damaged | None:
        """The damage to the files of a final model; None if they are intact."""
        try:
            check_all(self.folder.final(final), final.digests)
        except Damaged as error:
            return error
        return None

    def _decided(self, event: Decided) -> None:
        finalists = ", ".join(str(row["trial"]) for row in event["finalists"])
        self.runs.set_tags(self.parent, {"finalists": finalists, "winner": str(event["winner"]).lower()})
        with self._leaving_out("comparison of the finalists"):
            self.client.log_artifact(self.parent, str(self.folder.decision))
        self._register(event["champion"], event)

    def _repeat(self, event: RepeatEvent) -> None:
        value, seed, trial = event["value"], event["seed"], event["trial"]
        key, name = f"repeat-{trial}-{seed}", f"{value}, seed {seed}"
        of = f"{self.config.search.balance}={value}"
        tags = {"repeat.of": of, "repeat.trial": str(trial), "repeat.seed": str(seed)}
        run_id = self.runs.make(key, name, "repeat", event["time"], tags)
        if event["event"] == "repeat_started":
            self.client.update_run(run_id, status="RUNNING")
            self.runs.log_params(run_id, event["params"])
        elif event["event"] == "repeat_result":
            self.runs.log(run_id, event["metrics"], self._unit(event["epoch"]), event["time"])
        else:
            tested = {f"test_{k}": v for k, v in event["test"].items()}
            numbers = {"best_epoch": float(event["best_epoch"]), "parameters": float(event["parameters"])}
            self.runs.log(run_id, tested | numbers, 0, event["time"])
            self.runs.set_tags(run_id, {"outcome": "completed"})
            self.runs.terminate(run_id, "FINISHED", event["time"])

    def _audit(self, event: AuditEvent) -> None:
        number = event["number"]
        tags = {"trial": str(number)}
        run_id = self.runs.make(f"audit-{number}", f"trial {number:03d}, audit", "audit", event["time"], tags)
        if event["event"] == "audit_started":
            self.client.update_run(run_id, status="RUNNING")
            self.runs.log_params(run_id, self._state.trials[number].params)
        elif event["event"] == "audit_result":
            self.runs.log(run_id, event["metrics"], self._unit(event["epoch"]), event["time"])
        else:
            self.runs.set_tags(run_id, {"outcome": event["outcome"]})
            self.runs.terminate(run_id, "FINISHED", event["time"])

    def _compared(self, event: Compared) -> None:
        """Logs the comparison of variants to the parent run: files, and figures as metrics."""
        for repeat in self._state.repeats.values():
            if repeat.test is None:  # it diverged, so no event ended its run
                run_id = self.runs[f"repeat-{repeat.trial}-{repeat.seed}"]
                self.runs.set_tags(run_id, {"outcome": "diverged"})
                self.runs.terminate(run_id, "FINISHED", event["time"])
        if self.folder.comparison.exists():
            self.client.log_artifacts(self.parent, str(self.folder.comparison), "comparison")
        frame = variant_figures(self._state.repeats.values(), self.objective)
        for value, row in frame.iterrows():
            named = {f"comparison/{value}/{key}": float(row[key]) for key in ("test", "low", "high", "seconds")}
            self.runs.log(self.parent, named, 0, event["time"])


def _final_key(seed: int, trial: int, epochs: int, merged: bool) -> str:
    return f"final-{seed}-{trial}-{epochs}" + ("" if merged else "-kept")


def _named(event: Event) -> str:
    """The name of an event in a warning, such as `'result' of trial 3`."""
    fields: dict[str, Any] = dict(event)
    number = fields.get("number", fields.get("trial"))
    return f"{event['event']!r}" + (f" of trial {number}" if number is not None else "")
