"""A search is changed by one process at a time, from before its first file is written until all is delivered."""

import pytest
from rich.console import Console

import search
from search import runs
from search.cli import commands
from search.core.config import load_config
from search.core.store import Store
from search.exchange.imported import Imported, keep_imported
from search.observer import Observer
from search.programs import Program, run_program
from search.runs import RunOptions
from tests.search.test_reading import kept
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
