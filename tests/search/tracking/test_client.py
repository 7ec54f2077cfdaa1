"""MLflow's store of a search."""

import os
import shutil
import sqlite3

import pytest

from search.core.store import Store
from search.tracking.client import damage_of, mlflow_client
from search.tracking.runs import experiment_id
from search.tracking.tracker import Tracker
from tests.search.runtime.test_search import search_in
from tests.search.tracking.journals import RECORD
from trainables import InputError
from trainables.base.task import DataInfo


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


@pytest.mark.parametrize("name", ["a?b", "a#b", "100%", "a b", "é🙂", "a%3Fb", "a&mode=ro", "a'b"])
def test_store_in_a_folder_of_any_name_holds_its_database_and_artifacts(tmp_path, monkeypatch, empty_store, name):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    store = Store(tmp_path / name / "store")
    store.root.mkdir(parents=True)
    shutil.copy(empty_store, store.database)
    client = mlflow_client(store)
    run = client.create_run(experiment_id(client, store, "t"), tags={"search": "s"})
    client.log_text(run.info.run_id, "hello", "a.txt")
    with sqlite3.connect(store.database.as_uri(), uri=True) as database:
        assert database.execute("SELECT run_uuid FROM runs").fetchall() == [(run.info.run_id,)]
    database.close()
    assert (store.artifacts / run.info.run_id / "artifacts" / "a.txt").read_text() == "hello"
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", name}
    assert not list(elsewhere.iterdir())


def test_database_that_was_deleted_is_made_again_in_the_same_process(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    store = Store(tmp_path)
    first = experiment_id(mlflow_client(store), store, "t")
    for file in tmp_path.glob("mlflow.db*"):
        file.unlink()
    client = mlflow_client(store)
    assert client.get_experiment_by_name("t") is None
    assert experiment_id(client, store, "t") == first


@pytest.mark.parametrize("damage", ["junk", "half"])
def test_damaged_database_is_named_with_what_to_do(tmp_path, monkeypatch, empty_store, damage):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    store, whole = Store(tmp_path), empty_store.read_bytes()
    store.database.write_bytes(b"junk" * 1000 if damage == "junk" else whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"/mlflow\.db: is damaged \(.*\); move mlflow\.db\* in .* away: the journals"):
        mlflow_client(store)


def test_locked_database_is_not_damaged(tmp_path):
    assert damage_of(Store(tmp_path), sqlite3.OperationalError("database is locked")) is None


def test_search_on_a_damaged_database_says_so_once_and_is_sent_to_a_new_one(tmp_path, monkeypatch, empty_store):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    store, said = Store(tmp_path), []
    search = search_in(store.root)
    search.propose()
    info = DataInfo(source="demo", fingerprint="f", test_fingerprint="t", sizes={})

    def deliver() -> int:
        about = store, search.folder, search.config, RECORD, info, search.objective
        tracker = Tracker(*about, said.append)
        tracker.start(search.journal.events)
        return tracker.close(patience=10.0)

    store.database.write_bytes(b"junk" * 1000)
    assert deliver() == 0  # a later `resume` alone would not help
    (line,) = said
    assert "mlflow.db: is damaged (file is not a database); move mlflow.db*" in line and "InputError" not in line
    shutil.copy(empty_store, store.database)
    assert deliver() == 0 and said == [line]
    client = mlflow_client(store)
    assert len(client.search_runs([client.get_experiment_by_name("windows").experiment_id])) == 2
    search.journal.close()
