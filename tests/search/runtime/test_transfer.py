"""Checkpoints with files travel in pieces, to a worker that does not see the folder of the search and back."""

from types import SimpleNamespace

from search.runtime import transfer
from tests.ray_here import ray_here
from trainables.base import trainable
from trainables.base.checkpoints import Storage


def test_files_travel_in_pieces(tmp_path, monkeypatch):
    folder, trainer = tmp_path / "search", tmp_path / "checkpoint-3"
    folder.mkdir()
    (folder / "journal.jsonl").write_bytes(b"mark")
    (trainer / "shards").mkdir(parents=True)
    (trainer / "shards" / "1.bin").write_bytes(b"a shard of a model")
    monkeypatch.setattr(trainable, "PIECE", 5)
    monkeypatch.setattr(transfer, "_other_machines", lambda: True)
    search, far = SimpleNamespace(folder=SimpleNamespace(path=folder)), Storage(folder, b"other")
    with ray_here():
        saved = far.save("checkpoints/a.pt", lambda file: file.write(b"state"), lambda: {"checkpoint-3": trainer})
        files = trainable.sent(saved)["files"]
        assert len(files["checkpoints/a.files/checkpoint-3/shards/1.bin"]) == 4, "of at most five bytes"
        transfer.keep(search, files)
        near = Storage(folder, b"mark").others("checkpoints/a.pt", tmp_path)
        assert (near / "checkpoint-3" / "shards" / "1.bin").read_bytes() == b"a shard of a model"
        carried = transfer.pieces(search, "checkpoints/a.pt")
        there = trainable.received(far, carried, tmp_path / "scratch")
        assert there.open("checkpoints/a.pt").read() == b"state"
        back = there.others("checkpoints/a.pt", tmp_path)
        assert (back / "checkpoint-3" / "shards" / "1.bin").read_bytes() == b"a shard of a model"
