"""Digests of files, by which a damaged file is found."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from trainables.base.errors import Damaged, first_line


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
