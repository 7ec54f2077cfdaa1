"""Sends files to workers that do not see the search's folder, and writes the files that they send back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import ray

from search.runtime.search import Search
from trainables.base import checkpoint_files
from trainables.base.checkpoints import Storage
from trainables.base.storage import LocalFiles
from trainables.base.trainable import pieces_of


def storage(search: Search, names: Iterable[str] = ()) -> Storage:
    """A worker's access to the files of the search.

    Args:
        names: files whose content is sent to the worker if the cluster has other machines.
    """
    with search.folder.journal.open("rb") as file:
        mark = file.readline()
    uri = search.config.search.storage
    return Storage(search.folder.path, mark, uri, {} if uri else content(search, names))


def content(search: Search, names: Iterable[str]) -> dict[str, bytes]:
    """The content of the existing files, by name; empty if all workers run on this machine."""
    paths = {name: path for name in names if (path := search.folder.path / name).is_file()}
    return {name: path.read_bytes() for name, path in paths.items()} if paths and _other_machines() else {}


def pieces(search: Search, checkpoint: str) -> dict[str, list[Any]]:
    """References to the pieces of a checkpoint's files, by name; empty if all workers run on this machine."""
    folder = search.folder.path
    if not (folder / checkpoint).is_file() or not _other_machines():
        return {}
    others = (folder / checkpoint_files.folder_of(checkpoint)).rglob("*")
    paths = [folder / checkpoint, *(path for path in others if path.is_file())]
    return {path.relative_to(folder).as_posix(): pieces_of(path) for path in paths}


def _other_machines() -> bool:
    here = ray.get_runtime_context().get_node_id()
    return any(node["Alive"] and node["NodeID"] != here for node in ray.nodes())


def keep(search: Search, sent: Mapping[str, bytes | list[Any]]) -> None:
    """Writes files that a worker sent because it could not write them itself; raises OSError.

    Args:
        sent: the content of each file, or references to its pieces.
    """
    for name, content in sent.items():
        with LocalFiles(search.folder.path).write(name) as file:
            for piece in [content] if isinstance(content, bytes) else content:
                file.write(piece if isinstance(piece, bytes) else ray.get(piece))
