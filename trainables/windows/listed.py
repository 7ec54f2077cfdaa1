"""Pictures that a table names or holds: a list of paths and labels, the metadata of Hugging Face's `imagefolder`, or a
data set of the hub with the pictures in its rows."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from trainables import InputError
from trainables.base.files import BESIDE, UNLIMITED, Allowance, read_whole
from trainables.base.tables import TABLES, find, listed, read_frame

#: Columns that are taken for the label, in this order, and for the split; in any case.
LABELS, SPLIT = ("label", "labels", "class", "category", "target", "kind", "y"), "split"


def is_table(name: str) -> bool:
    """Whether a file may be such a table."""
    path = PurePosixPath(name)
    return path.suffix.lower() in TABLES and path.name not in BESIDE


@dataclass(frozen=True)
class Row:
    """A picture of a table: its path below the root, or where it stands in the table; its label; the word of a column
    `split`, else ""; and its bytes where the table holds them."""

    path: str
    label: str
    split: str
    content: bytes | None = None


def read_list(
    content: bytes, name: str, place: str, known: Callable[[str], bool], splits: Collection[str],
    label: str | None = None, allowance: Allowance = UNLIMITED,
) -> list[Row] | None:  # fmt: skip
    """Reads which pictures a table names or holds.

    The column of pictures is the one whose values are encoded pictures, or name pictures from the table's own folder or
    from the root.

    Args:
        name: the table's path below the root.
        known: whether there is a picture of this path below the root.
        splits: the words that a column `split` may hold.
        label: the column of labels; None: found by its name.

    Returns:
        A row for each picture; None where the table names and holds none.

    Raises:
        InputError: it cannot be read, no column holds the labels, a row has none, or a picture is not there.
    """
    frame = read_frame(content, PurePosixPath(name), place, allowance=allowance)
    folder = posixpath.dirname(name)

    def found(value: object) -> str:
        beside = posixpath.normpath(posixpath.join(folder, str(value)))
        return beside if known(beside) else str(value)

    def shows(column: str) -> bool:
        first = frame[column].iloc[0]
        return _held(first) is not None or (isinstance(first, str) and known(found(first)))

    columns = list(frame.columns)
    pictures = next((c for c in columns if len(frame) and shows(c)), None)
    if pictures is None:
        return None
    others = [column for column in columns if column != pictures and column.lower() != SPLIT]
    if label is not None and label not in others:
        raise InputError(f"{place}: data.label: no column {label!r}; there are {listed(others)}")
    usual = find(columns, LABELS) or (others[0] if len(others) == 1 else None)
    if (label := label or usual) is None:
        raise InputError(
            f"{place}: no column of labels is recognised among {listed(others) or 'none'}; name it with --set "
            "data.label=NAME"
        )
    rows = []
    of_split = find(columns, [SPLIT])
    words = [""] * len(frame) if of_split is None else frame[of_split]
    for number, (value, kind, word) in enumerate(zip(frame[pictures], frame[label], words, strict=True), 1):
        held = _held(value)
        path = found(value) if held is None else f"{posixpath.splitext(name)[0]}/{number:07d}"
        if held is None and not known(path):
            raise InputError(f"{place}: row {number}: {value!s:.80}: no such picture")
        if pd.isna(kind) or not str(kind).strip():
            raise InputError(f"{place}: row {number}: {path}: no label")
        if word and str(word).lower() not in splits:
            raise InputError(f"{place}: row {number}: split {word!r}: allowed are {', '.join(splits)}")
        rows.append(Row(path, str(kind).strip(), str(word).lower(), held))
    return rows


def _held(value: Any) -> bytes | None:
    """The encoded picture that a cell holds, as it is or as Hugging Face's `Image`."""
    if isinstance(value, dict):
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None


def of_file(source: Path, allowance: Allowance) -> list[tuple[str, bool, Callable[[], bytes]]]:
    """The members that stand for a table given alone: it and what it names, below its own folder."""
    # The table is unpacked a second time where its rows are read, and is counted there.
    frame = read_frame(read_whole(source), PurePosixPath(source.name), str(source), allowance=replace(allowance))
    members: list[tuple[str, bool, Callable[[], bytes]]] = [(source.name, False, partial(read_whole, source))]
    for column in frame.columns:
        for value in dict.fromkeys(one for one in frame[column] if isinstance(one, str)):
            path = source.parent / value
            if PurePosixPath(value).suffix and path.is_file():
                members.append((posixpath.normpath(value), False, partial(read_whole, path)))
    return members
