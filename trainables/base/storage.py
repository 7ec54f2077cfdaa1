"""Reads and writes the files of a search, on the driver and on workers of other machines."""

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

#: The length of a digest as text.
_DIGEST_LENGTH = len("crc32:9ae0daaf")


class Summed:
    """A file that is written from beginning to end, with a checksum of the bytes that were written so far."""

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
        """The digest of the bytes so far, in the form of the function `digest`."""
        return f"crc32:{self._sum:08x}"


def digest(file: IO[bytes], size: int | None = None) -> str:
    """A checksum of the next `size` bytes of a file (None: of all that follow), such as `crc32:9ae0daaf`.

    It finds errors of disks and networks, not manipulation. CRC-32 takes 0.08 s for 100 MB; blake2b takes 0.4 s, and
    writing the file 0.2 to 0.4 s.
    """
    checksum = 0
    left = math.inf if size is None else size
    while block := file.read(int(min(left, 2**20))):
        checksum = zlib.crc32(block, checksum)
        left -= len(block)
    return f"crc32:{checksum:08x}"


class Files(Protocol):
    """A tree of files; each file is whole or absent. Names are paths below the root, with `/`."""

    def write(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Opens a file for writing; it gets its name when the block ends."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for reading; raises OSError if there is none."""
        ...

    def delete(self, name: str) -> None:
        """Deletes a file if possible; the next start of the search deletes a file that remains."""
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
    """Files below a URI of fsspec (s3://, gs://, ...); fsspec's file system finds the credentials."""

    def __init__(self, uri: str) -> None:
        """Raises ValueError for an unknown protocol, and ImportError where its package is missing."""
        self.fs, root = fsspec.core.url_to_fs(uri)
        self.root = root.rstrip("/")

    @contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        buffer = io.BytesIO()  # an open remote file would be written in part if the block raises
        yield buffer
        self.fs.pipe_file(f"{self.root}/{name}", buffer.getvalue())

    def open(self, name: str) -> IO[bytes]:
        return io.BytesIO(self.fs.cat_file(f"{self.root}/{name}"))

    def delete(self, name: str) -> None:
        with suppress(OSError):
            self.fs.rm_file(f"{self.root}/{name}")

    def names(self, folder: str) -> set[str]:
        self.fs.invalidate_cache()
        return {path[len(self.root) + 1 :] for path in self.fs.find(f"{self.root}/{folder}")}


def files_at(root: str) -> Files:
    """The files below a folder or a URI; raises as `RemoteFiles`."""
    if "://" not in root or root.startswith("file://"):
        return LocalFiles(Path(root.removeprefix("file://")))
    return RemoteFiles(root)


@dataclass(frozen=True)
class Storage:
    """Reads and writes a search's files on a worker.

    A worker uses the first of these that is available: the URI; the search's folder, if this machine sees it; the
    driver, which sends files with the trial and writes the files that the worker returns.

    Attributes:
        folder: the search's folder.
        mark: the beginning of the search's journal. A worker that reads the same bytes sees the same folder.
        uri: the address of remote storage.
        carried: the content, by name, of the files that the driver sent.
    """

    folder: Path
    mark: bytes
    uri: str | None = None
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
        """Opens a file of torch for reading and checks all of its content.

        Args:
            expected: its digest. None: the digest is not known; the checksums inside the zip are compared, which
                `torch.load` does not do.

        Raises:
            FileNotFoundError: there is no such file.
            Damaged: the content has changed or cannot be read.
        """
        try:
            file = self.open(name)
        except FileNotFoundError:
            raise
        except Exception as error:  # each file system raises its own classes
            raise Damaged(name, first_line(error)) from error
        try:
            check(file, name, expected)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def save(self, name: str, write: Callable[[IO[bytes]], None]) -> dict[str, Any]:
        """Writes a file, or returns its content for the driver to write.

        Args:
            write: writes the content from beginning to end.

        Returns:
            `name`, `bytes` and `digest` of the file, and its `content` if the driver has to write it.

        Raises:
            OSError: the file cannot be written.
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
    """Reads all of an open file; raises Damaged if its content has changed. Arguments as of `Storage.open_checked`."""
    try:
        if expected is not None:
            if (actual := digest(file)) != expected:
                raise Damaged(name, f"its digest is {actual}, {expected} was written")
        else:
            with zipfile.ZipFile(file) as archive:
                if member := archive.testzip():
                    raise Damaged(name, f"the checksum of {member} in it is another")
    except Damaged:
        raise
    except Exception as error:  # `zipfile` raises many classes for torn files; each file system has its own classes
        raise Damaged(name, first_line(error)) from error


def check_all(folder: Path, digests: Mapping[str, str]) -> None:
    """Raises Damaged if one of the files, by name below the folder, is missing or has another digest."""
    for name, expected in digests.items():
        path = folder / name
        try:
            with path.open("rb") as file:
                check(file, str(path), expected)
        except OSError as error:
            raise Damaged(str(path), first_line(error)) from error


def cached_array(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Computes an array once, and returns a read-only memory map of the file at `path`.

    `make` is called if the file is missing or damaged. The file is a `.npy` file with a digest behind the array;
    `np.load` ignores bytes behind the array.
    """
    size = path.stat().st_size - _DIGEST_LENGTH if path.exists() else 0
    if size > 0:
        with path.open("rb") as file:
            undamaged = digest(file, size).encode() == file.read()
        if undamaged:
            return np.load(path, mmap_mode="r")
    with replacing(path) as file:
        summed = Summed(file)
        np.save(cast(IO[bytes], summed), make())
        file.write(summed.digest.encode())
    return np.load(path, mmap_mode="r")


def is_remote(data: str) -> bool:
    """Whether `--data` has to be downloaded: a URI, or a data set of the Hugging Face hub."""
    return "://" in data or data.startswith("hf:")


def fetch(uri: str, cache: Path) -> Path:
    """Downloads a file or folder into the cache.

    The cached copy is used if the names, sizes and versions of the files are still the same. `hf:NAME` is a data set of
    the Hugging Face hub.

    Raises:
        InputError: the address cannot be read, or there is no file.
    """
    if uri.startswith("hf:"):
        return fetch_dataset(uri, cache)
    with broken(f"--data {uri}", "cannot be read"):
        fs, root = fsspec.core.url_to_fs(uri)
        files = fs.find(root, detail=True)
    if not files:
        raise InputError(f"--data {uri}: no file is there")
    versions = [(name, about["size"], str(about.get("ETag") or about.get("mtime"))) for name, about in files.items()]
    folder = cache / "remote" / array_digest([json.dumps(sorted(versions)).encode()])
    target = folder / PurePosixPath(root).name
    if not folder.exists():
        part = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:12]}")
        for name in files:
            local = part / target.name / PurePosixPath(name).relative_to(root)
            local.parent.mkdir(parents=True, exist_ok=True)
            with broken(f"--data {uri}", f"{name} cannot be read"):
                fs.get_file(name, str(local))
        part.replace(folder)
    return target
