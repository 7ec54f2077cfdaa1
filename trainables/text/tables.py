"""Tables of texts: CSV, TSV, JSON Lines and Parquet files, and which of their columns hold the text and the label."""

from __future__ import annotations

import csv
import io
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from trainables.base.errors import InputError

#: Suffixes, and the separator that is expected.
TABLES = {".csv": ",", ".tsv": "\t", ".parquet": None, ".jsonl": None}
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


def read_table(content: bytes, name: PurePosixPath, place: str, text: str | None, label: str | None) -> pd.DataFrame:
    """Reads a table into the columns `text` and `label`, both of str; no text is taken for NaN.

    Args:
        text, label: names of the columns; None takes the first with a usual name.

    Raises:
        InputError: the table cannot be read, a column is missing, or a row has no label.
    """
    frame = _table(content, name, place)
    columns = list(frame.columns)
    chosen = {
        "text": _column(columns, text, TEXT_NAMES, "text", place),
        "label": _column(columns, label, LABEL_NAMES, "label", place),
    }
    if chosen["text"] == chosen["label"]:
        raise InputError(f"{place}: data.text and data.label are both {chosen['text']!r}")
    frame = frame[[chosen["text"], chosen["label"]]].set_axis(["text", "label"], axis=1)
    missing = frame["label"].isna() | (frame["label"].astype(str).str.strip() == "")
    if missing.any():
        first = int(np.flatnonzero(missing)[0])
        raise InputError(f"{place}: row {first + 1}: no label ({int(missing.sum())} rows have none)")
    return pd.DataFrame({"text": frame["text"].fillna("").astype(str), "label": frame["label"].astype(str).str.strip()})


def read_column(content: bytes, name: PurePosixPath, place: str) -> list[str]:
    """The texts of a table, from the first column with a usual name; raises InputError."""
    frame = _table(content, name, place)
    return [str(text) for text in frame[_column(list(frame.columns), None, TEXT_NAMES, "text", place)].fillna("")]


def _table(content: bytes, name: PurePosixPath, place: str) -> pd.DataFrame:
    try:
        if name.suffix.lower() == ".parquet":
            frame = pd.read_parquet(io.BytesIO(content))
        elif name.suffix.lower() == ".jsonl":
            frame = pd.read_json(io.StringIO(decode(content, place)), lines=True, dtype=False)
        else:
            text = decode(content, place)
            separator = _separator(text, str(TABLES[name.suffix.lower()]))
            frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False)
    except (ValueError, OSError, csv.Error, pd.errors.ParserError) as error:
        raise InputError(f"{place}: cannot be read as a table ({str(error).strip().splitlines()[0]})") from error
    frame.columns = pd.Index([str(column) for column in frame.columns])
    return frame


def _separator(text: str, expected: str) -> str:
    """The expected separator if the first line has it, else one that gives all rows the same number of columns."""
    first = next(csv.reader(io.StringIO(text), delimiter=expected), [])
    if len(first) > 1:
        return expected
    for other in SEPARATORS.replace(expected, ""):
        widths = {len(row) for row in csv.reader(io.StringIO(text), delimiter=other) if row}
        if len(widths) == 1 and widths.pop() > 1:
            return other
    return expected


def _column(columns: list[str], named: str | None, usual: tuple[str, ...], what: str, place: str) -> str:
    if named is not None:
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
