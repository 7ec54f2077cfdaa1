"""Reads files from a file, folder or zip, and writes files atomically."""

from __future__ import annotations

import gzip
import math
import os
import re
import unicodedata
import uuid
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from trainables.base.errors import InputError, one_line

#: Words in the names of files and folders, and the split that each word means.
SPLIT_WORDS = {
    "train": "train", "val": "val", "test": "test", "training": "train", "valid": "val", "validation": "val",
    "dev": "val", "testing": "test",
}  # fmt: skip
#: Files with metadata that `datasets` writes beside its tables.
BESIDE = ("dataset_dict.json", "dataset_info.json", "state.json")
#: A word of `SPLIT_WORDS` within a name; X or y may touch it, as in `Xtrain`.
_WORD = re.compile(rf"(?<![a-z])[xy]?({'|'.join(SPLIT_WORDS)})(?:[xy]|data|set)?(?![a-z])")


def file_safe(text: str) -> str:
    """Turns any text into a name for a file: `étude 3` becomes `etude-3`. Empty if no letter or digit is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("._-")[:60]


def split_of(name: PurePosixPath, whole: bool = False) -> str:
    """The split that a file belongs to, by its name or else by the nearest folder that names a split; else train.

    A name that holds words of one split names it: `wiki.valid.tokens`, `test-00000-of-00001.parquet`. A name with words
    of several splits names none.

    Args:
        whole: whether only a whole name counts: the title of a song may contain the word "test".
    """
    for part in (name.stem.lower(), *(folder.lower() for folder in reversed(name.parts[:-1]))):
        words = [part] if whole else _WORD.findall(part)
        splits = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
        if len(splits) == 1:
            return splits.pop()
    return "train"


@dataclass
class Allowance:
    """The bytes that all archives of a data set may take together when unpacked (`data.max_unpacked_gb`)."""

    limit_gb: float
    taken: int = 0

    def take(self, size: int, place: object) -> None:
        """Adds `size` bytes that are about to be unpacked; raises InputError beyond the limit."""
        self.check(size, place)
        self.taken += size

    def check(self, size: int, place: object) -> None:
        """Raises InputError if `size` more bytes would be beyond the limit."""
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
    """Turns any exception of a library that reads a damaged or foreign file into an InputError of one line.

    No library documents all classes that its readers raise (`zlib.error`, `TokenError`, `MemoryError`, `struct.error`,
    ...). Put only the call of the reader into the block.

    Args:
        place: the file, and its member or line.
        what: the mistake, such as `not a zip file`.
        hint: a remedy.
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
    """Yields the files with these suffixes in `source`, a file or folder, in the order of their names.

    Zips and `.gz` files are unpacked. Files of `BESIDE` and hidden files are left out.

    Yields:
        The path below the source (in a zip `ARCHIVE/MEMBER`; without `.gz`), and the content.

    Raises:
        InputError: there is no such file, a file is damaged, or the unpacked files exceed `allowance`.
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
    """Raises InputError unless `source` is a regular file or a folder; a pipe or a device is neither."""
    if not source.is_file() and not source.is_dir():
        exists = source.exists() or source.is_symlink()
        what = "neither a regular file nor a folder" if exists else "no such file or folder"
        raise InputError(f"--data {source}: {what}")


def files_below(folder: Path) -> list[Path]:
    """The regular files below a folder, sorted, without hidden files.

    Pipes and devices are left out: reading them may never end.
    """
    return sorted(path for path in folder.rglob("*") if path.is_file() and not hidden(path.relative_to(folder).parts))


def hidden(parts: Sequence[str]) -> bool:
    """Whether a path below a source is hidden, or lies in a hidden folder. Hidden files are no data.

    Hidden are names that begin with a dot (`.git`, `.ipynb_checkpoints`, `._x.csv`), and the files that macOS and
    Windows add (`__MACOSX`, `Thumbs.db`). Several dots begin a title: `...Baby One More Time.txt`.
    """
    return any(
        (part.startswith(".") and not part.startswith("..")) or part.startswith("__MACOSX") or part == "Thumbs.db"
        for part in parts
    )


def read_whole(path: Path) -> bytes:
    """The content of a file; raises InputError if it cannot be read."""
    with broken(f"--data {path}", "cannot be read"):
        return path.read_bytes()


def _members(
    path: Path, below: PurePosixPath, suffixes: Collection[str], allowance: Allowance
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """The members of a zip with these suffixes, without hidden members."""
    with broken(f"--data {path}", "not a zip file"):
        archive = zipfile.ZipFile(path)
    with archive:
        allowance.take(sum(member.file_size for member in archive.infolist()), path)
        named = [(PurePosixPath(member.filename.replace("\\", "/")), member) for member in archive.infolist()]
        members = [
            (below / name, member)
            for name, member in named
            if name.suffix.lower() in suffixes and name.name not in BESIDE and not hidden(name.parts)
        ]
        if not members:
            raise InputError(f"--data {path}: no {', '.join(sorted(suffixes))} file in it")
        for name, member in members:
            yield name, read_member(archive, member, path)


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bytes:
    """The content of a member of the zip at `path`; raises InputError if it is damaged or encrypted."""
    if member.flag_bits & 0x1:
        raise InputError(f"{path}: member {member.filename!r} is encrypted; give an archive without password")
    with broken(f"--data {path}: {member.filename}", "damaged member of a zip file"):
        return archive.read(member)


def _suffix(path: Path) -> str:
    """The suffix in lower case; of `table.csv.gz` it is `.csv`."""
    return PurePosixPath(path.name.lower().removesuffix(".gz")).suffix


def _unpacked(path: Path, allowance: Allowance) -> bytes:
    most = allowance.left
    with broken(f"--data {path}", "not a gzip file"), gzip.open(path) as file:
        content = file.read(-1 if most is None else most + 1)
    allowance.take(len(content), path)
    return content


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that replaces `path` when the block ends. After an error `path` is unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:12]}")
    with temporary.open("xb", buffering=2**20) as file:  # torch.save writes many small pieces
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
