"""Searches are read back from MLflow as they are read from their journals."""

import pandas as pd
import pytest

from search.core.config import load_config
from search.core.replay import open_search, replay
from search.core.store import Store
from search.reports.compare import compare_searches, read_tables
from search.tracking.results import log_report, searches_of_server, tracked_searches
from search.tracking.tracker import Tracker
from tests.search.test_reading import kept
from trainables import DataInfo


@pytest.fixture
def delivered(tmp_path, monkeypatch, empty_store):
    """A store with one search, which its MLflow has too."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    store = Store(tmp_path)
    kept(store, "s", load_config("rnn", ["search.epochs=1", "search.trials=1"]))
    store.database.write_bytes(empty_store.read_bytes())
    folder, description, config = open_search(store, "s")
    state, events = replay(folder)
    info = DataInfo("demo", "f", "f", {})
    tracker = Tracker(store, folder, config, description, info, state.objective, pytest.fail)
    tracker.start(events)
    assert tracker.close(patience=10.0) == 0
    return store


def test_search_in_mlflow_reads_as_its_journal(delivered):
    (tracked,), (journal,) = tracked_searches(delivered), read_tables(delivered)
    for name in ("id", "name", "task", "created", "fingerprint", "objectives", "algorithms"):
        assert getattr(tracked, name) == getattr(journal, name), name
    expected = journal.trials.dropna(axis="columns")  # MLflow holds no parameter that is None
    trials = tracked.trials.reindex(columns=expected.columns)
    pd.testing.assert_frame_equal(trials, expected, check_dtype=False)
    assert tracked_searches(delivered, "windows") == []
    (comparison,) = compare_searches(delivered, None, (), [tracked])
    assert len(comparison.trials) == 1, "a search of the store is compared once"


def test_report_is_logged_to_the_run_of_its_search(delivered, tmp_path):
    (tmp_path / "report.html").write_text("<html>")
    log_report(delivered, "s", str(tmp_path / "report.html"))
    log_report(delivered, "another", str(tmp_path / "report.html"))
    assert len(list(delivered.artifacts.rglob("report.html"))) == 1


def test_server_that_does_not_answer_is_a_warning(tmp_path, monkeypatch):
    warnings = []
    assert searches_of_server(Store(tmp_path), None, warnings.append) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert searches_of_server(Store(tmp_path), None, warnings.append) == []
    assert len(warnings) == 1 and f"only searches of {tmp_path} are compared" in warnings[0]
