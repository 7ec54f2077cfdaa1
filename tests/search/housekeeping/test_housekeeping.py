"""Searches are listed, deleted and renamed, and disk space is freed, also after kills between any two steps."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

import search
from search.core import readable
from search.core.config import load_config
from search.core.journal import Journal
from search.core.record import SearchRecord, stored_objective
from search.core.store import Store
from search.housekeeping import cleaning, deletion, renaming
from search.housekeeping.deletion import leftovers
from search.tracking.client import mlflow_client
from search.tracking.tracker import Tracker
from tests.search.runtime.test_search import result, search_in
from tests.search.tracking.journals import whole_journal, write_final
from trainables import DataInfo, InputError, get_task

INFO = DataInfo(source="demo", fingerprint="f", test_fingerprint="t", sizes={})
EVIL = "rnn\x1b[31m<b>"


@pytest.fixture
def store(tmp_path, empty_store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    shutil.copy(empty_store, Store(tmp_path).database)
    return Store(tmp_path)


def put(store: Store, name: str, events: list[dict] | None = None, track: bool = False, **fields) -> Path:
    """A search in the store with a final model; with `track`, MLflow has it too."""
    folder, config = store.search(name), load_config("windows", ["search.epochs=4"])
    write_final(folder)
    with Journal(folder.journal) as journal:
        journal.append(*(events or whole_journal()))
    about = {"id": f"id-{name}", "created": 1000, "objective_stored": stored_objective("windows"), **fields}
    record = SearchRecord("windows", config.raw, "here", **about)
    folder.write(record)
    if track:
        tracker = Tracker(store, folder, config, record, INFO, get_task("windows").objective, print)
        tracker.start(journal.events)
        assert tracker.close(10.0) == 0
    return folder.path


def runs(store: Store) -> dict[str, str]:
    """The name of the search of each run, by the key of the run and the id of the search."""
    client = mlflow_client(store)
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments, max_results=1000)
    return {f"{r.data.tags['search.id']} {r.data.tags['search.run']}": r.data.tags["search"] for r in found}


def versions(store: Store) -> list[str]:
    return [v.version for v in mlflow_client(store).search_model_versions("name = 'windows'")]


class Killed(BaseException):
    pass


def kill_at(patch, module, name: str) -> None:
    """The process is killed instead of calling a function of a module."""

    def die(*_, **__):
        raise Killed

    patch.setattr(module, name, die)


# ls, du


def test_ls_names_status_figures_and_size_of_each_search(store):
    put(store, "done", created=3)
    put(store, "killed", whole_journal()[:5], created=2)
    put(store, "torn", created=1)
    (store.root / "searches" / "torn" / "search.json").write_text("{")
    with Journal(store.search("killed").journal) as journal:
        for kind, status in ((None, "running"), ("pause", "paused"), ("continue", "running")):
            if kind is not None:
                journal.append({"event": "request", "id": kind, "kind": kind, "content": {"trials": []}})
            running = {found.name: found for found in search.ls(store.root)}
            assert running["killed"].status == status
    found = {found.name: found for found in search.ls(store.root)}
    done = found["done"]
    assert (done.status, done.task, done.trials, done.metric) == ("finished", "windows", 2, "val_accuracy")
    assert (done.best, done.test, done.created) == (0.6, 0.55, 3)
    assert done.bytes == sum(p.stat().st_size for p in (store.root / "searches/done").rglob("*") if p.is_file())
    assert found["killed"].status == "interrupted"
    assert found["torn"].status == "damaged" and "is damaged" in found["torn"].damage
    assert [name for name in found if name != "torn"] == ["done", "killed"], "the newest first"


def test_commands_show_escapes_of_names_and_values_as_text(store, here):
    put(store, "evil", objective_stored={"metric": "x", "mode": "max", "tuned": [], "named": "v\x1b]0;x\x07"})
    path = store.root / "searches" / "evil" / "search.json"
    content = json.loads(path.read_text()) | {"task": EVIL}
    path.write_text(json.dumps({key: value for key, value in content.items() if key != "crc"}))
    (store.root / "searches" / "a\x1b[2J").mkdir()
    (store.root / "searches" / "a\x1b[2J" / "search.json").write_text("{}")
    for arguments in (["ls"], ["ls", "--format", "csv"], ["ls", "--format", "json"], ["du"], ["gc", "--dry-run"]):
        output = here.call(*arguments, "--store", str(store.root))
        assert "\x1b" not in output and "\x07" not in output
        if arguments[0] == "ls":
            assert "evil" in output


def test_ls_as_json_and_csv(store, here):
    put(store, "done")
    put(store, "none", whole_journal()[:2])
    rows = json.loads(here.call("ls", "--format", "json", "--store", str(store.root)))
    assert {row["name"]: (row["best"], row["status"]) for row in rows} == {
        "done": (0.6, "finished"), "none": (None, "interrupted"),
    }  # fmt: skip
    table = here.call("ls", "--format", "csv", "--store", str(store.root)).splitlines()
    assert table[0].startswith("name,task,status,trials") and "done,windows,finished,2" in "\n".join(table)


def test_du_counts_each_file_once_by_search_and_kind(store):
    path = put(store, "done")
    (path / "checkpoints" / "0000").mkdir(parents=True)
    (path / "checkpoints" / "0000" / "a.pt").write_bytes(bytes(5000))
    (path / "trials").mkdir()
    (path / "trials" / "link").hardlink_to(path / "checkpoints" / "0000" / "a.pt")
    (store.cache / "x").mkdir(parents=True)
    (store.cache / "x" / "y").write_bytes(bytes(300))
    found = {(size.search, size.kind): size.bytes for size in search.du(store.root)}
    assert found["done", "checkpoints"] + found.get(("done", "trials"), 0) == 5000
    assert found[None, "cache"] == 300 and found[None, "mlflow"] == store.database.stat().st_size
    assert found["done", "models"] > 0 and found["done", "record"] > 0


@pytest.mark.parametrize(("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (10**12, "931.3 GB")])
def test_size_in_words(count, shown):
    assert readable.size(count) == shown


# delete


def test_delete_takes_runs_models_and_folder_and_leaves_the_other_search(store):
    put(store, "first", track=True)
    put(store, "second", track=True)  # its test figure is no better: version 1 stays the champion
    before = runs(store)
    gone = search.delete("second", store=store.root)
    assert gone.models == ("windows version 2",) and gone.kept == ()
    assert gone.runs == sum(name == "second" for name in before.values()) and gone.bytes > 0
    assert runs(store) == {key: name for key, name in before.items() if name == "first"}
    assert versions(store) == ["1"] or versions(store) == [1]
    assert store.names() == ["first"]
    assert mlflow_client(store).get_experiment("1").tags["mlflow.note.content"] == "", "no link to the deleted search"
    artifacts = [path.name for path in store.artifacts.rglob("weights")]
    assert len(artifacts) == 1, "the artifacts of the other model"


@pytest.mark.parametrize("inside", [(), ("search.json", "journal.jsonl")])
def test_nothing_behind_a_link_is_deleted(store, tmp_path, inside):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    whole = put(store, "whole")
    for name in inside:
        shutil.copy(whole / name, elsewhere)
    (elsewhere / "passwd").write_text("mine")
    link = store.root / "searches" / "link"
    link.symlink_to(elsewhere)
    for step in (deletion.plan_deletion, deletion.delete):
        with pytest.raises(InputError, match=f"link: {link} is a link to {elsewhere}, and nothing outside the store"):
            step(store, "link")
    link.rename(link.with_name(".deleted-link.1"))
    for path in (elsewhere, *elsewhere.iterdir()):
        os.utime(path, (1, 1))
    cleaning.clean(store)
    assert (elsewhere / "passwd").read_text() == "mine"


def test_champion_stays_with_its_run(store):
    put(store, "first", track=True)
    gone = search.delete("first", store=store.root)
    assert gone.models == () and gone.kept == ("windows version 1 (champion) stays with its run",)
    assert [key.split()[1] for key in runs(store)] == ["final-0-0-2"]
    assert mlflow_client(store).get_model_version_by_alias("windows", "champion").run_id
    assert [path.name for path in store.artifacts.rglob("weights")] == ["weights"]


def test_running_search_is_neither_deleted_nor_renamed(store, here):
    path = put(store, "first")
    with Journal(store.search("first").journal):
        before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
        for arguments in (["delete", "first", "--yes"], ["rename", "first", "second"]):
            assert "first: this search is running" in here.call(*arguments, "--store", str(store.root), code=2)
        assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_delete_without_a_terminal_needs_yes(store, here):
    put(store, "first")
    output = here.call("delete", "first", "--store", str(store.root), code=2)
    assert "give --yes" in output and store.names() == ["first"]
    assert "are free" in here.call("delete", "first", "--yes", "--store", str(store.root))
    assert "no search of that name" in here.call("delete", "first", "--yes", "--store", str(store.root), code=2)


@pytest.mark.parametrize("step", ["delete_tracked", "function_folder", "rmtree"])
def test_delete_that_was_killed_is_completed_by_a_second_one(store, monkeypatch, step):
    put(store, "first", track=True)
    put(store, "second", track=True)
    with monkeypatch.context() as patch:
        kill_at(patch, deletion.shutil if step == "rmtree" else deletion, step)
        with pytest.raises(Killed):
            search.delete("second", store=store.root)
    assert "first" in store.names()
    if step != "function_folder":
        assert store.names() == ["first"] and len(leftovers(store, "second")) == 1
    search.delete("second", store=store.root)
    assert {*runs(store).values()} == {"first"} and store.names() == ["first"] and not leftovers(store)
    with pytest.raises(InputError, match="second: no search of that name"):
        search.delete("second", store=store.root)


def test_damaged_search_is_deleted_and_its_runs_are_named(store):
    path = put(store, "first")
    (path / "search.json").write_text("{")
    gone = search.delete("first", store=store.root)
    assert gone.kept == ("its runs in MLflow stay, as its search.json cannot be read",) and not path.exists()


def test_delete_takes_the_checkpoints_in_a_storage(store, tmp_path):
    config = load_config("windows", [f"search.storage=file://{tmp_path}/far"]).raw
    put(store, "first")
    folder = store.search("first")
    record = folder.read()
    folder.write(SearchRecord(**{**record.__dict__, "config": config}))
    checkpoint = tmp_path / "far" / "checkpoints" / "0000" / "a.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("x")
    search.delete("first", store=store.root)
    assert not checkpoint.exists()


# rename


def function_of(store: Store, name: str) -> Path:
    return store.root / store.search(name).read().config["data"]["function"]


@pytest.mark.parametrize("step", [None, "_move_function", "rename_tracked"])
def test_rename_changes_folder_record_function_and_runs(store, monkeypatch, step):
    put(store, "other", track=True)
    put(store, "first", track=True)
    folder = store.search("first")
    record = folder.read()
    data = {**record.config["data"], "function": "functions/first/train.pkl"}
    folder.write(SearchRecord(**{**record.__dict__, "config": {**record.config, "data": data}}))
    (store.root / "functions" / "first").mkdir(parents=True)
    (store.root / "functions" / "first" / "train.pkl").write_text("code")
    count = len(runs(store))
    if step:
        with monkeypatch.context() as patch:
            kill_at(patch, renaming, step)
            with pytest.raises(Killed):
                search.rename("first", "second", store=store.root)
        (name,) = {*store.names()} - {"other"}
        assert function_of(store, name).read_text() == "code", "the search can be resumed"
    renaming.rename(store, "first", "second")
    assert store.names() == ["other", "second"] and function_of(store, "second").read_text() == "code"
    assert not (store.root / "functions" / "first").exists(), "a new search of the old name may use it"
    names = runs(store)
    assert len(names) == count and {*names.values()} == {"second", "other"}
    (parent,) = mlflow_client(store).search_runs(["1"], "tags.`search.run` = 'parent' AND tags.search = 'second'")
    assert parent.info.run_name == "second"
    assert "resume first" not in str(parent.data.tags) and "resume second" in str(parent.data.tags)
    tags = mlflow_client(store).get_experiment("1").tags
    assert tags["mlflow.note.content"].startswith("Latest search: [second](")
    (view,) = [v for k, v in tags.items() if "id-first" in k]
    assert json.loads(view)["searchFilter"] == "tags.search = 'second'"
    assert store.search("second").read().former is None


def test_rename_onto_an_existing_or_a_wrong_name_is_refused(store):
    put(store, "first")
    put(store, "second")
    for old, new, why in (
        ("first", "second", "a search of the name second exists"),
        ("first", "first", "the names are equal"),
        ("none", "third", "none: no search of that name"),
        ("first", "../x", "allowed are up to 100 letters"),
    ):
        with pytest.raises(InputError, match=why):
            renaming.rename(store, old, new)
    assert store.names() == ["first", "second"]


# gc


def saved(made, number: int, epoch: int) -> dict:
    name = f"checkpoints/{number:04d}/{epoch:04d}.pt"
    with made.files.write(name) as file:
        file.write(b"x" * 100)
    return {"event": "checkpoint", "number": number, "epoch": epoch, "name": name, "bytes": 100}


def with_checkpoints(store: Store, status: str):
    """Three trials with checkpoints of epochs 1 to 3, best at epoch 2; and a file without an event."""
    made = search_in(store.root, "search.keep_checkpoints=1", "search.scheduler=none")
    for number in range(3):
        made.propose()
        for epoch, accuracy in enumerate((0.1, 0.5 + number / 10, 0.2), 1):
            made.record(saved(made, number, epoch))
            made.report([result(number, epoch, accuracy)], "cpu")
        made.record({"event": "stopped_early", "number": number})
    saved(made, 2, 4)
    made.end(status)
    folder = store.search("s")
    about = {"id": "s", "objective_stored": stored_objective("windows")}
    folder.write(SearchRecord("windows", made.config.raw, "here", **about))
    return folder.path


def names_below(path: Path) -> set[str]:
    return {f"{int(p.parent.name)}/{int(p.stem)}" for p in path.rglob("*.pt")}


@pytest.mark.parametrize(
    ("status", "kept"),
    [("finished", {"2/2", "2/3"}), ("interrupted", {f"{n}/{e}" for n in range(3) for e in (2, 3)})],
)
def test_gc_leaves_the_checkpoints_that_a_resume_or_retrain_reads(store, status, kept):
    path = with_checkpoints(store, status)
    planned = search.gc(dry_run=True, store=store.root)
    assert len(names_below(path)) == 10, "a dry run deletes nothing"
    done = search.gc(store=store.root)
    assert names_below(path) == kept
    assert done == planned and done.bytes == 100 * (10 - len(kept))
    assert not search.gc(store=store.root).garbage


def old(path: Path) -> None:
    for inner in (path, *path.rglob("*")):
        os.utime(inner, (time.time() - 2 * cleaning.ABANDONED,) * 2)


def test_gc_takes_what_killed_commands_left_and_caches(store, monkeypatch):
    put(store, "sound")
    put(store, "doomed")
    with monkeypatch.context() as patch:
        kill_at(patch, deletion, "delete_tracked")
        with pytest.raises(Killed):
            search.delete("doomed", store=store.root)
    searches = store.root / "searches"
    for path in (
        searches / "never" / "journal.jsonl", searches / ".import-x" / "study" / "journal.jsonl",
        store.root / "functions" / "orphan" / "f.pkl", store.root / "functions" / "young" / "f.pkl",
        store.cache / "a" / "b.npy", searches / "sound" / ".search.json-0123456789ab",
        searches / "lost" / "journal.jsonl",
    ):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if path.parent.name == "never" else b"x")
    for path in (searches / "never", searches / ".import-x", searches / "lost", store.root / "functions" / "orphan"):
        old(path)
    done = search.gc(store=store.root)
    assert sorted(one.kind for one in done.garbage) == [
        "abandoned", "abandoned", "cache", "deletion", "function", "temporary",
    ]  # fmt: skip
    assert sorted(path.name for path in searches.iterdir()) == ["lost", "sound"], "a journal with events is no garbage"
    assert [path.name for path in (store.root / "functions").iterdir()] == ["young"]
    assert not store.cache.exists() and not leftovers(store)


def test_gc_keeps_functions_while_a_search_cannot_be_read(store):
    put(store, "torn")
    (store.root / "searches" / "torn" / "search.json").write_text("{")
    function = store.root / "functions" / "id-torn" / "f.pkl"
    function.parent.mkdir(parents=True)
    function.write_text("x")
    old(function.parent)
    done = search.gc(store=store.root)
    assert function.exists() and any(line.startswith("functions: ") for line in done.skipped)


def test_gc_leaves_a_running_search_and_its_cache_alone(store):
    path = with_checkpoints(store, "interrupted")
    (store.cache / "a").mkdir(parents=True)
    (store.cache / "a" / "b.npy").write_text("x")
    with Journal(store.search("s").journal):
        done = search.gc(store=store.root)
        assert done.garbage == [] and len(names_below(path)) == 10 and store.cache.exists()
    assert done.skipped == ["s: this search is running", "the cache: a search that is running uses it"]


@pytest.mark.timeout(280)
def test_search_is_listed_renamed_resumed_and_deleted(here):
    here.call("run", "toy", "--name", "one", "--trials", "2", "--epochs", "2", "--no-retrain")
    assert "finished" in here.call("ls")
    here.call("rename", "one", "two")
    output = here.call("resume", "two", "--trials", "+1")
    assert "3 trials" in output
    assert "nothing to delete" not in here.call("du")
    assert "two" in here.call("delete", "two", "--yes")
    assert "no search in" in here.call("ls")
    _, left = here.runs("toy")
    assert not left
