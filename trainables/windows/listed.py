"""Pictures that a table names: a list of paths and labels, or the metadata of Hugging Face's `imagefolder`."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath

import pandas as pd

from trainables import InputError
from trainables.base.tables import NO_TABLES, TABLES, read_frame

#: Columns that are taken for the label, in this order, and for the split; in any case.
LABELS, SPLIT = ("label", "class", "category", "target", "kind", "y"), "split"


def is_table(name: str) -> bool:
    """Whether a file may be such a table."""
    path = PurePosixPath(name)
    return path.suffix.lower() in TABLES and path.name not in NO_TABLES


def read_list(
    content: bytes, name: str, place: str, known: Callable[[str], bool], splits: Collection[str]
) -> list[tuple[str, str, str]] | None:
    """Reads which pictures a table names.

    The column of paths is the one whose values name pictures, from the table's own folder or from the root.

    Args:
        name: the table's path below the root.
        known: whether there is a picture of this path below the root.
        splits: the words that a column `split` may hold.

    Returns:
        For each row the picture's path below the root, its label, and the word of a column `split`, else "". None where
        the table names no picture at all.

    Raises:
        InputError: it cannot be read, no column holds the labels, a row has none, or a picture is not there.
    """
    frame = read_frame(content, PurePosixPath(name), place)
    folder = posixpath.dirname(name)

    def found(value: object) -> str:
        beside = posixpath.normpath(posixpath.join(folder, str(value)))
        return beside if known(beside) else str(value)

    columns = [str(column) for column in frame.columns]
    paths = next((c for c in columns if len(frame) and known(found(frame[c].iloc[0]))), None)
    if paths is None:
        return None
    by_lower = {column.lower(): column for column in reversed(columns)}
    others = [column for column in columns if column != paths and column.lower() != SPLIT]
    label = next((by_lower[word] for word in LABELS if word in by_lower), others[0] if len(others) == 1 else None)
    if label is None:
        raise InputError(
            f"{place}: no column of labels is recognised among {', '.join(others) or 'none'}; call it label"
        )
    rows = []
    words = frame[by_lower[SPLIT]] if SPLIT in by_lower else [""] * len(frame)
    for number, (value, kind, word) in enumerate(zip(frame[paths], frame[label], words, strict=True), 1):
        path = found(value)
        if not known(path):
            raise InputError(f"{place}: row {number}: {value}: no such picture")
        if pd.isna(kind) or not str(kind).strip():
            raise InputError(f"{place}: row {number}: {value}: no label")
        if word and str(word).lower() not in splits:
            raise InputError(f"{place}: row {number}: split {word!r}: allowed are {', '.join(splits)}")
        rows.append((path, str(kind).strip(), str(word).lower()))
    return rows


def of_file(source: Path) -> list[tuple[str, bool, Callable[[], bytes]]]:
    """The members that stand for a table given alone: it and what it names, below its own folder."""
    frame = read_frame(source.read_bytes(), PurePosixPath(source.name), str(source))
    members: list[tuple[str, bool, Callable[[], bytes]]] = [(source.name, False, source.read_bytes)]
    for column in frame.columns:
        for value in dict.fromkeys(frame[column].astype(str)):
            path = source.parent / value
            if PurePosixPath(value).suffix and path.is_file():
                members.append((posixpath.normpath(value), False, path.read_bytes))
    return members
