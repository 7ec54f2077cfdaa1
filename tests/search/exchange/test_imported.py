"""Imported searches: their record, their delivery to MLflow, and an import that was killed."""

import json
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from search.cli import commands
from search.core.journal import read_events
from search.core.replay import open_search
from search.core.store import Store
from search.exchange.imported import Imported, ImportedTrial, keep_imported
from search.tracking.results import has_whole
from trainables.base.errors import InputError

FOUND = Imported(
    "sqlite:///x", "study", "loss", "min", {"lr": {"loguniform": [1e-4, 1e-1]}},
    [ImportedTrial({"lr": 0.01 * (n + 1)}, {1: {"loss": 0.5 - n / 10}}, "completed") for n in range(3)],
)  # fmt: skip
IMPORT = """
import os, signal, sys
from pathlib import Path
from search.core.store import SearchFolder, Store
from search.exchange.imported import keep_imported
from tests.search.exchange.test_imported import FOUND
SearchFolder.write = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
keep_imported(Store(Path(sys.argv[1])), None, FOUND, print)
"""


def test_import_that_was_killed_before_its_end_is_made_again_with_every_trial_once(tmp_path, monkeypatch):
    killed = subprocess.run([sys.executable, "-c", IMPORT, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    store = Store(tmp_path)
    assert store.names() == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr("search.tracking.tracker.PATIENCE", 0.2)
    name, state = keep_imported(store, None, FOUND, lambda line: None)
    assert (
        [event["event"] for event in read_events(store.search(name).journal)].count("trial") == len(state.trials) == 3
    )


def test_import_that_mlflow_missed_is_delivered_by_resume(tmp_path, monkeypatch, empty_store):
    store, said = Store(tmp_path), []
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        away.setattr("search.tracking.tracker.PATIENCE", 0.2)
        name, _ = keep_imported(store, None, FOUND, said.append)
    assert f"send them: python -m search resume {name}" in said[-1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    store.database.write_bytes(empty_store.read_bytes())
    with pytest.raises(InputError, match="was imported from sqlite:///x and has nothing to train"):
        commands.resume(Console(quiet=True), store, name, {"trials": "+1"}, None)
    assert commands.resume(Console(quiet=True), store, name, {}, None) == 0
    events, record = list(read_events(store.search(name).journal)), store.search(name).read(store)
    assert has_whole(store, record.id, len(events))


def test_new_searches_keep_their_objective(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr("search.tracking.tracker.PATIENCE", 0.2)
    store = Store(tmp_path)
    name, _ = keep_imported(store, None, FOUND, lambda line: None)
    _, record, _ = open_search(store, name)
    assert record.objective_stored == {"metric": "loss", "mode": "min", "tuned": [], "named": "loss"}
    written = json.loads((store.search(name).path / "search.json").read_text())
    assert written == {**record.to_json(), "crc": written["crc"]}
