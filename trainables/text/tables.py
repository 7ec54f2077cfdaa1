"""Tables of texts, and which of their columns hold the text and the label.

They are CSV, TSV, JSON, JSON Lines, Parquet and Arrow files.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from trainables.base.errors import InputError
from trainables.base.files import UNLIMITED, Allowance
from trainables.base.tables import TABLES, find, listed, read_frame

#: Columns that are taken where none is named, in this order.
TEXT_NAMES = ("text", "tweet", "content", "message", "sentence", "lyric", "lyrics", "line")
LABEL_NAMES = ("label", "class", "target", "category", "artist", "y")


def read_table(
    content: bytes, name: PurePosixPath, place: str, text: str | int | None, label: str | int | None,
    unlabelled: str | None = None, allowance: Allowance = UNLIMITED,
) -> pd.DataFrame:  # fmt: skip
    """Reads a table into the columns `text` and `label`, both of str; no text is taken for NaN.

    Of two columns, one with a usual name says what the other is; where neither has one, the longer is the text.
    A table has no header if its first row holds a value that its column has again. Its columns are then called by
    their positions, from "0"; the longest is the text, the one with the fewest different values the label, and
    `attrs["notes"]` of the frame say so.

    Args:
        text, label: names or positions of the columns; None takes the first with a usual name.
        unlabelled: what becomes of rows without a label: "drop", or None to refuse them.

    Raises:
        InputError: the table cannot be read, a column is missing, or a row has no label.
    """
    if unlabelled not in (None, "drop"):
        raise InputError(f"data.unlabelled: {unlabelled!r}: must be drop or null")
    frame, notes = read_frame(content, name, place, allowance=allowance), []
    texts, labels = (None if column is None else str(column) for column in (text, label))
    bare = None if texts in frame else _without_header(frame, content, name, place)
    if bare is not None:
        frame = bare
        if labels not in bare:
            labels = min(reversed(bare.columns), key=lambda column: bare[column].nunique())
        if texts not in bare:
            texts = max(bare.columns, key=lambda column: (column != labels, _length(bare[column])))
        told = f"column {texts} is the text, {labels} the label (data.text, data.label)"
        notes.append(f"{name} has no header: {told}")
    columns = list(frame.columns)
    if texts is None and labels is None and (two := _of_two(frame)):
        texts, labels = two
        notes.append(f"{name}: {texts!r} is the text, {labels!r} the label (data.text, data.label)")
    chosen = {
        "text": _column(columns, texts, TEXT_NAMES, "text", place),
        "label": _column(columns, labels, LABEL_NAMES, "label", place),
    }
    if chosen["text"] == chosen["label"]:
        raise InputError(f"{place}: data.text and data.label are both {chosen['text']!r}")
    frame = frame[[chosen["text"], chosen["label"]]].set_axis(["text", "label"], axis=1)
    missing = frame["label"].isna() | (frame["label"].astype(str).str.strip() == "")
    if missing.any():
        row, count = int(np.flatnonzero(missing)[0]) + 1, int(missing.sum())
        if unlabelled is None:
            raise InputError(
                f"{place}: row {row}: no label ({count} rows have none; --set data.unlabelled=drop leaves them out)"
            )
        notes.append(f"data.unlabelled=drop: {count} rows of {name} left out")
        frame = frame[~missing]
    read = pd.DataFrame({"text": frame["text"].fillna("").astype(str), "label": frame["label"].astype(str).str.strip()})
    read.attrs["notes"] = notes
    return read


def read_column(
    content: bytes, name: PurePosixPath, place: str, text: str | None = None, allowance: Allowance = UNLIMITED
) -> list[str]:
    """The texts of a table: the column `text`, or the first with a usual name, or of one without a header the longest.

    Raises:
        InputError: the table cannot be read, or has a header of which no name is known.
    """
    frame = read_frame(content, name, place, allowance=allowance)
    bare = None if text in frame else _without_header(frame, content, name, place)
    if bare is not None:
        return list(bare[max(bare.columns, key=lambda column: _length(bare[column]))])
    return [str(value) for value in frame[_column(list(frame.columns), text, TEXT_NAMES, "text", place)].fillna("")]


def _without_header(frame: pd.DataFrame, content: bytes, name: PurePosixPath, place: str) -> pd.DataFrame | None:
    """The table read again without a header, where its first row is none: no name is known, and it holds a value that
    its column has again, or is a lone text. None: it has a header."""
    if {column.lower() for column in frame.columns} & {*TEXT_NAMES} or not TABLES[name.suffix.lower()]:
        return None
    bare = read_frame(content, name, place, header=False)
    first = bare.iloc[0]
    again = ((bare.iloc[1:] == first) & (first != "")).any(axis=None)
    return bare if again or (len(bare.columns) == 1 and " " in str(first.iloc[0])) else None


def _of_two(frame: pd.DataFrame) -> tuple[str, str] | None:
    """Which of two columns is the text and which the label, where their names do not say both; None: not to be told."""
    columns = [column for column in frame.columns if not column.startswith("Unnamed")]  # pandas writes row numbers so
    lengths = {column: _length(frame[column]) for column in columns} if len(columns) == 2 else {}
    text = next((c for c in lengths if c.lower() in TEXT_NAMES), None)
    label = next((c for c in lengths if c.lower() in LABEL_NAMES), None)
    if not lengths or (text and label):
        return None
    text = text or next((c for c in lengths if label and c != label), max(lengths, key=lengths.__getitem__))
    label = next(c for c in lengths if c != text)
    return (text, label) if frame[label].duplicated().any() else None


def _length(column: pd.Series) -> float:
    return float(column.astype(str).str.len().mean())


def _column(columns: list[str], named: str | None, usual: tuple[str, ...], what: str, place: str) -> str:
    if named is not None:
        if named not in columns and named.isdigit() and int(named) < len(columns):
            return columns[int(named)]
        if named not in columns:
            raise InputError(f"{place}: data.{what}: no column {named!r}; there are {listed(columns)}")
        return named
    if (found := find(columns, usual)) is not None:
        return found
    raise InputError(
        f"{place}: no {what} column is recognised among {listed(columns)}; name it with --set data.{what}=NAME"
    )
