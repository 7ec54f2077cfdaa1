"""Searches are read without running what their store names, and a damaged one stops no command about the others."""

import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

import search
from search.cli import commands
from search.core.config import load_config
from search.core.program_config import loop_config
from search.core.record import SearchRecord
from search.core.replay import open_search, replay
from search.core.store import Store
from search.core.task_names import check_task_name
from search.core.warm_start import from_all
from search.exchange.studies import write_study
from search.reports.compare import compare_searches
from search.reports.report import report_search, write_report
from search.reports.simulate import simulated_beside_logged
from search.reports.why import why
from search.runtime.search import Search
from search.tracking.predict import predict_inputs
from trainables import get_task
from trainables.base.errors import InputError


def kept(store: Store, name: str, config, **fields) -> None:
    """A finished search of one trial."""
    made = Search(config, store.search(name))
    made.record({"event": "session"})
    trial = made.propose()
    metrics = {f"val_{made.objective.metric}": 0.5, "loss": 0.5, "epoch_seconds": 1.0}
    result = {"epoch": 1, "metrics": metrics, "diverged": None, "checkpoint": None}
    made.report([{"number": trial.number, **result}], "cpu")
    made.end("finished")
    own = {"id": name, "fingerprint": "f", "created": 1, "retrain": False, **fields}
    store.search(name).write(SearchRecord(config.task, config.raw, config.place, **own))


def loop(monkeypatch):
    monkeypatch.setenv("SEARCH_TASKS", "")
    space = {"lr": {"loguniform": [1e-4, 1e-1]}}
    return loop_config("mine", space, "loss min", {"search.trials": 1, "search.epochs": 1}, (), "search.run")


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module that leaves a file behind when it is imported."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nTASK = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "ran"
    sys.modules.pop("evil", None)


@pytest.mark.parametrize(
    "about",
    [
        {"offered": "evil:TASK", "objective_stored": {"metric": "loss", "mode": "min", "tuned": [], "named": "loss"}},
        {"offered": "trainables.loops.task:LoopTask?metric=loss&mode=min"},
    ],
    ids=["new", "old"],
)
def test_reading_a_search_runs_nothing_that_its_store_names(tmp_path, monkeypatch, evil, about):
    store = Store(tmp_path / "store")
    kept(store, "s", loop(monkeypatch), **about)
    monkeypatch.setenv("SEARCH_TASKS", "")  # as in a process that knows nothing of it
    check_task_name("mine", store)
    folder, record, config = open_search(store, "s")
    why(store, "s", 0)
    write_report(folder, record, config)
    simulated_beside_logged(store, "s", {}, [], 1)
    write_study(config, replay(folder)[0], "s", f"sqlite:///{tmp_path}/out.db")
    found = search.open("s", store.root)
    assert found.best.value == 0.5
    assert found.trials()["loss"].tolist() == found.curves()["loss"].tolist() == [0.5]
    assert not evil.exists() and "evil" not in sys.modules


def test_old_search_of_a_module_that_only_its_store_names_is_refused_unread(tmp_path, monkeypatch, evil):
    store = Store(tmp_path / "store")
    kept(store, "s", loop(monkeypatch), offered="evil:TASK")
    monkeypatch.setenv("SEARCH_TASKS", "")
    with pytest.raises(InputError, match="task 'mine': is not installed here"):
        why(store, "s", 0)
    assert not evil.exists()


def damage(store: Store, name: str, content: bytes) -> None:
    (store.root / "searches" / name).mkdir(parents=True, exist_ok=True)
    (store.root / "searches" / name / "search.json").write_bytes(content)


TORN = [b"", b'{"task": "rnn", "co', b"[]", b'{"task": "rnn"}', b'{"task": 1, "config": {}, "place": ""}', bytes(4096)]


@pytest.mark.parametrize("content", TORN)
def test_torn_description_is_named(tmp_path, content):
    damage(store := Store(tmp_path), "s", content)
    with pytest.raises(InputError, match=r"s/search\.json: is damaged"):
        open_search(store, "s")
    with pytest.raises(InputError, match=r"s/search\.json: is damaged"):
        commands.resume(Console(quiet=True), store, "s", {}, None)


