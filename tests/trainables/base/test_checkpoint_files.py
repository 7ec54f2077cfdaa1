"""The files of a checkpoint beside its state: kept without a copy, checked, sent in pieces and deleted."""

import builtins
import io
import json
from pathlib import Path

import pytest

from trainables.base import checkpoint_files
from trainables.base.checkpoints import Storage
from trainables.base.digests import digest
from trainables.base.errors import Damaged
from trainables.base.storage import RemoteFiles

CONTENT = {"checkpoint-3/model.safetensors": b"weights", "checkpoint-3/shards/1.bin": b"a shard", "best.txt": b"3"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "journal.jsonl").write_bytes(b"mark")
    return tmp_path / "search"


@pytest.fixture
def given(tmp_path):
    """What a trainer wrote: a folder and a file."""
    for name, content in CONTENT.items():
        path = tmp_path / "trainer" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return {"checkpoint-3": tmp_path / "trainer" / "checkpoint-3", "best.txt": tmp_path / "trainer" / "best.txt"}


def save(storage, given):
    return storage.save("checkpoints/a.pt", lambda file: file.write(b"state"), lambda: given)


def content_of(path):
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in path.rglob("*") if file.is_file() and file.name != checkpoint_files.INDEX
    }  # fmt: skip


def test_files_are_kept_as_hard_links_and_not_read(folder, given, tmp_path, monkeypatch):
    opened = []
    open_path, open_file = Path.open, builtins.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: (opened.append(str(self)), open_path(self, *a, **k))[1])
    monkeypatch.setattr(builtins, "open", lambda path, *a, **k: (opened.append(str(path)), open_file(path, *a, **k))[1])
    monkeypatch.setattr(checkpoint_files, "_sum", lambda folder: None)  # the thread that reads them later
    written = save(Storage(folder, b"mark"), given)
    monkeypatch.undo()
    kept = folder / "checkpoints" / "a.files"
    assert content_of(kept) == CONTENT
    for name in CONTENT:
        assert (kept / name).samefile(tmp_path / "trainer" / name)
    assert not [path for path in opened if path.endswith(tuple(CONTENT))]
    assert written["bytes"] == len(b"state") + sum(map(len, CONTENT.values()))


def test_digests_are_added_afterwards(folder, given):
    save(Storage(folder, b"mark"), given)
    checkpoint_files.settle()
    about = json.loads((folder / "checkpoints" / "a.files" / "index.json").read_text())
    assert about == {name: [len(content), digest(io.BytesIO(content))] for name, content in CONTENT.items()}


@pytest.mark.parametrize("place", ["folder", "uri", "driver"])
def test_files_come_back_from_each_place(folder, given, tmp_path, place):
    mark = b"other" if place == "driver" else b"mark"
    storage = Storage(folder, mark, f"local://{tmp_path}/far" if place == "uri" else None)
    written = save(storage, given)
    checkpoint_files.settle()
    if place == "driver":
        sent = {name: one if isinstance(one, bytes) else one.read_bytes() for name, one in written["files"].items()}
        for name, content in sent.items():
            (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "there" / name).write_bytes(content)
        storage = Storage(folder, mark, received=tmp_path / "there" / "checkpoints" / "a.files")
    back = storage.others("checkpoints/a.pt", tmp_path / "scratch")
    assert content_of(back) == CONTENT
    assert storage.others("checkpoints/b.pt", tmp_path / "scratch") is None or place == "driver"


@pytest.mark.parametrize("harm", ["cut", "flip", "lose", "index"])
def test_damaged_file_is_named(folder, given, tmp_path, harm):
    storage = Storage(folder, b"mark")
    save(storage, given)
    checkpoint_files.settle()
    path = folder / "checkpoints" / "a.files" / "checkpoint-3" / "model.safetensors"
    if harm == "cut":
        path.write_bytes(b"weigh")
    elif harm == "flip":
        path.write_bytes(b"weigHts")
    elif harm == "lose":
        path.unlink()
    else:
        (folder / "checkpoints" / "a.files" / "index.json").write_text("{")
    with pytest.raises(
        Damaged, match=r"index\.json" if harm == "index" else r"a\.files/checkpoint-3/model\.safetensors"
    ):
        storage.others("checkpoints/a.pt", tmp_path)


@pytest.mark.parametrize("uri", [None, "local://"])
def test_delete_removes_the_files_too(folder, given, tmp_path, uri):
    storage = Storage(folder, b"mark", uri and f"{uri}{folder}")
    save(storage, given)
    checkpoint_files.settle()
    files = storage._files
    assert isinstance(files, RemoteFiles) == bool(uri)
    names = files.names("checkpoints")
    assert {checkpoint_files.checkpoint_of(name) for name in names} == {"checkpoints/a.pt"} and len(names) == 5
    files.delete("checkpoints/a.pt")
    assert files.names("checkpoints") == set()


def test_a_second_save_replaces_all_files(folder, given, tmp_path):
    storage = Storage(folder, b"mark")
    save(storage, given)
    save(storage, {"best.txt": given["best.txt"]})
    checkpoint_files.settle()
    assert content_of(folder / "checkpoints" / "a.files") == {"best.txt": b"3"}
