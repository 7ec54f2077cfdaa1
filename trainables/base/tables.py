"""Reads tables: CSV, TSV, JSON, JSON Lines, Parquet and Arrow files, gzipped or in zips by `read_files`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from trainables.base.errors import InputError

#: Suffixes, and the separator that is expected.
TABLES = {".csv": ",", ".tsv": "\t", ".parquet": None, ".arrow": None, ".jsonl": None, ".json": None}
#: Separators that a table may have whatever its name says.
SEPARATORS = ",;\t|"


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


def read_frame(
    content: bytes, name: PurePosixPath, place: str, header: bool = True, numbers: bool = False
) -> pd.DataFrame:
    """Reads a table. Values of CSV and TSV files are text, whatever they look like, unless `numbers` are asked for.

    Args:
        name: says by its suffix what the file is.
        place: what messages name.
        header: whether the first row of a CSV or TSV file names the columns; else they are called "0", "1", ...

    Raises:
        InputError: it cannot be read.
    """
    try:
        if name.suffix.lower() in (".parquet", ".arrow"):
            frame = _columnar(content, name.suffix.lower())
        elif name.suffix.lower() in (".jsonl", ".json"):
            frame = pd.DataFrame(_records(decode(content, place), place), dtype=object)
            frame = frame.infer_objects() if numbers else frame
        else:
            text = decode(content, place)
            separator = _separator(text, str(TABLES[name.suffix.lower()]))
            frame = pd.read_csv(
                io.StringIO(text), sep=separator, dtype=None if numbers else str, keep_default_na=numbers,
                header=0 if header else None,
            )  # fmt: skip
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


def find(columns: Iterable[object], names: Iterable[str]) -> str | None:
    """The column with the first of these names, in any case, of equal ones the first; None where there is none."""
    by_lower = {str(column).lower(): str(column) for column in reversed([*columns])}
    return next((by_lower[name] for name in names if name in by_lower), None)


def listed(names: Iterable[object], most: int = 12) -> str:
    """Names of columns or classes on one line, however many and however strange they are."""
    shown = [" ".join(str(name).split())[:40] or "(no name)" for name in names]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
