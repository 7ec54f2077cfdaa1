"""Reads tables: CSV, TSV, JSON, JSON Lines, Parquet and Arrow files, gzipped or in zips by `read_files`."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from trainables.base.errors import InputError, one_line
from trainables.base.files import UNLIMITED, Allowance, broken

#: Suffixes, and the separator that is expected.
TABLES = {".csv": ",", ".tsv": "\t", ".parquet": None, ".arrow": None, ".jsonl": None, ".json": None}
#: Separators that a table may have whatever its name says.
SEPARATORS = ",;\t|"
#: Rows of a Parquet file that are unpacked at a time: pyarrow's own number, and the fewest where values may be large.
ROWS, FEWEST = 65_536, 256
#: Halves of a character, which JSON can hold as `\\ud83d`.
_HALVES = re.compile("[\ud800-\udfff]")
#: Byte order marks. That of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


def decode(content: bytes, place: str) -> str:
    """Decodes text in UTF-8, or in the encoding that its byte order mark names: UTF-16 or UTF-32.

    Raises:
        InputError: a byte is not UTF-8; the message has its line and position, and how to convert the file.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8-sig")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        if encoding != "utf-8-sig":
            raise InputError(f"{place}: begins with the mark of {encoding}, but is damaged ({error})") from error
        raise InputError(
            f"{place}: line {line}, byte {error.start}: 0x{content[error.start]:02x} is not UTF-8; convert the file "
            "with `iconv -f LATIN1 -t UTF-8`, if it is Latin-1"
        ) from error


def read_frame(
    content: bytes, name: PurePosixPath, place: str, header: bool = True, numbers: bool = False,
    allowance: Allowance = UNLIMITED,
) -> pd.DataFrame:  # fmt: skip
    """Reads a table. Values of CSV and TSV files are text, whatever they look like, unless `numbers` are asked for.

    Args:
        name: says by its suffix what the file is.
        place: what messages name.
        header: whether the first row of a CSV or TSV file names the columns; else they are called "0", "1", ...
        allowance: what a compressed table may take.

    Raises:
        InputError: it cannot be read.
    """
    with broken(place, "cannot be read as a table"):
        if name.suffix.lower() in (".parquet", ".arrow"):
            frame = _columnar(content, name.suffix.lower(), place, allowance)
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
        frame.columns = pd.Index([str(column) for column in frame.columns])
    return frame


def _columnar(content: bytes, suffix: str, place: str, allowance: Allowance) -> pd.DataFrame:
    """A Parquet or Arrow table; class labels by name, where `datasets` noted them in the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if suffix == ".parquet":
        file = pq.ParquetFile(io.BytesIO(content))
        schema, batches = file.schema_arrow, _of_parquet(file, place, allowance)
    elif content[:6] == b"ARROW1":
        opened = pa.ipc.open_file(content)
        schema, batches = opened.schema, (opened.get_batch(i) for i in range(opened.num_record_batches))
    else:
        stream = pa.ipc.open_stream(content)
        schema, batches = stream.schema, iter(stream)
    read = []
    for batch in batches:
        # Arrow itself believes a file that an array's values lie where the file says, outside of it too.
        batch.validate(full=True)
        batch = _decoded(batch)
        allowance.take(batch.nbytes, place)
        read.append(batch)
    frame = pa.Table.from_batches(read, None if read else schema).to_pandas()
    noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    for column, feature in noted.get("info", {}).get("features", {}).items():
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            names = dict(enumerate(feature.get("names", ())))
            frame[column] = frame[column].map(names)
    return frame


def _decoded(batch: Any) -> Any:
    """With the values themselves in the place of numbers that stand for them."""
    import pyarrow as pa

    columns = [c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in batch.columns]
    fields = [field.with_type(column.type) for field, column in zip(batch.schema, columns, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, batch.schema.metadata))


def _of_parquet(file: Any, place: str, allowance: Allowance) -> Iterator[Any]:
    """The record batches of a Parquet file, of which each takes a part of what is left of `allowance`.

    A value that repeats is stored once, so that a file says what its pages take unpacked, but not what its values do.
    """
    about = file.metadata
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    sizes = [group.column(i).total_uncompressed_size for group in groups for i in range(group.num_columns)]
    allowance.check(max(sum(sizes), about.num_rows), place)
    most = allowance.left
    # A value is no longer than its column's pages. Batches of a few rows would be read for minutes, hence the floor.
    rows = ROWS if most is None or not sizes else min(ROWS, max(FEWEST, most // max(1, *sizes)))
    return iter(file.iter_batches(batch_size=rows))


def _records(text: str, place: str) -> list[dict[str, Any]]:
    """The objects of JSON Lines, or of one JSON document: a list of them, or the only list among its values.

    Raises:
        InputError: it is neither; the message has the line.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    try:
        whole = json.loads(text)
    except RecursionError as error:
        raise InputError(f"{place}: JSON in too many levels") from error
    except json.JSONDecodeError:
        whole = []
        for number, line in lines:
            try:
                whole.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise InputError(f"{place}: line {number}: not JSON ({error.msg})") from error
            except RecursionError as error:
                raise InputError(f"{place}: line {number}: JSON in too many levels") from error
    if isinstance(whole, dict) and len(lines) > 1:
        lists = [value for value in whole.values() if isinstance(value, list)]
        whole = lists[0] if len(lists) == 1 else whole
    if re.search(r"\\ud", text, re.IGNORECASE):
        whole = _without_halves(whole)
    records = whole if isinstance(whole, list) else [whole]
    if not records or not all(isinstance(one, dict) for one in records):
        raise InputError(f"{place}: expected JSON objects, one a line or in a list")
    return records


def _without_halves(value: Any) -> Any:
    """The content of a JSON document with U+FFFD for halves of characters, which no file or database takes: a text that
    was cut in the middle of an emoji ends with one."""
    if isinstance(value, str):
        return _HALVES.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_halves(one) for one in value]
    if isinstance(value, dict):
        return {_without_halves(key): _without_halves(one) for key, one in value.items()}
    return value


def _separator(text: str, expected: str) -> str:
    """The separator that gives all rows the same number of columns, the expected one first; else the expected one."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # 131,072 characters by default; an article has more
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
    shown = [one_line(name, 40) or "(no name)" for name in names]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
