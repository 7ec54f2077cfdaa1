"""A search's files, as its driver and its workers on other machines reach them."""

from __future__ import annotations

import io
import json
import math
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol, cast

import fsspec
import numpy as np

from trainables.base.errors import Damaged, InputError, first_line
from trainables.base.files import broken, replacing
from trainables.base.hub import fetch_dataset
from trainables.base.task import array_digest

#: Bytes of a digest as text.
_SUM = len("crc32:9ae0daaf")


class Summed:
    """A file that is written from its beginning to its end, with a checksum of what was written so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sum = file, 0
        self.bytes = 0

    def write(self, content: bytes) -> int:
        """Writes all of `content` and returns its length."""
        self._sum = zlib.crc32(content, self._sum)
        self.bytes += len(content)
        return self._file.write(content)

    def flush(self) -> None:
        """Flushes the file."""
        self._file.flush()

    @property
    def digest(self) -> str:
        """As `digest` returns it for the whole file."""
        return f"crc32:{self._sum:08x}"


def digest(file: IO[bytes], size: int | None = None) -> str:
    """A checksum of what a file holds from here on, or of `size` bytes of it, such as `crc32:9ae0daaf`.

    It is to find what disks and networks do to files, not what people do: of 100 MB it takes 0.08 s, blake2b 0.4 s, and
    writing them 0.2 to 0.4 s.
    """
    found, left = 0, math.inf if size is None else size
    while block := file.read(int(min(left, 2**20))):
        found, left = zlib.crc32(block, found), left - len(block)
    return f"crc32:{found:08x}"


class Files(Protocol):
    """A tree of files, each there whole or not at all. Names are paths below its root, with `/`."""

    def write(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A file to write to; it takes its place when the block ends."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for reading; raises OSError if there is none."""
        ...

    def delete(self, name: str) -> None:
        """Deletes a file if that is possible; what stays is deleted when the search starts again."""
        ...

    def names(self, folder: str) -> set[str]:
        """The names of the files below a folder."""
        ...


