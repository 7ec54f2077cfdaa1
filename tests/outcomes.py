"""What a search came to, and whether MLflow has it whole."""

import json
import math
from collections import Counter

from tests.conftest import Command

#: Metrics that measure this machine at this moment, not the training.
TIMING = {"epoch_seconds", "samples_per_second", "peak_memory_mib"}


def results(events):
    return [e for e in events if e["event"] == "result"]


def in_an_epoch(events) -> set[int]:
    """Trials that have reported, and go on."""
    last = {e["number"]: e["outcome"] for e in results(events)}
    return {number for number, outcome in last.items() if outcome is None}


def interrupted(events) -> set[int]:
    return {e["number"] for e in events if e["event"] == "interrupted"}


def outcome_of(command: Command, name: str) -> dict:
    """Everything that must not depend on an interruption."""
    events = command.events(name)
    return {
        "configurations": {e["number"]: (e["params"], e["seed"]) for e in events if e["event"] == "trial"},
        "curves": [
            (
                e["number"],
                e["epoch"],
                e["outcome"],
                {k: v for k, v in e["metrics"].items() if k not in TIMING},
            )
            for e in results(events)
        ],
        "rungs": [e["rungs"] for e in events if e["event"] == "ended"][-1],
        "final": [(e["params"], e["epochs"], e["trial"]) for e in events if e["event"] == "final_started"][-1:],
        "test": [e["test"] for e in events if e["event"] == "final_finished"],
    }


def assert_logged_once(command: Command, experiment: str, name: str) -> None:
    """MLflow has each trial as one run, and of each metric one value a step: those of the journal."""
    client, runs = command.runs(experiment)
    runs = [r for r in runs if r.data.tags["search"] == name]
    assert not [r for r in runs if r.info.status == "RUNNING"]
    keys = [r.data.tags["search.run"] for r in runs]
    assert len(keys) == len(set(keys))
    by_key = dict(zip(keys, runs, strict=True))
    for run in runs:
        for key in run.data.metrics:
            steps = [m.step for m in client.get_metric_history(run.info.run_id, key)]
            assert len(steps) == len(set(steps)), f"{run.info.run_name}: {key} has two values at one step"
    events, every = command.events(name), report_every(command, name)
    for trial in [e for e in events if e["event"] == "trial"]:
        run = by_key[f"trial-{trial['number']}"]
        assert run.data.tags["mlflow.parentRunId"] == by_key["parent"].info.run_id
        curve = [e for e in results(events) if e["number"] == trial["number"]]
        assert len({e["epoch"] for e in curve}) == len(curve)
        assert curve or trial["number"] in interrupted(events), "only then may it have ended no epoch"
        for key in curve[0]["metrics"] if curve else ():
            history = client.get_metric_history(run.info.run_id, key)
            recorded = [(e["epoch"] * every, e["metrics"][key]) for e in curve if key in e["metrics"]]
            finite = [(step, value) for step, value in recorded if math.isfinite(value)]  # a diverged trial's are not
            assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == finite


def report_every(command: Command, name: str) -> int:
    """The steps from one report of a search to the next; 1 in a search that counts in epochs."""
    record = json.loads((command.folder / "mlruns" / "searches" / name / "search.json").read_text())
    return record["config"]["search"].get("report_every") or 1


def account(command: Command, experiment: str, name: str) -> dict[str, int]:
    """What MLflow lacks of a search's journal, or has twice."""
    client, runs = command.runs(experiment)
    by_key = {r.data.tags["search.run"]: r for r in runs if r.data.tags["search"] == name}
    events = command.events(name)
    trials = {f"trial-{e['number']}" for e in events if e["event"] == "trial"}
    times = Counter(r.data.tags["search.run"] for r in runs if r.data.tags["search"] == name)
    lost_values = 0
    for key in trials & by_key.keys():
        curve = [e for e in results(events) if f"trial-{e['number']}" == key]
        for metric in {m for e in curve for m in e["metrics"]}:
            history = {(m.step, m.value) for m in client.get_metric_history(by_key[key].info.run_id, metric)}
            values = {(e["epoch"], e["metrics"][metric]) for e in curve if metric in e["metrics"]}
            lost_values += len({v for v in values if math.isfinite(v[1])} - history)
    return {
        "runs lost": len(trials - by_key.keys()),
        "runs doubled": sum(n - 1 for n in times.values()),
        "metrics lost": lost_values,
    }
