"""Reads files from a file, folder or zip, and writes files whole or not at all."""

from __future__ import annotations

import gzip
import math
import os
import re
import unicodedata
import uuid
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from trainables.base.errors import InputError, one_line

#: Words in the names of files and folders, and the splits that they say.
SPLITS = {
    "train": "train", "val": "val", "test": "test", "training": "train", "valid": "val", "validation": "val",
    "dev": "val", "testing": "test",
}  # fmt: skip
#: What `datasets` writes beside its tables, which is none of the data.
BESIDE = ("dataset_dict.json", "dataset_info.json", "state.json")
#: Such a word within a name; X and y may stand at it, as in `Xtrain`.
_WORD = re.compile(rf"(?<![a-z])[xy]?({'|'.join(SPLITS)})(?:[xy]|data|set)?(?![a-z])")


def file_safe(text: str) -> str:
    """A name for a file, made of any text: `étude 3` becomes `etude-3`; empty where no letter or digit is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("._-")[:60]


def split_of(name: PurePosixPath, whole: bool = False) -> str:
    """The split that the name of a file says, or that of the nearest folder above it that says one; else train.

    A word of a name is enough (`wiki.valid.tokens`, `test-00000-of-00001.parquet`), unless there are words of several.

    Args:
        whole: whether a name has to be the split's own, as a song's title may have any word in it.
    """
    for part in (name.stem.lower(), *(folder.lower() for folder in reversed(name.parts[:-1]))):
        words = [part] if whole else _WORD.findall(part)
        said = {SPLITS[word] for word in words if word in SPLITS}
        if len(said) == 1:
            return said.pop()
    return "train"


@dataclass
class Allowance:
    """The bytes that a data set may take unpacked, all its archives together."""

    limit_gb: float
    taken: int = 0

    def take(self, size: int, place: object) -> None:
        """Counts `size` bytes, before they are unpacked; raises InputError beyond the limit."""
        self.check(size, place)
        self.taken += size

    def check(self, size: int, place: object) -> None:
        """Raises InputError if so many bytes more would be beyond the limit."""
        if self.taken + size > self.limit_gb * 2**30:
            raise InputError(
                f"--data {place}: larger unpacked than {self.limit_gb:g} GiB; raise it with --set "
                "data.max_unpacked_gb=N"
            )

    @property
    def left(self) -> int | None:
        """The bytes that are left; None without a limit."""
        return None if math.isinf(self.limit_gb) else max(0, int(self.limit_gb * 2**30) - self.taken)


UNLIMITED = Allowance(math.inf)


@contextmanager
def broken(place: object, what: str, hint: str = "") -> Iterator[None]:
    """Turns whatever a library raises for a damaged or foreign file into an InputError of one line.

    No library says all that its readers raise (`zlib.error`, `TokenError`, `MemoryError`, `struct.error`, ...), so that
    a list of kinds is never complete. Put nothing but the reading itself into the block.

    Args:
        place: the file, and its member or line.
        what: what is wrong, such as `not a zip file`.
        hint: what to do.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = one_line(error) or type(error).__name__
        raise InputError(f"{place}: {what} ({reason}){f'; {hint}' if hint else ''}") from error


def read_files(
    source: Path, suffixes: Collection[str], allowance: Allowance
) -> Iterator[tuple[PurePosixPath, bytes]]:  # fmt: skip
    """Yields the files with these suffixes that `source` is or holds, in order, zips and `.gz` in it included, without
    those `BESIDE` the data.

    Yields:
        The path below the source (in a zip `ARCHIVE/MEMBER`; without `.gz`), and the content.

    Raises:
        InputError: there is none, one is damaged, or they are larger unpacked than `allowance`.
    """
    check_source(source)
    allowed = {*suffixes, ".zip"}
    paths = [source]
    if source.is_dir():
        paths = [path for path in files_below(source) if _suffix(path) in allowed and path.name not in BESIDE]
    if not paths or (not source.is_dir() and _suffix(source) not in allowed):
        raise InputError(
            f"--data {source}: no {', '.join(sorted(allowed))} file; those are allowed, and folders of them"
        )
    for path in paths:
        name = PurePosixPath(path.relative_to(source)) if source.is_dir() else PurePosixPath(path.name)
        if name.suffix.lower() == ".gz":
            yield name.with_suffix(""), _unpacked(path, allowance)
        elif name.suffix.lower() == ".zip":
            yield from _members(path, name.with_suffix(""), suffixes, allowance)
        else:
            yield name, read_whole(path)


def check_source(source: Path) -> None:
    """Raises InputError if `source` is neither a file nor a folder: nothing, a pipe, a device, a link in a circle."""
    if not source.is_file() and not source.is_dir():
        there = source.exists() or source.is_symlink()
        what = "neither a regular file nor a folder" if there else "no such file or folder"
        raise InputError(f"--data {source}: {what}")


def files_below(folder: Path) -> list[Path]:
    """The regular files below a folder, in order. Reading a pipe or a device may never end."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_whole(path: Path) -> bytes:
    """The content of a file; raises InputError where it cannot be read."""
    with broken(f"--data {path}", "cannot be read"):
        return path.read_bytes()


def _members(
    path: Path, below: PurePosixPath, suffixes: Collection[str], allowance: Allowance
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """The members of a zip with these suffixes."""
    with broken(f"--data {path}", "not a zip file"):
        archive = zipfile.ZipFile(path)
    with archive:
        allowance.take(sum(member.file_size for member in archive.infolist()), path)
        everything = [(below / member.filename, member) for member in archive.infolist()]
        members = [one for one in everything if one[0].suffix.lower() in suffixes and one[0].name not in BESIDE]
        if not members:
            raise InputError(f"--data {path}: no {', '.join(sorted(suffixes))} file in it")
        for inner, member in members:
            yield inner, read_member(archive, member, path)


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bytes:
    """The content of a member of the zip at `path`; raises InputError where it is damaged or encrypted."""
    if member.flag_bits & 0x1:
        raise InputError(f"{path}: member {member.filename!r} is encrypted; give an archive without password")
    with broken(f"--data {path}: {member.filename}", "damaged member of a zip file"):
        return archive.read(member)


def _suffix(path: Path) -> str:
    """The suffix in lower case, that before `.gz` where the file is compressed."""
    return PurePosixPath(path.name.lower().removesuffix(".gz")).suffix


def _unpacked(path: Path, allowance: Allowance) -> bytes:
    most = allowance.left
    with broken(f"--data {path}", "not a gzip file"), gzip.open(path) as file:
        content = file.read(-1 if most is None else most + 1)
    allowance.take(len(content), path)
    return content


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` when the block ends; after an error nothing is left of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:12]}")
    with temporary.open("xb", buffering=2**20) as file:  # torch.save writes a little at a time
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
