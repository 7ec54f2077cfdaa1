"""The disk space of a store, by search and by kind of file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from search.core.store import Store

#: The kind of the files in each folder of a search. A file outside these folders belongs to the record.
KINDS = {
    "checkpoints": "checkpoints", "final": "models", "comparison": "comparison", "repeats": "comparison",
    "trials": "trials", "tensorboard": "writers", "wandb": "writers",
}  # fmt: skip
#: The kind of the files in each folder and file of a store that belong to no search.
_SHARED = {"mlflow.db": "mlflow", "artifacts": "mlflow", "cache": "cache", "plans": "plans"}


@dataclass(frozen=True)
class Size:
    """The bytes of the files of one kind.

    Attributes:
        search: the name of the search; None for files that belong to no search.
        kind: of a search: `checkpoints`, `models`, `trials` (output and files of trials), `comparison`, `writers`
            (TensorBoard and W&B) and `record` (journal, settings, report, function). Outside a search: `mlflow`,
            `cache`, `plans` and `other`. `left over`: files that a killed command left.
    """

    search: str | None
    kind: str
    bytes: int


def sizes(store: Store) -> list[Size]:
    """The disk space of each search of the store by kind, and of the rest of the store. The largest is first.

    A file with several names (hard links) counts once. Checkpoints at a remote address do not count.
    """
    counted: dict[tuple[str | None, str], int] = {}
    seen: set[tuple[int, int]] = set()
    for path, status in _files(store.root):
        first, *rest = path.relative_to(store.root).parts
        key = (status.st_dev, status.st_ino)
        if key not in seen:
            seen.add(key)
            place = _place(first, rest)
            counted[place] = counted.get(place, 0) + status.st_size
    found = [Size(search, kind, size) for (search, kind), size in counted.items() if size]
    return sorted(found, key=lambda size: (-size.bytes, size.search or "", size.kind))


def tree_bytes(path: Path) -> int:
    """The bytes of a file, or of all files below a folder; a file with several names counts once."""
    if not path.is_dir():
        return path.lstat().st_size if path.exists() else 0
    return sum({(s.st_dev, s.st_ino): s.st_size for _, s in _files(path)}.values())


def _place(first: str, rest: list[str]) -> tuple[str | None, str]:
    """The search and the kind of a file, from the parts of its path in the store."""
    if first == "searches" and len(rest) > 1:
        folder = rest[1] if len(rest) > 2 else ""
        return rest[0], "left over" if rest[0].startswith(".") else KINDS.get(folder.split("-")[0], "record")
    if first == "functions" and len(rest) > 1:
        return rest[0], "record"
    return None, _SHARED.get(first.partition("-")[0], "other")


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files below a folder with their status. A file that disappears meanwhile is left out."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            try:
                yield path, path.lstat()
            except FileNotFoundError:
                continue