def test_damaged_searches_are_passed_over_by_commands_about_all(tmp_path, caplog):
    store, config = Store(tmp_path), load_config("rnn", ["search.epochs=1", "search.trials=1"])
    kept(store, "sound", config)
    for number, content in enumerate(TORN):
        damage(store, f"torn-{number}", content)
    kept(store, "flipped", config)
    journal = store.search("flipped").journal
    journal.write_bytes(journal.read_bytes().replace(b"0.5", b"0.4"))
    event, _ = from_all(store, config)
    assert event["from"] == "sound"
    for name in (*(f"torn-{number}" for number in range(len(TORN))), "flipped"):
        assert sum(f"/{name}/" in line for line in caplog.messages) == 1
    caplog.clear()
    with pytest.raises(InputError, match="unknown"):
        check_task_name("no-such-task", store)
    assert len(caplog.messages) == len(TORN)
    assert "sound" in search.searches(tmp_path)


def test_tuned_metrics_and_the_name_of_the_objective_are_kept(tmp_path):
    store = Store(tmp_path)
    kept(store, "old", load_config("tweets", ["search.epochs=1", "search.trials=1"]))
    assert replay(store.search("old"))[0].objective.tuned == get_task("tweets").objective.tuned
    assert np.isclose(search.open("old", tmp_path).best.value, 0.5)


@pytest.fixture
def read_only(tmp_path, empty_store):
    """A store on a disk that can only be read."""
    store = Store(tmp_path / "disk")
    kept(store, "s", load_config("rnn", ["search.epochs=1", "search.trials=1"]))
    store.database.write_bytes(empty_store.read_bytes())
    for options in (("--bind", store.root, store.root), ("-o", "remount,ro,bind", store.root)):
        if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
            pytest.skip("only root may mount a disk that can only be read")
    yield store
    subprocess.run(["umount", "-l", store.root], check=True)


def test_store_on_a_read_only_disk_is_read_by_each_command_that_only_reads(read_only, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.chdir(tmp_path)
    console = Console(width=200)
    assert report_search(read_only, "s") == tmp_path / "s-report.html"
    assert (tmp_path / "s-report.html").exists()
    why(read_only, "s", 0)
    simulated_beside_logged(read_only, "s", {}, [], 1)
    write_study(open_search(read_only, "s")[2], replay(read_only.search("s"))[0], "s", f"sqlite:///{tmp_path}/out.db")
    assert search.open("s", read_only.root).best.value == 0.5
    (comparison,) = compare_searches(read_only, "rnn")
    assert comparison.trials["search"].tolist() == ["s"]
    with pytest.raises(InputError, match="toy: no registered champion"):
        predict_inputs(read_only, "toy", ["1,2,3,4"])
    with pytest.raises(InputError, match=r"journal\.jsonl: cannot be written: Read-only file system"):
        commands.resume(console, read_only, "s", {}, None)


def test_changed_search_json_is_refused_until_its_checksum_is_deleted(tmp_path, monkeypatch):
    store = Store(tmp_path)
    kept(store, "s", loop(monkeypatch))
    path = store.search("s").path / "search.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(InputError, match=r"search\.json: was changed since it was written; .*delete its line `crc`"):
        open_search(store, "s")
    content = json.loads(path.read_text())
    del content["crc"]
    path.write_text(json.dumps(content))
    assert open_search(store, "s")[2].search.seed == 1


def test_search_json_with_an_unknown_mode_is_damaged(tmp_path, monkeypatch):
    store = Store(tmp_path)
    kept(store, "s", loop(monkeypatch), objective_stored={"metric": "loss", "mode": "up", "tuned": [], "named": "loss"})
    with pytest.raises(InputError, match=r"search\.json: is damaged: objective: \{'metric': 'loss', 'mode': 'up'"):
        open_search(store, "s")
