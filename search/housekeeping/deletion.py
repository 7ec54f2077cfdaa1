"""Deletes a search: its folder, its checkpoints elsewhere, its runs and its models.

The folder is renamed first: from then on there is no search of that name. A kill after that leaves a hidden folder,
which a second deletion of the same name completes, or `gc`. `search.json`, by which the rest is found, is deleted last.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from search.core.journal import lock_file
from search.core.locks import Lock
from search.core.record import SearchRecord
from search.core.store import SearchFolder, Store
from search.housekeeping.sizes import tree_bytes
from search.tracking.upkeep import Tracked, delete_tracked, tracked
from trainables import InputError
from trainables.base.checkpoint_files import checkpoint_of
from trainables.base.errors import first_line
from trainables.base.storage import files_at

#: The beginning of the name of a folder that is being deleted; the name of the search follows, then a number.
DELETED = ".deleted-"


@dataclass(frozen=True)
class Deletion:
    """What a deletion frees, or freed.

    Attributes:
        bytes: the size of the files in the store. The rows in MLflow's database do not count.
        runs: the number of runs in MLflow.
        models: the registered versions that nothing else uses, such as `rnn version 3`.
        kept: sentences about the parts that stay, each with its reason.
    """

    name: str
    bytes: int
    runs: int
    models: tuple[str, ...]
    kept: tuple[str, ...]


def plan_deletion(store: Store, name: str) -> Deletion:
    """What `delete` would delete. It changes nothing.

    Raises:
        InputError: as `delete`.
    """
    folder = store.search(name)
    if folder.path.is_symlink():
        raise InputError(
            f"{name}: {folder.path} is a link to {folder.path.resolve()}, and nothing outside the store is deleted; "
            "remove the link by hand"
        )
    found = [*([folder.path] if folder.path.exists() else []), *leftovers(store, name)]
    if not found:
        folder.read(store)  # raises InputError that lists the searches
    with held(folder):
        return _sum(name, [_look(store, path) for path in found])


def delete(store: Store, name: str) -> Deletion:
    """Deletes a search, or completes a deletion that was killed. See `search.delete`.

    Raises:
        InputError: there is no such search, or it runs.
    """
    folder = store.search(name)
    planned = plan_deletion(store, name)
    if folder.path.exists():
        with held(folder):
            number = 1 + max((int(path.suffix[1:]) for path in leftovers(store, name)), default=0)
            folder.path.rename(folder.path.with_name(f"{DELETED}{name}.{number}"))
    done = [complete(store, path) for path in leftovers(store, name)]
    kept = tuple(dict.fromkeys(line for one in done for line in one.kept))
    return Deletion(name, planned.bytes, planned.runs, planned.models, kept)


def leftovers(store: Store, name: str | None = None) -> list[Path]:
    """The folders of deletions that are not complete.

    Args:
        name: of the search; None for all searches.
    """
    folders = sorted((store.root / "searches").glob(f"{DELETED}*"))
    known = [path for path in folders if path.suffix[1:].isdigit() and not path.is_symlink()]
    return [path for path in known if name in (None, path.stem.removeprefix(DELETED))]


def complete(store: Store, path: Path) -> Deletion:
    """Deletes the runs and the files of a search whose folder has been renamed to `path`."""
    looked = _look(store, path)
    kept = list(looked.kept)
    record = _record(path)
    if record is not None:
        try:
            delete_tracked(store, record.task, record.id)
        except Exception as error:  # a server that is away
            raise InputError(
                f"{looked.name}: its runs in MLflow cannot be deleted ({first_line(error)}); its folder is {path}; "
                "give the command again when MLflow can be written"
            ) from error
        if uri := _setting(record, "storage"):
            try:
                files = files_at(uri)
                for file in {checkpoint_of(file) for file in files.names("checkpoints")}:
                    files.delete(file)
            except Exception as error:  # each file system raises its own errors
                kept.append(f"its checkpoints at {uri} stay: {first_line(error)}")
        if (function := function_folder(store, record)) is not None:
            shutil.rmtree(function, ignore_errors=True)
    for inner in path.iterdir():
        if inner.name != "search.json":
            shutil.rmtree(inner) if inner.is_dir() and not inner.is_symlink() else inner.unlink()
    shutil.rmtree(path)
    return Deletion(looked.name, looked.bytes, looked.runs, looked.models, tuple(kept))


@contextmanager
def held(folder: SearchFolder) -> Iterator[None]:
    """Keeps other processes from running the search while the block runs; raises InputError if it runs."""
    if not folder.path.exists():
        yield
        return
    try:
        lock = Lock(lock_file(folder.journal))
    except OSError as error:
        raise InputError(f"{folder.path}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _look(store: Store, path: Path) -> Deletion:
    """What belongs to a search with the folder `path`."""
    name = path.stem.removeprefix(DELETED) if path.name.startswith(DELETED) else path.name
    record, found, kept = _record(path), Tracked(), []
    size = tree_bytes(path)
    if record is None and (path / "search.json").exists():
        kept.append("its runs in MLflow stay, as its search.json cannot be read")
    elif record is not None:
        try:
            found = tracked(store, record.task, record.id)
        except Exception as error:  # a server that is away
            raise InputError(f"{name}: MLflow cannot be read ({first_line(error)})") from error
        kept += [f"{version} stays with its run" for version in found.kept]
        function = function_folder(store, record)
        size += found.bytes + (tree_bytes(function) if function is not None else 0)
    return Deletion(name, size, found.runs, found.models, tuple(kept))


def _sum(name: str, parts: list[Deletion]) -> Deletion:
    return Deletion(
        name, sum(part.bytes for part in parts), sum(part.runs for part in parts),
        tuple(model for part in parts for model in part.models), tuple(line for part in parts for line in part.kept),
    )  # fmt: skip


def _record(path: Path) -> SearchRecord | None:
    """The record in a folder; None if it is missing or damaged."""
    try:
        return SearchFolder(path).read()
    except InputError:
        return None


def _setting(record: SearchRecord, key: str) -> str | None:
    section = record.config.get("search")
    return section.get(key) if isinstance(section, dict) else None


def function_folder(store: Store, record: SearchRecord) -> Path | None:
    """The folder with the stored function of a search; None for the search of a task."""
    data = record.config.get("data")
    stored = data.get("function") if isinstance(data, dict) else None
    folder = store.root / "functions"
    path = (store.root / stored).parent if isinstance(stored, str) else folder
    return path if path.parent == folder else None  # a damaged or foreign record names no other folder
