"""Finds and deletes files that no search needs: old checkpoints, caches, and what killed commands left behind."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from search.core.journal import is_held
from search.core.replay import open_search, replay
from search.core.store import SearchFolder, Store
from search.housekeeping.deletion import DELETED, complete, function_folder, held, leftovers
from search.housekeeping.sizes import tree_bytes
from search.runtime.checkpoint_cleanup import needed
from trainables import InputError
from trainables.base.checkpoint_files import checkpoint_of, folder_of
from trainables.base.errors import first_line
from trainables.base.storage import LocalFiles, files_at

#: The names of files that `replacing` and `fetch` write before they have their names.
_TEMPORARY = re.compile(r"\..+-[0-9a-f]{12}")
#: Seconds since the last change after which a file without an owner is abandoned. A command may still write to a
#: younger one.
ABANDONED = 3600.0


@dataclass(frozen=True)
class Garbage:
    """A file or a folder that no search needs.

    Attributes:
        kind: `checkpoint`, `cache`, `function`, `temporary`, `abandoned` (a search that never began), or `deletion` (of
            a search, which was killed).
        place: the path, or the address of a checkpoint elsewhere.
        search: the name of the search; None for files that belong to no search.
        bytes: its size.
    """

    kind: str
    place: str
    search: str | None
    bytes: int


@dataclass(frozen=True)
class Cleaning:
    """What `gc` deleted, or would delete.

    Attributes:
        skipped: sentences about the parts that were not examined, each with its reason.
    """

    garbage: list[Garbage]
    skipped: list[str]

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(one.bytes for one in self.garbage)


#: A file or a folder that may be deleted, and the call that deletes it.
_Found = tuple[Garbage, Callable[[], object]]


def clean(store: Store, dry_run: bool = False) -> Cleaning:
    """Deletes what no search needs. See `search.gc`."""
    running = _running(store)
    done = Cleaning([], [f"{name}: this search is running" for name in running])
    for name in [name for name in store.names() if name not in running]:
        try:
            with held(store.search(name)):
                _delete(_of_search(store, name), dry_run, done)
        except Exception as error:  # a damaged search, a storage that is away
            done.skipped.append(f"{name}: {first_line(error)}")
    _delete(_abandoned(store), dry_run, done)
    try:
        used = {function_folder(store, SearchFolder(store.root / "searches" / name).read()) for name in store.names()}
    except InputError:
        done.skipped.append("functions: a search that cannot be read may need one of them")
    else:
        _delete(_functions(store, used), dry_run, done)
    if _running(store):
        done.skipped.append("the cache: a search that is running uses it")
    else:
        _delete(_whole(store.cache, "cache"), dry_run, done)
    return done


def _running(store: Store) -> list[str]:
    return [path.name for path in _folders(store) if is_held(SearchFolder(path).journal)]


def _delete(found: Iterator[_Found], dry_run: bool, done: Cleaning) -> None:
    """Deletes each found file or folder, unless this is a dry run, and adds it to `done`."""
    for one, delete in found:
        try:
            if not dry_run:
                delete()
        except (OSError, InputError) as error:
            done.skipped.append(f"{one.place}: {first_line(error)}")
        else:
            done.garbage.append(one)


def _of_search(store: Store, name: str) -> Iterator[_Found]:
    """The checkpoints and temporary files of a search that no resume and no retrain needs."""
    folder, _, config = open_search(store, name)
    state, _ = replay(folder)
    files = files_at(config.search.storage or str(folder.path))
    names = files.names("checkpoints")
    recorded = {saved.name: saved.bytes for trial in state.trials.values() for saved in trial.checkpoints}
    for checkpoint in sorted(
        {checkpoint_of(file) for file in names} - needed(state, config.search.keep_checkpoints, names)
    ):
        size = recorded.get(checkpoint, 0)
        if isinstance(files, LocalFiles):
            size = sum(tree_bytes(files.root / part) for part in (checkpoint, folder_of(checkpoint)))
        place = f"{config.search.storage or folder.path}/{checkpoint}"
        yield Garbage("checkpoint", place, name, size), partial(files.delete, checkpoint)
    for path in folder.path.glob(".*"):
        if _TEMPORARY.fullmatch(path.name):
            yield from _whole(path, "temporary", name)


def _abandoned(store: Store) -> Iterator[_Found]:
    """What killed commands left: deletions, imports, and searches that never began."""
    for path in leftovers(store):
        name = path.stem.removeprefix(DELETED)
        yield Garbage("deletion", str(path), name, tree_bytes(path)), partial(complete, store, path)
    for path in _folders(store):
        imports = path.name.startswith(".import-")
        journal = SearchFolder(next(path.iterdir(), path) if imports else path).journal
        # A journal with events and without a record is no garbage: its search began.
        begun = journal.exists() and journal.stat().st_size and not imports
        if path.name.startswith(DELETED) or (path / "search.json").exists() or begun:
            continue
        if _is_old(path) and not is_held(journal):
            yield from _whole(path, "abandoned", None if imports else path.name)


def _functions(store: Store, used: Collection[Path | None]) -> Iterator[_Found]:
    """The stored functions that no search uses."""
    for path in sorted((store.root / "functions").glob("*")):
        begins = store.root / "searches" / path.name / "journal.jsonl"
        if path.is_dir() and path not in used and not is_held(begins) and _is_old(path):
            yield from _whole(path, "function")


def _folders(store: Store) -> list[Path]:
    """The folders of searches in the store. Links to folders elsewhere are left out."""
    return sorted(path for path in (store.root / "searches").glob("*") if path.is_dir() and not path.is_symlink())


def _is_old(path: Path) -> bool:
    """Whether nothing below a folder has changed for `ABANDONED` seconds."""
    times = [path.lstat().st_mtime, *(inner.lstat().st_mtime for inner in path.rglob("*"))]
    return time.time() - max(times) > ABANDONED


def _whole(path: Path, kind: str, search: str | None = None) -> Iterator[_Found]:
    """A file, or a whole folder, if it exists."""
    if path.exists():
        delete = path.unlink if path.is_file() else partial(shutil.rmtree, path)
        yield Garbage(kind, str(path), search, tree_bytes(path)), delete
