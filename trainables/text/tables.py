"""Tables of texts, and which of their columns hold the text and the label.

They are CSV, TSV, JSON, JSON Lines, Parquet and Arrow files.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from trainables.base.errors import InputError

#: Suffixes, and the separator that is expected.
TABLES = {".csv": ",", ".tsv": "\t", ".parquet": None, ".arrow": None, ".jsonl": None, ".json": None}
#: What `datasets` writes beside its tables.
NO_TABLES = ("dataset_dict.json", "dataset_info.json", "state.json")
#: Separators that a table may have whatever its name says.
SEPARATORS = ",;\t|"
#: Columns that are taken where none is named, in this order.
TEXT_NAMES = ("text", "tweet", "content", "message", "sentence", "lyric", "lyrics", "line")
LABEL_NAMES = ("label", "class", "target", "category", "artist", "y")


def decode(content: bytes, place: str) -> str:
    """Decodes UTF-8 text, with or without a byte order mark.

    Raises:
        InputError: a byte is not UTF-8; the message has its line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{place}: line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8 "
            "(it may be Latin-1)"
        ) from error


def read_table(
    content: bytes, name: PurePosixPath, place: str, text: str | int | None, label: str | int | None,
    unlabelled: str | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Reads a table into the columns `text` and `label`, both of str; no text is taken for NaN.

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
    frame, notes = _table(content, name, place), []
    texts, labels = (None if column is None else str(column) for column in (text, label))
    unknown = texts not in frame and not {column.lower() for column in frame.columns} & {*TEXT_NAMES}
    if unknown and TABLES[name.suffix.lower()]:
        bare = _table(content, name, place, header=False)
        first = bare.iloc[0]
        if ((bare.iloc[1:] == first) & (first != "")).any(axis=None):
            frame = bare
            if labels not in bare:
                labels = min(reversed(bare.columns), key=lambda column: bare[column].nunique())
            if texts not in bare:
                texts = max(bare.columns, key=lambda column: (column != labels, bare[column].str.len().mean()))
            told = f"column {texts} is the text, {labels} the label (data.text, data.label)"
            notes.append(f"{name} has no header: {told}")
    columns = list(frame.columns)
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


def read_column(content: bytes, name: PurePosixPath, place: str) -> list[str]:
    """The texts of a table, from the first column with a usual name; raises InputError."""
    frame = _table(content, name, place)
    return [str(text) for text in frame[_column(list(frame.columns), None, TEXT_NAMES, "text", place)].fillna("")]


def _table(content: bytes, name: PurePosixPath, place: str, header: bool = True) -> pd.DataFrame:
    try:
        if name.suffix.lower() in (".parquet", ".arrow"):
            frame = _columnar(content, name.suffix.lower())
        elif name.suffix.lower() in (".jsonl", ".json"):
            frame = pd.DataFrame(_records(decode(content, place), place), dtype=object)
        else:
            text = decode(content, place)
            separator = _separator(text, str(TABLES[name.suffix.lower()]))
            frame = pd.read_csv(
                io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, header=0 if header else None
            )
    except (ValueError, OSError, csv.Error, pd.errors.ParserError) as error:
        raise InputError(f"{place}: cannot be read as a table ({str(error).strip().splitlines()[0]})") from error
    frame.columns = pd.Index([str(column) for column in frame.columns])
    return frame


def _columnar(content: bytes, suffix: str) -> pd.DataFrame:
    """A Parquet or Arrow table; class labels by name, where `datasets` noted them in the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if suffix == ".parquet":
        table = pq.read_table(io.BytesIO(content))
    elif content[:6] == b"ARROW1":
        table = pa.ipc.open_file(content).read_all()
    else:
        table = pa.ipc.open_stream(content).read_all()
    frame = table.to_pandas()
    noted = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    for column, feature in noted.get("info", {}).get("features", {}).items():
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            names = dict(enumerate(feature.get("names", ())))
            frame[column] = frame[column].map(names)
    return frame


def _records(text: str, place: str) -> list[dict[str, Any]]:
    """The objects of JSON Lines, or of one JSON document: a list of them, or the only list among its values.

    Raises:
        InputError: it is neither; the message has the line.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        whole = []
        for number, line in lines:
            try:
                whole.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise InputError(f"{place}: line {number}: not JSON ({error.msg})") from error
    if isinstance(whole, dict) and len(lines) > 1:
        lists = [value for value in whole.values() if isinstance(value, list)]
        whole = lists[0] if len(lists) == 1 else whole
    records = whole if isinstance(whole, list) else [whole]
    if not records or not all(isinstance(one, dict) for one in records):
        raise InputError(f"{place}: expected JSON objects, one a line or in a list")
    return records


def _separator(text: str, expected: str) -> str:
    """The separator that gives all rows the same number of columns, the expected one first; else the expected one."""
    for separator in expected + SEPARATORS.replace(expected, ""):
        widths = {len(row) for row in csv.reader(io.StringIO(text), delimiter=separator) if row}
        if len(widths) == 1 and widths.pop() > 1:
            return separator
    return expected


def _column(columns: list[str], named: str | None, usual: tuple[str, ...], what: str, place: str) -> str:
    if named is not None:
        if named not in columns and named.isdigit() and int(named) < len(columns):
            return columns[int(named)]
        if named not in columns:
            raise InputError(f"{place}: data.{what}: no column {named!r}; there are {', '.join(columns)}")
        return named
    by_lower = {column.lower(): column for column in reversed(columns)}
    for candidate in usual:
        if candidate in by_lower:
            return by_lower[candidate]
    raise InputError(
        f"{place}: no {what} column is recognised among {', '.join(columns)}; name it with --set data.{what}=NAME"
    )
