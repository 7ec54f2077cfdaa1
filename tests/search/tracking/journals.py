"""A journal with every kind of run, its files, and what MLflow has of it."""

import pandas as pd
from mlflow.tracking import MlflowClient

from search.core.record import SearchRecord
from search.core.state import final_name
from search.tracking.client import mlflow_client

RECORD = SearchRecord("windows", {}, "", id="1")
PARAMS = {"lr[0]": 0.1, "a//b": "x", "layers": [1, 2], "window": 30}


def results(number, accuracies, outcome="completed", start=1):
    for epoch, accuracy in enumerate(accuracies, start):
        last = epoch == start + len(accuracies) - 1
        metrics = {"val_accuracy": accuracy, "val_acc@1": accuracy / 2, "train_loss": 1.0 / epoch, "epoch_seconds": 1.0}
        yield {
            "event": "result", "number": number, "epoch": epoch, "metrics": metrics, "diverged": None, "device": "cpu",
            "outcome": outcome if last else None,
        }  # fmt: skip


def whole_journal() -> list[dict]:
    """Two trials, a retry, an audit, a repeat, a final training whose model is registered."""
    final = {"trial": 0, "seed": 0, "epochs": 2}
    metrics = {"val_accuracy": 0.5, "val_acc@1": 0.25, "val_loss": 1.0, "train_loss": 0.5, "epoch_seconds": 1.0}
    repeat = {"value": "a/b@c", "trial": 0, "seed": 1}
    events = [
        {"event": "session"},
        {"event": "trial", "number": 0, "params": PARAMS, "seed": 1},
        {"event": "trial", "number": 1, "params": PARAMS | {"lr[0]": 0.2}, "seed": 2},
        *results(1, [0.4], "paused"),
        *results(0, [0.5, 0.6]),
        {"event": "retry", "number": 1, "why": "error", "traceback": "boom\0\ud800", "micro_batches": 1},
        {"event": "promoted", "number": 1},
        *results(1, [0.45, 0.46], start=2),
        {"event": "repeat_started", "params": PARAMS, **repeat},
        {"event": "repeat_result", "epoch": 1, "metrics": metrics, **repeat},
        {"event": "repeat_finished", "best_epoch": 1, "parameters": 10, "test": {"accuracy": 0.4}, **repeat},
        {"event": "compared"},
        {"event": "audit_started", "number": 1},
        {"event": "audit_result", "number": 1, "epoch": 4, "metrics": metrics},
        {"event": "audit_finished", "number": 1, "outcome": "completed"},
        {"event": "final_started", "params": PARAMS, **final},
        {"event": "final_result", "epoch": 1, "metrics": metrics, "samples": ["a", "b"], **final},
        {
            "event": "final_finished", "test": {"accuracy": 0.55, "f1@5": 0.5}, "baselines": {"most frequent": 0.3},
            "device": "cpu", "chosen": True, "spent": 9, **final,
        },
        {"event": "ended", "status": "finished", "rungs": {}},
    ]  # fmt: skip
    return [{**event, "time": 1000 * number} for number, event in enumerate(events, 1)]


def write_final(folder) -> None:
    """The files that a final training leaves."""
    place = folder.path / final_name(0, 0)
    (place / "model").mkdir(parents=True)
    (place / "model" / "weights").write_text("1")
    (place / "artifacts").mkdir()
    (place / "artifacts" / "curve.txt").write_text("up")
    pd.DataFrame({"x": [1.0, 2.0]}).to_parquet(place / "example.parquet")
    pd.DataFrame({"y": [1.0, 2.0]}).to_parquet(place / "predictions.parquet")


def artifacts(client: MlflowClient, run_id: str, path: str = "") -> list[str]:
    found = []
    for file in client.list_artifacts(run_id, path):
        found += artifacts(client, run_id, file.path) if file.is_dir else [file.path]
    return sorted(found)


def held(store) -> dict:
    """Everything that MLflow holds of the one search of a store, without the ids that it gave."""
    client = mlflow_client(store)
    (experiment,) = client.search_experiments(filter_string="name = 'windows'")
    runs = client.search_runs([experiment.experiment_id])
    assert len({run.data.tags["search.run"] for run in runs}) == len(runs), "a run is doubled"
    found = {}
    for run in runs:
        rows = {key: [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, key)]
                for key in run.data.metrics}  # fmt: skip
        for key, values in rows.items():
            assert len({step for step, *_ in values}) == len(values), f"{run.info.run_name}: {key}, two values a step"
        tags = {k: v for k, v in run.data.tags.items() if k not in ("mlflow.parentRunId", "search.delivered")}
        found[tags["search.run"]] = {
            "name": run.info.run_name, "status": run.info.status, "params": run.data.params, "tags": tags,
            "metrics": {key: sorted(values) for key, values in rows.items()},
            "artifacts": artifacts(client, run.info.run_id), "data": len(run.inputs.dataset_inputs),
            "models": len(run.outputs.model_outputs) if run.outputs else 0,
        }  # fmt: skip
    models = client.search_logged_models([experiment.experiment_id])
    versions = client.search_model_versions("name = 'windows'")
    found["models"] = [(str(model.status), model.name) for model in models]
    found["versions"] = [(v.version, dict(v.tags), v.aliases) for v in versions]
    return found