class LocalFiles:
    """Files below a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return replacing(self.root / name)

    def open(self, name: str) -> IO[bytes]:
        return (self.root / name).open("rb")

    def delete(self, name: str) -> None:
        path = self.root / name
        path.unlink(missing_ok=True)
        if path.parent != self.root:
            with suppress(OSError):  # the folder is not empty
                path.parent.rmdir()

    def names(self, folder: str) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in (self.root / folder).rglob("*") if path.is_file()}


class RemoteFiles:
    """Files below a URI that fsspec knows (s3://, gs://, ...); its file system finds the credentials by itself."""

    def __init__(self, uri: str) -> None:
        """Raises ValueError for an unknown protocol, and ImportError where its package is missing."""
        self.fs, root = fsspec.core.url_to_fs(uri)
        self.root = root.rstrip("/")

    @contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        buffer = io.BytesIO()  # closing a remote file after an error would write half of it
        yield buffer
        self.fs.pipe_file(f"{self.root}/{name}", buffer.getvalue())

    def open(self, name: str) -> IO[bytes]:
        return io.BytesIO(self.fs.cat_file(f"{self.root}/{name}"))

    def delete(self, name: str) -> None:
        try:
            self.fs.rm_file(f"{self.root}/{name}")
        except OSError:
            return

    def names(self, folder: str) -> set[str]:
        self.fs.invalidate_cache()
        return {path[len(self.root) + 1 :] for path in self.fs.find(f"{self.root}/{folder}")}


def files_at(place: str) -> Files:
    """The files below a folder or a URI; raises as `RemoteFiles`."""
    if "://" not in place or place.startswith("file://"):
        return LocalFiles(Path(place.removeprefix("file://")))
    return RemoteFiles(place)


@dataclass(frozen=True)
class Storage:
    """How a worker reads and writes a search's files: at the URI if there is one; in the search's folder if this
    machine sees it; else through the driver, which sends files along and receives those that are written."""

    folder: Path
    #: The beginning of the search's journal. A worker compares it to know that it sees the same folder.
    mark: bytes
    uri: str | None = None
    #: The content, by name, of files that were sent along.
    carried: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def sees_folder(self) -> bool:
        """Whether this machine sees the search's folder."""
        try:
            with (self.folder / "journal.jsonl").open("rb") as file:
                return bool(self.mark) and file.read(len(self.mark)) == self.mark
        except OSError:
            return False

    @property
    def _files(self) -> Files | None:
        if self.uri is not None:
            return files_at(self.uri)
        return LocalFiles(self.folder) if self.sees_folder else None

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for reading; raises OSError if there is none."""
        if (files := self._files) is not None:
            return files.open(name)
        if name not in self.carried:
            raise FileNotFoundError(f"{name}: the driver sent no such file")
        return io.BytesIO(self.carried[name])

    def open_checked(self, name: str, expected: str | None) -> IO[bytes]:
        """Opens a file of torch for reading, once all of it was read and is what was written.

        Args:
            expected: its digest. None: it is not known, and the checksums inside the file are compared, which
                `torch.load` does not do.

        Raises:
            FileNotFoundError: there is none.
            Damaged: it is another, or cannot be read.
        """
        try:
            file = self.open(name)
        except FileNotFoundError:
            raise
        except Exception as error:  # each file system has errors of its own
            raise Damaged(name, first_line(error)) from error
        try:
            check(file, name, expected)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def save(self, name: str, write: Callable[[IO[bytes]], None]) -> dict[str, Any]:
        """Writes a file, or leaves that to the driver.

        Args:
            write: writes the content from its beginning to its end.

        Returns:
            Its `name`, `bytes` and `digest`, and its `content` if the driver has to write it.

        Raises:
            OSError: it cannot be written.
        """
        if (files := self._files) is None:
            buffer = io.BytesIO()
            return {**_written(name, buffer, write), "content": buffer.getvalue()}
        with files.write(name) as file:
            return _written(name, file, write)


def _written(name: str, file: IO[bytes], write: Callable[[IO[bytes]], None]) -> dict[str, Any]:
    summed = Summed(file)
    write(cast(IO[bytes], summed))
    return {"name": name, "bytes": summed.bytes, "digest": summed.digest}


def check(file: IO[bytes], name: str, expected: str | None) -> None:
    """Reads all of an open file and raises Damaged where it is not what was written; as `Storage.open_checked`."""
    try:
        if expected is not None:
            if (found := digest(file)) != expected:
                raise Damaged(name, f"its digest is {found}, {expected} was written")
        else:
            with zipfile.ZipFile(file) as archive:
                if wrong := archive.testzip():
                    raise Damaged(name, f"the checksum of {wrong} in it is another")
    except Damaged:
        raise
    except Exception as error:  # torn files make `zipfile` raise nearly anything; file systems have errors of their own
        raise Damaged(name, first_line(error)) from error


def check_all(folder: Path, digests: Mapping[str, str]) -> None:
    """Raises Damaged where one of the files, by name below the folder, is gone or has another digest."""
    for name, expected in digests.items():
        path = folder / name
        try:
            with path.open("rb") as file:
                check(file, str(path), expected)
        except OSError as error:
            raise Damaged(str(path), first_line(error)) from error


def cached_array(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """A read-only memory map of what `make` returned when `path` was written; makes and writes it where the file is
    missing, or is not what was written.

    A digest follows the array in the file, whose readers pass over what follows.
    """
    if path.exists() and (size := path.stat().st_size - _SUM) > 0:
        with path.open("rb") as file:
            found = digest(file, size)
            whole = file.read() == found.encode()
        if whole:
            return cast(np.ndarray, np.load(path, mmap_mode="r"))
    with replacing(path) as file:
        summed = Summed(file)
        np.save(cast(IO[bytes], summed), make())
        file.write(summed.digest.encode())
    return cast(np.ndarray, np.load(path, mmap_mode="r"))


def is_remote(data: str) -> bool:
    """Whether `--data` names something that is fetched: a URI, or a data set of the hub."""
    return "://" in data or data.startswith("hf:")


def fetch(uri: str, cache: Path) -> Path:
    """Downloads a file or folder from a URI into the cache, unless the cache has it with the same names, sizes and
    versions; `hf:NAME` is a data set of the Hugging Face hub.

    Raises:
        InputError: it cannot be read, or there is nothing.
    """
    if uri.startswith("hf:"):
        return fetch_dataset(uri, cache)
    with broken(f"--data {uri}", "cannot be read"):  # each file system has errors of its own
        fs, root = fsspec.core.url_to_fs(uri)
        found = fs.find(root, detail=True)
    if not found:
        raise InputError(f"--data {uri}: nothing is there")
    versions = [(name, about["size"], str(about.get("ETag") or about.get("mtime"))) for name, about in found.items()]
    folder = cache / "remote" / array_digest([json.dumps(sorted(versions)).encode()])
    target = folder / PurePosixPath(root).name
    if not folder.exists():
        part = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:12]}")
        for name in found:
            local = part / target.name / PurePosixPath(name).relative_to(root)
            local.parent.mkdir(parents=True, exist_ok=True)
            with broken(f"--data {uri}", f"{name} cannot be read"):
                fs.get_file(name, str(local))
        part.replace(folder)
    return target
