"""Sends files to workers that do not see the search's folder, and writes the files that they send back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import ray

from search.runtime.search import Search
from trainables.base.checkpoints import Storage
from trainables.base.storage import LocalFiles


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


def _other_machines() -> bool:
    here = ray.get_runtime_context().get_node_id()
    return any(node["Alive"] and node["NodeID"] != here for node in ray.nodes())


def keep(search: Search, sent: Mapping[str, bytes]) -> None:
    """Writes files that a worker sent because it could not write them itself; raises OSError."""
    for name, written in sent.items():
        with LocalFiles(search.folder.path).write(name) as file:
            file.write(written)
