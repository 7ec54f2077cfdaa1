"""What MLflow has of a journal, whatever came in between."""

import contextlib
import logging
import os
import shutil
import sqlite3
import time

import mlflow
import numpy as np
import pytest

from search.core.state import final_name
from search.core.store import Store
from search.tracking import events_to_runs as delivery
from search.tracking import model_registry, predict, results
from search.tracking.client import mlflow_client
from search.tracking.tracker import Tracker
from tests.search.runtime.test_search import result, search_in
from tests.search.tracking.journals import RECORD, held, whole_journal, write_final
from trainables import InputError, Objective
from trainables.base.task import DataInfo

INFO = DataInfo(source="demo", fingerprint="f", test_fingerprint="t", sizes={})


@pytest.fixture
def store(tmp_path, empty_store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # which the client sets: not for the tests that follow
    shutil.copy(empty_store, Store(tmp_path).database)
    return Store(tmp_path)


def send(store: Store, events: list[dict]) -> list[str]:
    """Delivers a journal as a session does; returns what the user was told."""
    search, said = search_in(store.root), []
    search.journal.close()
    tracker = Tracker(store, search.folder, search.config, RECORD, INFO, search.objective, said.append)
    tracker.start(events)
    assert tracker.close(patience=10.0) == 0
    return said


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
    about = store, search.folder, search.config, RECORD, INFO, search.objective, print
    delivery.Delivery(mlflow_client(store), *about).deliver(search.journal.events)
    found = runs(store)
    assert found.keys() == {"parent", "trial-0", "repeat-0-1", "audit-0", "final-0-0-3"}
    shown = {key: str(value) for key, value in params.items() if value is not None}
    assert all(run.data.params == shown for key, run in found.items() if key != "parent")


def test_parent_run_whose_making_was_cut_off_is_whole_the_next_time(store, monkeypatch):
    search = search_in(store.root)
    about = store, search.folder, search.config, RECORD, INFO, search.objective, print
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
    tracker = Tracker(store, search.folder, search.config, RECORD, INFO, search.objective, said.append)
    search.listeners.append(tracker)
    tracker.start(search.journal.events)
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


@pytest.fixture
def delivered(store):
    """A store whose MLflow has the whole journal, and what it holds of it."""
    write_final(store.search("s"))
    assert send(store, whole_journal()) == []
    return store, held(store)


def test_names_that_mlflow_refuses_are_delivered_and_read_back(delivered):
    store, found = delivered
    trial = found["trial-0"]
    assert trial["metrics"]["val_acc__at__1"] == [(1, 0.25, 5000), (2, 0.3, 6000)]
    assert trial["params"]["lr__open__0__close__"] == "0.1"
    (table,) = results.tracked_searches(store, "windows")
    assert table.trials["lr[0]"].tolist() == [0.1, 0.2] and table.trials["a//b"].tolist() == ["x", "x"]
    (version,) = found["versions"]
    assert version[1]["test_accuracy"] == "0.55"


def test_champion_whose_files_changed_since_it_was_registered_is_refused(delivered, monkeypatch):
    store, found = delivered
    (version,) = found["versions"]
    assert version[1]["model.digest"] == model_registry.model_digest(
        store.search("s").path / final_name(0, 0) / "model"
    )
    loaded = []
    monkeypatch.setattr(mlflow.pyfunc, "load_model", loaded.append)
    predict.load_champion(store, "windows")
    (weights,) = store.artifacts.rglob("artifacts/model/weights")
    weights.write_text("2")
    with pytest.raises(InputError, match=r"windows version 1: the files of its model changed .*search retrain s"):
        predict.load_champion(store, "windows")
    assert len(loaded) == 1


def test_run_names_say_what_a_run_is(delivered):
    _, found = delivered
    named = {key: run["name"] for key, run in found.items() if isinstance(run, dict)}
    assert named == {
        "parent": "s", "trial-0": "trial 000", "trial-1": "trial 001", "repeat-0-1": "a/b@c, seed 1",
        "audit-1": "trial 001, audit", "final-0-0-2": "final",
    }  # fmt: skip


def test_parent_run_describes_the_search_and_shows_its_best(delivered):
    _, found = delivered
    tags = found["parent"]["tags"]
    assert tags["best"] == "trial 0: val_accuracy 0.6 at epoch 2"
    for part in ("windows", "Best so far: trial 0", "python -m search resume s", "`class_weights`"):
        assert part in tags["mlflow.note.content"]
    assert found["trial-1"]["tags"]["best"] == "val_accuracy 0.46 at epoch 3"


def test_parent_run_shows_the_best_while_trials_run(store):
    send(store, whole_journal()[:5])
    parent = held(store)["parent"]
    assert parent["status"] == "RUNNING"
    assert parent["metrics"]["best_val_accuracy"] == [(2, 0.5, 5000)]
    send(store, whole_journal()[:6])
    assert held(store)["parent"]["metrics"]["best_val_accuracy"] == [(2, 0.5, 5000), (3, 0.6, 6000)]


def forget_database(store: Store) -> None:
    for file in store.root.glob("mlflow.db*"):
        file.unlink()


def test_deleted_database_gets_the_whole_search_again(delivered, empty_store):
    store, before = delivered
    events = len(whole_journal())
    assert results.has_whole(store, "1", events)
    assert not results.has_whole(store, "1", events + 1)
    forget_database(store)
    assert not results.has_whole(store, "1", events)
    assert send(store, whole_journal()) == []
    assert held(store) == before


def test_other_database_gets_the_whole_search(delivered, monkeypatch, tmp_path, empty_store):
    store, before = delivered
    shutil.copy(empty_store, tmp_path / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    monkeypatch.chdir(tmp_path)
    assert send(store, whole_journal()) == []
    assert held(store) == before
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert held(store) == before, "the first one is as it was"


@pytest.mark.parametrize("known", [2, 6, 9, 14, 18])
def test_older_backup_gets_what_it_lacks(store, known):
    write_final(store.search("s"))
    send(store, whole_journal()[:known])
    with sqlite3.connect(store.database) as database, sqlite3.connect(store.root / "backup.db") as backup:
        database.backup(backup)
    database.close()
    backup.close()
    send(store, whole_journal())
    before = held(store)
    forget_database(store)
    shutil.move(store.root / "backup.db", store.database)
    assert send(store, whole_journal()) == []
    after = held(store)
    for run in (before["parent"], after["parent"]):  # its figures follow the batches
        run["metrics"] = {key: values[-1] for key, values in run["metrics"].items()}
    assert after == before


def test_run_that_is_gone_is_made_again_with_all_of_its_events(delivered):
    store, before = delivered
    gone = runs(store)["trial-1"].info.run_id
    with sqlite3.connect(store.database) as database:  # as `mlflow gc` does
        for table in ("metrics", "latest_metrics", "params", "tags"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", [gone])
        database.execute("DELETE FROM runs WHERE run_uuid = ?", [gone])
    database.close()
    extra = {"event": "interrupted", "number": 1, "time": 99000}
    assert send(store, [*whole_journal(), extra]) == []
    after = held(store)
    assert after["trial-1"]["metrics"].keys() == before["trial-1"]["metrics"].keys()
    assert after["trial-1"]["status"] == "KILLED"
    assert {k: v for k, v in after.items() if k != "trial-1"} == {k: v for k, v in before.items() if k != "trial-1"}


def test_run_that_a_user_deleted_is_restored_and_goes_on(store):
    send(store, whole_journal()[:4])
    mlflow_client(store).delete_run(runs(store)["trial-1"].info.run_id)
    assert send(store, whole_journal()[:10]) == []
    assert runs(store)["trial-1"].data.metrics["val_accuracy"] == 0.46


def test_item_that_mlflow_refuses_is_left_out_with_one_warning(store):
    events = whole_journal()[:6]
    changed = {**events[1], "params": {"lr[0]": 0.5, "new": 1}}
    again = [*events, changed, *events[3:]]
    (warning,) = send(store, again)
    assert warning.startswith("MLflow takes no 'lr[0]' in run trial-0 (Changing param values is not allowed")
    found = held(store)
    assert found["trial-0"]["params"]["new"] == "1"
    assert found["trial-0"]["metrics"]["val_accuracy"][0] == (1, 0.5, 5000)


def test_event_whose_files_are_missing_does_not_keep_the_rest_from_mlflow(store):
    said = send(store, whole_journal())  # the final training left nothing on this disk
    assert len(said) == 1
    assert said[0].startswith("MLflow takes no model of s (FileNotFoundError: ")
    found = held(store)
    assert found["parent"]["status"] == found["final-0-0-2"]["status"] == "FINISHED"
    assert found["parent"]["metrics"]["test_accuracy"] == [(9, 0.55, 20000)]


def test_texts_and_numbers_that_no_database_takes_are_delivered(store):
    events = whole_journal()[:4]
    events[1]["params"] = {"text": "a\0b\ud800c", "long": "x" * 9000, "n" * 300: 1, "array": np.float64(0.5)}
    events[3]["metrics"] |= {"val_huge": 10**400, "val_inf": float("inf"), "\0": 1.0, "m" * 300: 2.0}
    events[2]["params"] = {"pair": [np.float32(1.5), np.int64(3)], "flag": np.bool_(True)}
    assert send(store, events) == []
    found = held(store)
    assert found["trial-0"]["params"]["text"] == "a\\x00b\\ud800c"
    assert found["trial-0"]["params"]["array"] == "0.5"
    assert len(found["trial-0"]["params"]["long"]) == 6000
    assert found["trial-1"]["params"] == {"pair": "[1.5, 3]", "flag": "True"}
    (table,) = results.tracked_searches(store, "windows")
    assert "n" * 300 in table.trials
    metrics = found["trial-1"]["metrics"]
    assert any("__cut__" in name for name in metrics) and not {"val_huge", "val_inf"} & {*metrics}


@contextlib.contextmanager
def unchanged():
    """Fails if what MLflow and this process share is other after the block."""

    def state():
        loggers = [logging.getLogger(name) for name in ("", "mlflow", "alembic", "sqlalchemy.engine")]
        return (
            mlflow.get_tracking_uri(), mlflow.get_registry_uri(), mlflow.active_run().info.run_id, dict(os.environ),
            [(one.level, one.disabled, list(one.handlers), list(one.filters)) for one in loggers],
        )  # fmt: skip

    before = state()
    yield
    assert state() == before


def test_users_own_run_and_settings_survive_a_delivery(tmp_path, store, empty_store):
    write_final(store.search("s"))
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    shutil.copy(empty_store, tmp_path / "own.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'own.db'}")
    mine = os.environ.pop("MLFLOW_TRACKING_URI")  # so that the search takes its store, as in a fresh process
    try:
        mlflow.set_experiment("mine")
        with mlflow.start_run() as run:
            with unchanged():
                assert send(store, whole_journal()) == []
            mlflow.log_metric("loss", 1.0)
        os.environ["MLFLOW_TRACKING_URI"] = mine
        client = mlflow.MlflowClient()
        assert [e.name for e in client.search_experiments()] == ["mine", "Default"]
        kept = client.get_run(run.info.run_id)
        assert (kept.info.status, kept.data.metrics, kept.data.params) == ("FINISHED", {"loss": 1.0}, {})
        assert not client.search_logged_models([run.info.experiment_id])
    finally:
        os.environ["MLFLOW_TRACKING_URI"] = ""
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])
        os.environ["MLFLOW_TRACKING_URI"] = ""
    assert held(store)["versions"]


class Killed(BaseException):
    pass


def test_registration_that_was_killed_anywhere_is_one_model_and_one_version(store, monkeypatch):
    write_final(store.search("s"))
    send(store, whole_journal()[:-2])
    folder, client = store.search("s").path / final_name(0, 0), mlflow_client(store)
    experiment = runs(store)["parent"].info.experiment_id
    calls = ["create_registered_model", "create_logged_model", "log_model_artifacts", "finalize_logged_model",
             "log_outputs", "create_model_version", "set_model_version_tag", "update_model_version",
             "set_registered_model_alias"]  # fmt: skip

    def register(run_id: str, accuracy: float) -> str:
        about = "windows", Objective("accuracy", "max"), run_id, folder, {"accuracy": accuracy}, "t", {"trial": "0"}
        return model_registry.register(client, *about, "# card")

    for number, name in enumerate(calls):
        run_id = client.create_run(experiment).info.run_id
        real = getattr(client, name)

        def killed(*arguments, real=real, **named):
            real(*arguments, **named)
            raise Killed

        with monkeypatch.context() as gap:
            gap.setattr(client, name, killed)
            with pytest.raises(Killed):
                register(run_id, number / 10)
        register(run_id, number / 10)
        models = [m for m in client.search_logged_models([experiment]) if m.source_run_id == run_id]
        assert [str(m.status) for m in models] == ["READY"], name
        (version,) = [v for v in client.search_model_versions("name = 'windows'") if v.run_id == run_id]
        assert version.source == models[0].artifact_location, name
        assert client.get_model_version_by_alias("windows", "champion").version == version.version, name
        digest = model_registry.model_digest(folder / "model")
        assert version.tags == {
            "trial": "0", "data.test_fingerprint": "t", "test_accuracy": repr(number / 10), "model.digest": digest,
        }  # fmt: skip
        assert [o.model_id for o in client.get_run(run_id).outputs.model_outputs] == [models[0].model_id], name


def test_trainings_after_the_trials_that_an_interruption_cut_off_do_not_run_in_mlflow(store):
    search = search_in(store.root)
    params = search.propose().params
    search.report([result(0, 1, 0.5)], "cpu")
    started = [
        {"event": "repeat_started", "value": "none", "trial": 0, "seed": 1, "params": params},
        {"event": "audit_started", "number": 0},
        {"event": "final_started", "trial": 0, "seed": 0, "epochs": 3, "params": params},
    ]
    search.record(*started)
    search.end("interrupted")
    about = store, search.folder, search.config, RECORD, INFO, search.objective, print
    delivery.Delivery(mlflow_client(store), *about).deliver(search.journal.events)
    found = runs(store)
    cut_off = ["repeat-0-1", "audit-0", "final-0-0-3"]
    assert {found[key].info.status for key in [*cut_off, "parent"]} == {"KILLED"}
    assert {found[key].data.tags["outcome"] for key in cut_off} == {"interrupted"}
    resumed = [event | {"time": 10**13} for event in ({"event": "session"}, *started)]
    delivery.Delivery(mlflow_client(store), *about).deliver([*search.journal.events, *resumed])
    found = runs(store)
    assert {found[key].info.status for key in [*cut_off, "parent"]} == {"RUNNING"}
