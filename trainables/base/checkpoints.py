"""Writes and reads checkpoints and other files of a search on a worker."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

from trainables.base import checkpoint_files
from trainables.base.digests import Summed, check
from trainables.base.errors import Damaged, first_line
from trainables.base.storage import Files, LocalFiles, files_at


@dataclass(frozen=True)
class Storage:
    """Reads and writes a search's files on a worker.

    A worker uses the first of these places that it can reach:

    1. the URI
    2. the search's folder
    3. the driver: it sends files with the trial, and writes the files that the worker returns

    Attributes:
        folder: the search's folder.
        mark: the beginning of the search's journal. A worker that reads the same bytes sees the same folder.
        uri: the address of remote storage.
        carried: the content, by name, of the files that the driver sent.
        received: a folder of this machine with the other files of the checkpoint that the driver sent.
    """

    folder: Path
    mark: bytes
    uri: str | None = None
    carried: Mapping[str, bytes] = field(default_factory=dict)
    received: Path | None = None

    @cached_property
    def sees_folder(self) -> bool:
        """Whether this machine sees the search's folder."""
        try:
            with (self.folder / "journal.jsonl").open("rb") as file:
                return bool(self.mark) and file.read(len(self.mark)) == self.mark
        except OSError:
            return False

    def trial_folder(self, number: int) -> Path | None:
        """The folder for the own files of a trial; None if this machine does not see the search's folder."""
        return self.folder / "trials" / f"{number:04d}" if self.sees_folder else None

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

    def save(
        self, name: str, write: Callable[[IO[bytes]], None], others: Callable[[], Mapping[str, Path]] = dict
    ) -> dict[str, Any]:
        """Writes a file, and keeps the files that belong to it (`checkpoint_files`).

        Args:
            write: writes the content from beginning to end.
            others: is called after `write` and returns the other files and folders by name. Their content is not read
                if this machine sees the folder.

        Returns:
            `name`, `bytes` (of all files together) and `digest` of the file. If the driver has to write the files:
            also `files`, the content or the path of each by name.

        Raises:
            OSError: a file cannot be written.
        """
        folder = checkpoint_files.folder_of(name)
        if (files := self._files) is None:
            buffer = io.BytesIO()
            written = _written(name, buffer, write)
            written["files"] = {name: buffer.getvalue()}
            if own := checkpoint_files.flat(others()):
                index, size = checkpoint_files.indexed(own)
                written["bytes"] += size
                written["files"] |= {f"{folder}/{file}": content for file, content in {**own, **index}.items()}
            return written
        with files.write(name) as file:  # the file gets its name last: it stands for a whole checkpoint
            written = _written(name, file, write)
            if own := checkpoint_files.flat(others()):
                written["bytes"] += files.keep(own, folder)
            return written

    def others(self, name: str, scratch: Path) -> Path | None:
        """The folder with the other files of the checkpoint `name`, whose sizes and digests are checked; None if it has
        none.

        Args:
            scratch: a folder for copies of remote files.

        Raises:
            Damaged: a file is missing or has changed.
        """
        folder = checkpoint_files.folder_of(name)
        try:
            local = self.received if self._files is None else self._files.local(folder, scratch)
        except Exception as error:  # each file system raises its own classes
            raise Damaged(folder, first_line(error)) from error
        if local is not None:
            checkpoint_files.check_folder(local, folder)
        return local


def _written(name: str, file: IO[bytes], write: Callable[[IO[bytes]], None]) -> dict[str, Any]:
    summed = Summed(file)
    write(cast(IO[bytes], summed))
    return {"name": name, "bytes": summed.bytes, "digest": summed.digest}
