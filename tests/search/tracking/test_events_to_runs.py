"""What MLflow has of a journal, whatever came in between."""

import shutil
import time

import pytest

from search.record.store import Store
from search.tracking import events_to_runs as delivery
from search.tracking.client import mlflow_client
from search.tracking.tracker import Tracker
from tests.search.engine.test_search import result, search_in
from trainables.base.task import DataInfo

DESCRIPTION = {"id": "1", "created": 0, "commit": "none"}
INFO = DataInfo(source="demo", fingerprint="f", test_fingerprint="t", sizes={})


@pytest.fixture
def store(tmp_path, empty_store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # which the client sets: not for the tests that follow
    shutil.copy(empty_store, Store(tmp_path).database)
    return Store(tmp_path)


def runs(store: Store) -> dict:
    client = mlflow_client(store)
    (experiment,) = client.search_experiments(filter_string="name = 'windows'")
    return {run.data.tags["search.run"]: run for run in client.search_runs([experiment.experiment_id])}


def test_training_that_kills_cut_off_before_mlflow_heard_of_it_is_one_run(store):
    search = search_in(store.root)
    params = search.propose().params
    repeat = {"event": "repeat_started", "value": "none", "trial": 0, "seed": 1, "params": params}
    audit = {"event": "audit_started", "number": 0}
    final = {"event": "final_started", "trial": 0, "seed": 0, "epochs": 3, "params": params}
    search.record(*[repeat, audit, final] * 3)
    about = store, search.folder, search.config, DESCRIPTION, INFO, search.objective, search.state
    delivery.Delivery(mlflow_client(store), *about).deliver(search.journal.events)
    found = runs(store)
    assert found.keys() == {"parent", "trial-0", "repeat-0-1", "audit-0", "final-0-0-3"}
    shown = {key: str(value) for key, value in params.items() if value is not None}
    assert all(run.data.params == shown for key, run in found.items() if key != "parent")


def test_parent_run_whose_making_was_cut_off_is_whole_the_next_time(store, monkeypatch):
    search = search_in(store.root)
    about = store, search.folder, search.config, DESCRIPTION, INFO, search.objective, search.state
    client = mlflow_client(store)
    with monkeypatch.context() as away:
        away.setattr(client, "log_batch", lambda *batch: (_ for _ in ()).throw(ConnectionError("gone")))
        with pytest.raises(ConnectionError):
            delivery.Delivery(client, *about)
    delivery.Delivery(client, *about)
    delivery.Delivery(client, *about)
    parent = runs(store)["parent"]
    assert parent.data.params["search.trials"] == str(search.config.search.trials)
    assert len(parent.inputs.dataset_inputs) == 1
    assert [one.path for one in client.list_artifacts(parent.info.run_id)] == ["config.yaml"]


def test_server_that_comes_back_as_the_search_ends_has_all_of_it(store, monkeypatch):
    away, refused = True, 0

    class Away(delivery.Delivery):
        def deliver(self, events):
            nonlocal refused
            if away:
                refused += 1
                raise ConnectionError("nobody there")
            super().deliver(events)

    monkeypatch.setattr(delivery, "Delivery", Away)
    search, said = search_in(store.root), []
    search.propose()
    tracker = Tracker(store, search.folder, search.config, DESCRIPTION, INFO, search.objective, said.append)
    search.listeners.append(tracker)
    tracker.start(search.journal.events, search.state)
    search.report([result(0, 1, 0.5)], "cpu")
    deadline = time.monotonic() + 60
    while refused < 4:  # the next attempt would come four seconds later
        assert time.monotonic() < deadline
        time.sleep(0.05)
    away = False
    search.end("interrupted")
    assert tracker.close(patience=1.0) == 0
    assert len(said) == 1
    assert "nobody there" in said[0]
    assert runs(store)["trial-0"].data.metrics["val_accuracy"] == 0.5
