"""Renames a search: its folder, its record, its stored function and its runs in MLflow."""

from __future__ import annotations

import shutil
from dataclasses import replace

from search.core.overrides import lay_over
from search.core.record import SearchRecord
from search.core.store import SearchFolder, Store
from search.housekeeping.deletion import function_folder, held
from search.tracking.upkeep import rename_tracked
from trainables import InputError
from trainables.base.errors import first_line


def rename(store: Store, old: str, new: str) -> None:
    """Gives a search another name. After a kill the same call completes it. See `search.rename`.

    The renaming of the folder decides which name the search has. Its record holds the old name, by which a second call
    finds a search whose runs still have the old name.

    Raises:
        InputError: there is no search `old`, it runs, or there is a search `new`; or the runs cannot be renamed.
    """
    source, target = store.search(old), store.search(new)
    if old == new:
        raise InputError(f"rename {old} {new}: the names are equal")
    if source.exists or not _was(store, target, old):
        record = source.read(store)
        if target.path.exists():
            raise InputError(f"rename {old} {new}: a search of the name {new} exists; choose another name")
        with held(source):
            record = _move_function(store, source, record)
            source.write(replace(record, former=old))
            shutil.rmtree(store.root / "functions" / old, ignore_errors=True)
            try:
                source.path.rename(target.path)
            except OSError as error:  # an empty folder would be replaced, any other not
                raise InputError(f"rename {old} {new}: {error.strerror}") from error
    with held(target):
        record = target.read(store)
        try:
            rename_tracked(store, record.id, old, new)
        except Exception as error:  # a server that is away
            raise InputError(
                f"{new}: is renamed, but MLflow still shows {old} ({first_line(error)}); give the same command again"
            ) from error
        target.write(replace(record, former=None))


def _was(store: Store, folder: SearchFolder, old: str) -> bool:
    """Whether the search in a folder was called `old` when a renaming began that is not complete."""
    return folder.exists and folder.read(store).former == old


def _move_function(store: Store, folder: SearchFolder, record: SearchRecord) -> SearchRecord:
    """Copies the stored function to a folder that has the id of the search, and returns the record that names it.

    The folder `functions/NAME` is free for a new search of the old name. The copy does not depend on the name, so that
    a kill at any moment leaves a record that names an existing file.
    """
    known = function_folder(store, record)
    target = store.root / "functions" / record.id
    if known is None or not record.id or known == target:
        return record
    shutil.copytree(known, target, dirs_exist_ok=True)
    function = str(target.relative_to(store.root) / str(record.config["data"]["function"]).rpartition("/")[2])
    return replace(record, config=lay_over(record.config, {"data": {"function": function}}))
