"""Files in a folder or at a URI, downloads of remote data, and arrays that are computed once."""

from __future__ import annotations

import io
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast

import fsspec
import numpy as np

from trainables.base import checkpoint_files
from trainables.base.digests import Summed, digest
from trainables.base.errors import InputError
from trainables.base.files import broken, replacing
from trainables.base.hub import fetch_dataset
from trainables.base.task import array_digest

#: The length of a digest as text.
_DIGEST_LENGTH = len("crc32:9ae0daaf")


class Files(Protocol):
    """A tree of files; each file is whole or absent. Names are paths below the root, with `/`."""

    def write(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Opens a file for writing; it gets its name when the block ends."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for reading; raises OSError if there is none."""
        ...

    def delete(self, name: str) -> None:
        """Deletes a file, and the files of its folder (`checkpoint_files`), if possible.

        The next start of the search deletes a file that remains.
        """
        ...

    def keep(self, files: Mapping[str, Path], folder: str) -> int:
        """Keeps files of this machine in `folder` with an index (`checkpoint_files`); returns their size in bytes."""
        ...

    def local(self, folder: str, scratch: Path) -> Path | None:
        """A folder of this machine with the files that `keep` wrote; None if there are none.

        Args:
            scratch: a folder for copies of remote files.
        """
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
        shutil.rmtree(self.root / checkpoint_files.folder_of(name), ignore_errors=True)
        path.unlink(missing_ok=True)
        if path.parent != self.root:
            with suppress(OSError):  # the folder is not empty
                path.parent.rmdir()

    def names(self, folder: str) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in (self.root / folder).rglob("*") if path.is_file()}

    def keep(self, files: Mapping[str, Path], folder: str) -> int:
        return checkpoint_files.keep(files, self.root / folder)

    def local(self, folder: str, scratch: Path) -> Path | None:
        path = self.root / folder
        return path if path.is_dir() else None


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
            self.fs.rm(f"{self.root}/{checkpoint_files.folder_of(name)}", recursive=True)
        with suppress(OSError):
            self.fs.rm_file(f"{self.root}/{name}")

    def names(self, folder: str) -> set[str]:
        self.fs.invalidate_cache()
        return {path[len(self.root) + 1 :] for path in self.fs.find(f"{self.root}/{folder}")}

    def keep(self, files: Mapping[str, Path], folder: str) -> int:
        for name, path in files.items():
            self.fs.makedirs(f"{self.root}/{folder}/{name}".rpartition("/")[0], exist_ok=True)
            self.fs.put_file(str(path), f"{self.root}/{folder}/{name}")  # in pieces
        index, size = checkpoint_files.indexed(files)
        for name, content in index.items():
            self.fs.pipe_file(f"{self.root}/{folder}/{name}", content)
        return size

    def local(self, folder: str, scratch: Path) -> Path | None:
        self.fs.invalidate_cache()
        names = self.fs.find(f"{self.root}/{folder}")
        if not names:
            return None
        copy = scratch / folder
        for name in names:
            path = copy / name[len(f"{self.root}/{folder}/") :]
            path.parent.mkdir(parents=True, exist_ok=True)
            self.fs.get_file(name, str(path))
        return copy


def files_at(root: str) -> Files:
    """The files below a folder or a URI; raises as `RemoteFiles`."""
    if "://" not in root or root.startswith("file://"):
        return LocalFiles(Path(root.removeprefix("file://")))
    return RemoteFiles(root)


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
