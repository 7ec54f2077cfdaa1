"""Reads tables of texts: CSV, TSV, JSON, JSON Lines, Parquet and Arrow files.

`base.columns` suggests which columns hold the text and the label.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from trainables.base.columns import TEXTS, lacks_header, longest, suggest_texts
from trainables.base.errors import InputError
from trainables.base.files import UNLIMITED, Allowance
from trainables.base.tables import TABLES, find, label_text, listed, read_frame


def read_table(
    content: bytes, name: PurePosixPath, place: str, text: str | int | None, label: str | int | None,
    unlabelled: str | None = None, allowance: Allowance = UNLIMITED,
) -> pd.DataFrame:  # fmt: skip
    """Reads a table into the columns `text` and `label`, both of str. No text is read as NaN.

    `attrs["notes"]` of the frame holds a sentence for each decision that the user should know.

    Args:
        text, label: names or positions of the columns; None: suggested.
        unlabelled: "drop" leaves rows without a label out; None refuses them.

    Raises:
        InputError: the table cannot be read, a column is missing, or a row has no label.
    """
    if unlabelled not in (None, "drop"):
        raise InputError(f"data.unlabelled: {unlabelled!r}: must be drop or null")
    frame, notes = read_frame(content, name, place, allowance=allowance), []
    text, label = (None if column is None else str(column) for column in (text, label))
    bare = None if text in frame else _without_header(frame, content, name, place)
    suggestion = suggest_texts(frame if bare is None else bare, text, label, header=bare is None)
    if suggestion.reason:
        notes.append(f"{name}{'' if bare is None else ' has no header'}: {suggestion.reason}")
    frame = frame if bare is None else bare
    columns = list(frame.columns)
    text_column = _column(columns, suggestion.columns.get("text"), "text", place)
    label_column = _column(columns, suggestion.columns.get("label"), "label", place)
    if text_column == label_column:
        raise InputError(f"{place}: data.text and data.label are both {text_column!r}")
    frame = frame[[text_column, label_column]].set_axis(["text", "label"], axis=1)
    labels = frame["label"].map(label_text)
    missing = frame["label"].isna() | (labels == "")
    if missing.any():
        row, count = int(np.flatnonzero(missing)[0]) + 1, int(missing.sum())
        if unlabelled is None:
            raise InputError(
                f"{place}: row {row}: no label ({count} rows have none; --set data.unlabelled=drop leaves them out)"
            )
        notes.append(f"data.unlabelled=drop: {count} rows of {name} left out")
        frame, labels = frame[~missing], labels[~missing]
    read = pd.DataFrame({"text": frame["text"].fillna("").astype(str), "label": labels.astype(str)})
    read.attrs["notes"] = notes
    return read


def read_column(
    content: bytes, name: PurePosixPath, place: str, text: str | None = None, allowance: Allowance = UNLIMITED
) -> list[str]:
    """The texts of a table: the column `text`, else the first with a usual name; without a header the longest column.

    Raises:
        InputError: the table cannot be read, or its header has no usual name.
    """
    frame = read_frame(content, name, place, allowance=allowance)
    bare = None if text in frame else _without_header(frame, content, name, place)
    if bare is not None:
        return list(bare[longest(bare)])
    column = _column(list(frame.columns), text or find(frame.columns, TEXTS), "text", place)
    return [str(value) for value in frame[column].fillna("")]


def _without_header(frame: pd.DataFrame, content: bytes, name: PurePosixPath, place: str) -> pd.DataFrame | None:
    """The CSV or TSV table read again without a header if its first row is none; else None."""
    usual = {column.lower() for column in frame.columns} & {*TEXTS}
    if usual or not TABLES[name.suffix.lower()]:
        return None
    bare = read_frame(content, name, place, header=False)
    return bare if lacks_header(bare) else None


def _column(columns: list[str], name: str | None, role: str, place: str) -> str:
    """A column by its name or position; raises InputError if there is none."""
    if name is None:
        raise InputError(
            f"{place}: no {role} column is recognised among {listed(columns)}; name it with --set data.{role}=NAME"
        )
    if name in columns:
        return name
    if name.isdigit() and int(name) < len(columns):
        return columns[int(name)]
    raise InputError(f"{place}: data.{role}: no column {name!r}; there are {listed(columns)}")
