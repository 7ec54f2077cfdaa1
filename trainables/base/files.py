"""Reads files from a file, folder or zip, and writes files whole or not at all."""

from __future__ import annotations

import gzip
import math
import os
import re
import unicodedata
import uuid
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from trainables.base.errors import InputError

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


def read_files(source: Path, suffixes: Collection[str], limit_gb: float) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yields the files with these suffixes that `source` is or holds, in order, zips and `.gz` in it included, without
    those `BESIDE` the data.

    Yields:
        The path below the source (in a zip `ARCHIVE/MEMBER`; without `.gz`), and the content.

    Raises:
        InputError: there is none, a zip is damaged, or it is larger than `limit_gb` unpacked (inf: no limit).
    """
    if not source.exists():
        raise InputError(f"--data {source}: no such file or folder")
    allowed = {*suffixes, ".zip"}
    paths = [source]
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if _suffix(path) in allowed and path.name not in BESIDE)
    if not paths or (not source.is_dir() and _suffix(source) not in allowed):
        raise InputError(
            f"--data {source}: no {', '.join(sorted(allowed))} file; those are allowed, and folders of them"
        )
    for path in paths:
        name = PurePosixPath(path.relative_to(source)) if source.is_dir() else PurePosixPath(path.name)
        if name.suffix.lower() == ".gz":
            yield name.with_suffix(""), _unpacked(path, limit_gb)
            continue
        if name.suffix.lower() != ".zip":
            yield name, path.read_bytes()
            continue
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise InputError(f"--data {path}: not a zip file") from error
        with archive:
            if sum(member.file_size for member in archive.infolist()) > limit_gb * 2**30:
                raise too_large(path, limit_gb)
            everything = [(name.with_suffix("") / member.filename, member) for member in archive.infolist()]
            members = [one for one in everything if one[0].suffix.lower() in suffixes and one[0].name not in BESIDE]
            if not members:
                raise InputError(f"--data {path}: no {', '.join(sorted(suffixes))} file in it")
            for inner, member in members:
                yield inner, archive.read(member)


def too_large(path: Path, limit_gb: float) -> InputError:
    """The error of an archive that holds more than `limit_gb`."""
    return InputError(
        f"--data {path}: larger unpacked than {limit_gb:g} GiB; raise it with --set data.max_unpacked_gb=N"
    )


def _suffix(path: Path) -> str:
    """The suffix in lower case, that before `.gz` where the file is compressed."""
    return PurePosixPath(path.name.lower().removesuffix(".gz")).suffix


def _unpacked(path: Path, limit_gb: float) -> bytes:
    try:
        with gzip.open(path) as file:
            content = file.read(-1 if math.isinf(limit_gb) else int(limit_gb * 2**30) + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"--data {path}: not a gzip file ({error})") from error
    if len(content) > limit_gb * 2**30:
        raise too_large(path, limit_gb)
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
