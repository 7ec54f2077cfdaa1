"""A tracking server that does not answer stops no training, and gets everything when it is back."""

import os
import signal
import subprocess
import sys

import pytest

from tests.e2e.test_resume import results
from tests.e2e.test_run import free_port, wait_for


@pytest.mark.slow
def test_search_without_its_tracking_server_ends_and_resume_delivers(command):
    from mlflow.tracking import MlflowClient

    uri = f"http://127.0.0.1:{(port := free_port())}"
    output = command.run("run", "toy", "--name", "offline", "--set", "index={choice: [0, 1]}", MLFLOW_TRACKING_URI=uri)
    assert "MLflow cannot be written" in output
    assert "best: trial " in output
    assert "are kept for `python -m search resume offline`" in output

    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{command.folder}/server.db",
         "--artifacts-destination", str(command.folder / "served")],
        cwd=command.folder, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        wait_for(f"{uri}/health", server)
        output = command.run("resume", "offline", MLFLOW_TRACKING_URI=uri)
        assert "MLflow lacks" not in output
        assert "is the first champion" in output
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("toy")
        runs = {r.data.tags["search.run"]: r for r in client.search_runs([experiment.experiment_id])}
        assert {r.info.status for r in runs.values()} == {"FINISHED"}
        for number in (0, 1):
            history = client.get_metric_history(runs[f"trial-{number}"].info.run_id, "val_score")
            recorded = [e for e in results(command.events("offline")) if e["number"] == number]
            assert [(m.step, m.value) for m in history] == [(e["epoch"], e["metrics"]["val_score"]) for e in recorded]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=30)
