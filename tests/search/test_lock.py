"""A search is changed by one process at a time, from before its first file is written until all is delivered."""

import json
import signal
import subprocess
import sys

import pytest
from rich.console import Console

import search
from search import runs
from search.cli import commands
from search.core.config import load_config
from search.core.journal import read_events
from search.core.replay import open_search
from search.core.store import Store
from search.exchange.imported import Imported, ImportedTrial, keep_imported
from search.observer import Observer
from search.programs import Program, run_program
from search.runs import RunOptions
from search.tracking.results import has_whole
from tests.search.core.test_reading import kept
from trainables.base.errors import InputError

QUIET = Console(quiet=True)
PROGRAM = Program(lambda trial: None, {"lr": 1}, "loss min", {})
RUNNING = "s: this search is running in another process"


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    kept(store, "s", load_config("rnn", ["search.epochs=1", "search.trials=1"]))
    return store


def test_second_run_of_a_name_is_refused_and_changes_nothing(tmp_path):
    store = Store(tmp_path)
    options = RunOptions(name="s", retrain=False)
    with store.search("s").begin():
        before = files(tmp_path)
        with pytest.raises(InputError, match=RUNNING):
            commands.run(QUIET, store, load_config("rnn"), options)
        with pytest.raises(InputError, match=RUNNING):
            run_program(store, PROGRAM, options, Observer())
        with pytest.raises(InputError, match=RUNNING):
            keep_imported(store, "s", Imported("x", "s", "loss", "min", {}, []), print)
        assert files(tmp_path) == before
    assert not (tmp_path / "searches" / "s").exists()


def test_name_of_a_finished_search_is_refused_and_nothing_of_it_changes(store):
    before = files(store.root)
    options = RunOptions(name="s", retrain=False)
    with pytest.raises(InputError, match="a search of that name exists"):
        commands.run(QUIET, store, load_config("rnn"), options)
    with pytest.raises(InputError, match="a search of that name exists"):
        run_program(store, PROGRAM, options, Observer())
    assert files(store.root) == before


def test_running_search_is_given_nothing_more(store):
    before = files(store.root)
    with store.search("s").hold(store):
        for _ in range(2):
            with pytest.raises(InputError, match=RUNNING):
                commands.resume(QUIET, store, "s", {"trials": "+20"}, None)
        with pytest.raises(InputError, match=RUNNING):
            commands.resume(QUIET, store, "s", {}, "other:6379")
        with pytest.raises(InputError, match=RUNNING):
            commands.retrain(QUIET, store, "s", None, 1, None)
        with pytest.raises(InputError, match=RUNNING):
            search.open("s", store.root).resume(lambda trial: None, changed_code=True)
    assert files(store.root) == before


def test_resume_that_is_refused_before_it_trains_gives_nothing_more(store, monkeypatch):
    """The data changed since: each try would have added twenty trials."""
    before = files(store.root)
    monkeypatch.setattr(runs, "prepare_data_again", lambda *given: (_ for _ in ()).throw(InputError("changed")))
    with pytest.raises(InputError, match="changed"):
        commands.resume(QUIET, store, "s", {"trials": "+20"}, None)
    assert files(store.root) == before


def test_search_that_is_not_there_leaves_no_folder_behind(tmp_path):
    with pytest.raises(InputError, match="t: no search of that name"):
        commands.resume(QUIET, Store(tmp_path), "t", {}, None)
    assert not list(tmp_path.iterdir())


FOUND = Imported(
    "sqlite:///x", "study", "loss", "min", {"lr": {"loguniform": [1e-4, 1e-1]}},
    [ImportedTrial({"lr": 0.01 * (n + 1)}, {1: {"loss": 0.5 - n / 10}}, "completed") for n in range(3)],
)  # fmt: skip
IMPORT = """
import os, signal, sys
from pathlib import Path
from search.core.store import SearchFolder, Store
from search.exchange.imported import keep_imported
from tests.search.core.test_lock import FOUND
SearchFolder.write = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
keep_imported(Store(Path(sys.argv[1])), None, FOUND, print)
"""


def test_import_that_was_killed_before_its_end_is_made_again_with_every_trial_once(tmp_path, monkeypatch):
    killed = subprocess.run([sys.executable, "-c", IMPORT, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    store = Store(tmp_path)
    assert store.names() == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr("search.exchange.imported.PATIENCE", 0.2)
    name, state = keep_imported(store, None, FOUND, lambda line: None)
    assert (
        [event["event"] for event in read_events(store.search(name).journal)].count("trial") == len(state.trials) == 3
    )


def test_import_that_mlflow_missed_is_delivered_by_resume(tmp_path, monkeypatch, empty_store):
    store, said = Store(tmp_path), []
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        away.setattr("search.exchange.imported.PATIENCE", 0.2)
        name, _ = keep_imported(store, None, FOUND, said.append)
    assert f"send them: python -m search resume {name}" in said[-1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    store.database.write_bytes(empty_store.read_bytes())
    with pytest.raises(InputError, match="was imported from sqlite:///x and has nothing to train"):
        commands.resume(QUIET, store, name, {"trials": "+1"}, None)
    assert commands.resume(QUIET, store, name, {}, None) == 0
    events, record = list(read_events(store.search(name).journal)), store.search(name).read(store)
    assert has_whole(store, record.id, len(events))


def test_new_searches_keep_their_objective(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr("search.exchange.imported.PATIENCE", 0.2)
    store = Store(tmp_path)
    name, _ = keep_imported(store, None, FOUND, lambda line: None)
    _, record, _ = open_search(store, name)
    assert record.objective_stored == {"metric": "loss", "mode": "min", "tuned": [], "named": "loss"}
    written = json.loads((store.search(name).path / "search.json").read_text())
    assert written == {**record.to_json(), "crc": written["crc"]}
