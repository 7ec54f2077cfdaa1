"""Reads tables of pictures. A row has the path of a picture and its label, as in the metadata of Hugging Face's
`imagefolder`; or it holds the encoded picture, as in data sets of the hub."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from trainables import InputError
from trainables.base.columns import suggest_picture_label
from trainables.base.files import BESIDE, UNLIMITED, Allowance, read_whole
from trainables.base.tables import TABLES, find, label_text, listed, read_frame

#: The column of the split, in upper or lower case.
SPLIT = "split"


def is_table(name: str) -> bool:
    """Whether a file may be a table of pictures, by its name."""
    path = PurePosixPath(name)
    return path.suffix.lower() in TABLES and path.name not in BESIDE


@dataclass(frozen=True)
class Row:
    """A picture of a table.

    Attributes:
        path: its path below the root; if the table holds the picture, `TABLE/ROW`.
        label: its label.
        split: the value of the column `split`, in lower case; empty without such a column.
        content: the encoded picture if the table holds it.
    """

    path: str
    label: str
    split: str
    content: bytes | None = None


def read_list(
    content: bytes, name: str, place: str, exists: Callable[[str], bool], splits: Collection[str],
    label: str | None = None, allowance: Allowance = UNLIMITED,
) -> list[Row] | None:  # fmt: skip
    """Reads the pictures that a table names or holds.

    The column of pictures is the first column whose first value is an encoded picture, or the path of a picture from
    the table's folder or from the root. `base.columns` suggests the column of labels.

    Args:
        name: the table's path below the root.
        exists: whether there is a picture with this path below the root.
        splits: the allowed values of the column `split`.
        label: the column of labels; None: suggested.

    Returns:
        A row for each picture; None if the table has no column of pictures.

    Raises:
        InputError: the table cannot be read, no column holds labels, a row has no label, or a picture is missing.
    """
    frame = read_frame(content, PurePosixPath(name), place, allowance=allowance)
    folder = posixpath.dirname(name)

    def resolved(value: object) -> str:
        beside = posixpath.normpath(posixpath.join(folder, str(value)))
        return beside if exists(beside) else str(value)

    def holds_pictures(column: str) -> bool:
        first = frame[column].iloc[0]
        return _encoded_picture(first) is not None or (isinstance(first, str) and exists(resolved(first)))

    columns = list(frame.columns)
    pictures = next((column for column in columns if len(frame) and holds_pictures(column)), None)
    if pictures is None:
        return None
    label = _label_column(columns, pictures, label, place)
    split_column = find(columns, [SPLIT])
    split_words = [""] * len(frame) if split_column is None else frame[split_column]
    rows = []
    for number, (value, kind, word) in enumerate(zip(frame[pictures], frame[label], split_words, strict=True), 1):
        picture = _encoded_picture(value)
        path = resolved(value) if picture is None else f"{posixpath.splitext(name)[0]}/{number:07d}"
        if picture is None and not exists(path):
            raise InputError(f"{place}: row {number}: {value!s:.80}: no such picture")
        if pd.isna(kind) or not label_text(kind):
            raise InputError(f"{place}: row {number}: {path}: no label")
        if word and str(word).lower() not in splits:
            raise InputError(f"{place}: row {number}: split {word!r}: allowed are {', '.join(splits)}")
        rows.append(Row(path, label_text(kind), str(word).lower(), picture))
    return rows


def _label_column(columns: list[str], pictures: str, label: str | None, place: str) -> str:
    """The column of labels: the given one, or the suggested one; raises InputError if there is none."""
    others = [column for column in columns if column != pictures and column.lower() != SPLIT]
    if label is not None and label not in others:
        raise InputError(f"{place}: data.label: no column {label!r}; there are {listed(others)}")
    label = label or suggest_picture_label(columns, others)
    if label is None:
        raise InputError(
            f"{place}: no column of labels is recognised among {listed(others) or 'none'}; name it with --set "
            "data.label=NAME"
        )
    return label


def _encoded_picture(value: Any) -> bytes | None:
    """The encoded picture in a cell: bytes, or the dictionary of Hugging Face's `Image`."""
    if isinstance(value, dict):
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None


def of_file(source: Path, allowance: Allowance) -> list[tuple[str, bool, Callable[[], bytes]]]:
    """The members of a data set that is a single table: the table, and the files that it names below its folder."""
    # A copy of `allowance`: `read_list` unpacks the table again, and counts it then.
    frame = read_frame(read_whole(source), PurePosixPath(source.name), str(source), allowance=replace(allowance))
    members: list[tuple[str, bool, Callable[[], bytes]]] = [(source.name, False, partial(read_whole, source))]
    for column in frame.columns:
        for value in dict.fromkeys(cell for cell in frame[column] if isinstance(cell, str)):
            path = source.parent / value
            if PurePosixPath(value).suffix and path.is_file():
                members.append((posixpath.normpath(value), False, partial(read_whole, path)))
    return members
