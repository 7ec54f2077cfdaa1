"""Data and checkpoints in a bucket: moto's server speaks S3 on 127.0.0.1."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import s3fs

from tests.conftest import OWN_RAY, Command
from tests.faults.conftest import SEARCH
from tests.outcomes import outcome_of, results
from tests.serving import free_port, wait_for
from trainables.base.checkpoints import Storage
from trainables.base.digests import digest
from trainables.base.errors import InputError
from trainables.base.storage import Files, LocalFiles, RemoteFiles, fetch, files_at


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, str]]:
    """The environment in which s3://bucket is there."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    wait_for(url, process)
    env = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": url,
           "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for key, value in env.items():
            patch.setenv(key, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield env
    process.kill()
    process.wait()


@pytest.fixture(params=["local", "s3"])
def files(request, bucket, tmp_path) -> Files:
    return LocalFiles(tmp_path) if request.param == "local" else files_at(f"s3://bucket/{tmp_path.name}")


def test_storage_writes_whole_files(files):
    with files.write("a/b/one") as file:
        file.write(b"content")
    with pytest.raises(RuntimeError), files.write("a/b/two") as file:
        file.write(b"half")
        raise RuntimeError
    assert files.names("a") == {"a/b/one"}
    with files.open("a/b/one") as file:
        assert file.read() == b"content"
    files.delete("a/b/one")
    files.delete("a/b/one")
    assert files.names("a") == set()
    with pytest.raises(OSError, match="one"):
        files.open("a/b/one")


def test_storage_uri(tmp_path):
    assert isinstance(files_at(f"file://{tmp_path}"), LocalFiles)
    with pytest.raises(ValueError, match="nonsense"):
        RemoteFiles("nonsense://x")


def test_storage_worker_without_folder(tmp_path):
    (tmp_path / "journal.jsonl").write_bytes(b"mark\nmore\n")
    near, far = Storage(tmp_path, b"mark\n"), Storage(tmp_path, b"other\n", carried={"x": b"sent along"})
    assert near.save("a/b", lambda file: file.write(b"here")) == {
        "name": "a/b", "bytes": 4, "digest": digest(io.BytesIO(b"here")),
    }  # fmt: skip
    assert near.open("a/b").read() == b"here"
    sent = far.save("a/c", lambda file: file.write(b"there"))
    assert (sent["name"], sent["bytes"], sent["files"]) == ("a/c", 5, {"a/c": b"there"})
    assert not (tmp_path / "a" / "c").exists() and far.open("x").read() == b"sent along"
    with pytest.raises(FileNotFoundError, match="sent no such file"):
        far.open("y")


def test_bucket_data_fetched_once_per_version(bucket, tmp_path):
    fs = s3fs.S3FileSystem()
    for name in ("train", "test"):
        fs.pipe_file(f"bucket/corpus/{name}.txt", name.encode())
    first = fetch("s3://bucket/corpus", tmp_path)
    assert {p.name: p.read_text() for p in first.iterdir()} == {"train.txt": "train", "test.txt": "test"}
    assert fetch("s3://bucket/corpus", tmp_path) == first
    fs.pipe_file("bucket/corpus/test.txt", b"other")
    fs.invalidate_cache()
    assert (fetch("s3://bucket/corpus", tmp_path) / "test.txt").read_text() == "other"
    assert fetch("s3://bucket/corpus/train.txt", tmp_path).read_text() == "train"
    with pytest.raises(InputError, match="--data s3://bucket/nothing: no file is there"):
        fetch("s3://bucket/nothing", tmp_path)
    with pytest.raises(InputError, match="--data odd://x: cannot be read"):
        fetch("odd://x", tmp_path)


@pytest.mark.nightly
def test_bucket_search_killed_and_resumed(bucket, command):
    whole = Command(command.folder / "whole", command.env, command.empty_store)
    whole.folder.mkdir()
    whole.run(*SEARCH)
    mine = Command(command.folder, {**OWN_RAY, **bucket}, command.empty_store)
    arguments = (*SEARCH, "--storage", "s3://bucket/runs")
    mine.kill_when("s", lambda events: len(results(events)) >= 10, *arguments)
    folder = mine.folder / "mlruns" / "searches" / "s"
    fs = s3fs.S3FileSystem()
    fs.invalidate_cache()
    assert any(name.endswith(".pt") for name in fs.find("bucket/runs")) and not (folder / "checkpoints").exists()
    mine.run("resume", "s")
    assert outcome_of(mine, "s") == outcome_of(whole, "s")
    fs.invalidate_cache()
    kept = fs.find("bucket/runs")
    assert {name.split("/")[2][:2] for name in kept} == {"s-"}, "a search has a folder of its own"
    assert len({name.split("/")[-2] for name in kept}) <= 3, "checkpoints of the best three trials at most"
    assert not any("/final/" in name for name in kept), "what was only to go on from is gone"


@pytest.mark.slow
def test_bucket_missing(bucket, command):
    output = command.run(*SEARCH, "--storage", "s3://nowhere/runs", code=2, **bucket)
    assert "error: --storage s3://nowhere/runs/s-" in output and "cannot be used" in output
    assert not (command.folder / "mlruns" / "searches").exists() and os.environ["AWS_ACCESS_KEY_ID"] == "key"
