"""MLflow's store of a search."""

import os

from search.record.store import Store
from search.tracking.client import mlflow_client
from search.tracking.runs import experiment_id


def test_artifacts_lie_in_the_store_whatever_folder_the_command_runs_in(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    store = Store(tmp_path / "store")
    client = mlflow_client(store)
    location = client.get_experiment(experiment_id(client, store, "t")).artifact_location
    assert location == store.artifacts.as_uri()
    assert store.is_local and "MLFLOW_TRACKING_URI" not in os.environ
    assert not list(elsewhere.iterdir())
