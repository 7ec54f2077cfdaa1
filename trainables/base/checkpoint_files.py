"""The files of a checkpoint beside its state, such as those of another library's trainer.

The state is a file NAME.pt. The folder NAME.files holds the other files, and `index.json` with the size and the digest
of each. A file may have several gigabytes, so no file is read while an epoch waits: it gets a second name (a hard
link), and a thread computes the digests afterwards. A restored checkpoint is checked by its sizes and digests. A
checkpoint of a process that was killed before its digests were computed is checked by its sizes alone.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainables.base.digests import digest
from trainables.base.errors import Damaged, first_line

#: The name of the file with the size in bytes and the digest of each other file; a digest may be null.
INDEX = "index.json"
#: The threads that compute digests.
_summing: set[threading.Thread] = set()


def folder_of(name: str) -> str:
    """The name of the folder with the files of the checkpoint `name`."""
    return f"{name.removesuffix('.pt')}.files"


def checkpoint_of(name: str) -> str:
    """The name of the checkpoint to which a file belongs: itself, or the one whose folder holds the file."""
    before, found, _ = name.partition(".files/")
    return f"{before}.pt" if found else name


def flat(paths: Mapping[str, Path]) -> dict[str, Path]:
    """Files by name: folders are replaced by the files below them."""
    files: dict[str, Path] = {}
    for name, path in paths.items():
        below = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        files |= {name if file == path else f"{name}/{file.relative_to(path).as_posix()}": file for file in below}
    return files


def link(files: Mapping[str, Path], folder: Path) -> None:
    """Gives each file a second name below `folder`; raises OSError.

    A file of another file system is copied.
    """
    for name, file in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(file)
        except FileExistsError:
            raise
        except OSError:
            shutil.copyfile(file, target)


def keep(files: Mapping[str, Path], folder: Path) -> int:
    """Replaces `folder` by a folder with these files and their index; returns their size in bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    link(files, folder)
    sizes = {name: (folder / name).stat().st_size for name in files}
    _write_index(folder, {name: (size, None) for name, size in sizes.items()})
    thread = threading.Thread(target=_sum, args=(folder,), name="digests", daemon=True)
    _summing.add(thread)
    thread.start()
    return sum(sizes.values())


def indexed(files: Mapping[str, Path]) -> tuple[dict[str, bytes], int]:
    """The name and the content of the index of these files, and their size in bytes. The files are read in pieces."""
    about = {}
    for name, path in files.items():
        with path.open("rb") as file:
            about[name] = (path.stat().st_size, digest(file))
    return {INDEX: json.dumps(about, indent=1).encode()}, sum(size for size, _ in about.values())


def settle() -> None:
    """Waits for the threads that compute digests."""
    for thread in list(_summing):
        thread.join()
        _summing.discard(thread)


def check_folder(folder: Path, name: str) -> None:
    """Reads the files of `keep` in pieces.

    Args:
        name: of the folder, for messages.

    Raises:
        Damaged: a file is missing, or has another size or content than it had.
    """
    for file, (size, expected) in read_index(folder, name).items():
        try:
            found = (folder / file).stat().st_size
            if found != size:
                raise Damaged(f"{name}/{file}", f"it has {found} bytes, {size} were written")
            if expected is not None:
                with (folder / file).open("rb") as opened:
                    actual = digest(opened)
                if actual != expected:
                    raise Damaged(f"{name}/{file}", f"its digest is {actual}, {expected} was written")
        except OSError as error:
            raise Damaged(f"{name}/{file}", first_line(error)) from error


def read_index(folder: Path, name: str) -> dict[str, tuple[int, str | None]]:
    """The size and the digest of each file of a folder; raises Damaged if the index is missing or unreadable."""
    try:
        return {file: (size, summed) for file, (size, summed) in json.loads((folder / INDEX).read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise Damaged(f"{name}/{INDEX}", first_line(error)) from error


def _write_index(folder: Path, about: Mapping[str, tuple[int, str | None]]) -> None:
    """Writes the index whole. It does not wait for the disk, which may still be writing gigabytes of other files."""
    part = folder / f".{INDEX}"
    part.write_text(json.dumps(about, indent=1))
    part.replace(folder / INDEX)


def _sum(folder: Path) -> None:
    """Adds the digests to the index of a folder, unless the folder is deleted meanwhile."""
    with suppress(OSError, Damaged):
        about: dict[str, Any] = {}
        for name, (size, _) in read_index(folder, str(folder)).items():
            with (folder / name).open("rb") as file:
                about[name] = (size, digest(file))
        _write_index(folder, about)
    _summing.discard(threading.current_thread())
