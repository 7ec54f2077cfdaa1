"""Reads tables: CSV, TSV, JSON, JSON Lines, Parquet and Arrow files. `read_files` unpacks gzip files and zips."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from trainables.base.errors import InputError, one_line
from trainables.base.files import UNLIMITED, Allowance, broken

#: The suffixes of tables, and the separator that each suffix suggests.
TABLES = {".csv": ",", ".tsv": "\t", ".parquet": None, ".arrow": None, ".jsonl": None, ".json": None}
#: The separators that are tried for any suffix.
SEPARATORS = ",;\t|"
#: Rows of a Parquet file that are unpacked at a time: pyarrow's default, and the minimum for large values.
ROWS, FEWEST = 65_536, 256
#: Lone surrogates, which JSON can hold as `\\ud83d`.
_SURROGATES = re.compile("[\ud800-\udfff]")
#: Byte order marks. UTF-32 stands first because its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


def decode(content: bytes, place: str) -> str:
    """Decodes text in UTF-8, or in UTF-16 or UTF-32 if it begins with their byte order mark.

    Raises:
        InputError: a byte is not UTF-8; the message gives its line and position, and a command that converts the file.
            UTF-16 without a byte order mark is refused too.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and (unmarked := _unmarked_utf16(content)):
        raise InputError(
            f"{place}: the text is {unmarked} without a byte order mark; convert the file with `iconv -f {unmarked} -t "
            "UTF-8`"
        )
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n?|\n", content[: error.start])) + 1
        if encoding != "utf-8-sig":
            raise InputError(f"{place}: begins with the mark of {encoding}, but is damaged ({error})") from error
        raise InputError(
            f"{place}: line {line}, byte {error.start}: 0x{content[error.start]:02x} is not UTF-8; convert the file "
            "with `iconv -f LATIN1 -t UTF-8`, if it is Latin-1"
        ) from error


def _unmarked_utf16(content: bytes) -> str | None:
    """UTF-16LE or UTF-16BE if one of them is likely, else None.

    Separators, digits and line ends have a zero byte in UTF-16, on one side of each pair of bytes.
    """
    if b"\0" not in content:
        return None
    zeros = [content[side::2].count(0) for side in (0, 1)]
    if len(content) % 2 or max(zeros) <= max(len(content) // 40, 10 * min(zeros)):
        return None
    return "UTF-16BE" if zeros[0] > zeros[1] else "UTF-16LE"


def read_frame(
    content: bytes, name: PurePosixPath, place: str, header: bool = True, numbers: bool = False,
    allowance: Allowance = UNLIMITED,
) -> pd.DataFrame:  # fmt: skip
    """Reads a table.

    Args:
        name: the name of the file, whose suffix gives its format.
        place: the file in messages.
        header: whether the first row of a CSV or TSV file names the columns; else they are called "0", "1", ...
        numbers: whether values of CSV and TSV files become numbers if possible; else all of them are text.
        allowance: the bytes that a compressed table may take.

    Raises:
        InputError: the table cannot be read.
    """
    with broken(place, "cannot be read as a table"):
        if name.suffix.lower() in (".parquet", ".arrow"):
            frame = _columnar(content, name.suffix.lower(), place, allowance)
        elif name.suffix.lower() in (".jsonl", ".json"):
            frame = pd.DataFrame(_records(decode(content, place), place), dtype=object)
            frame = frame.infer_objects() if numbers else frame
        else:
            text = decode(content, place)
            separator, even = _separator(text, str(TABLES[name.suffix.lower()]))
            text = text if even else _without_surplus(text, separator, place)
            frame = pd.read_csv(
                io.StringIO(text), sep=separator, dtype=None if numbers else str, keep_default_na=numbers,
                header=0 if header else None,
            )  # fmt: skip
        frame.columns = pd.Index([str(column) for column in frame.columns])
    return frame


def _columnar(content: bytes, suffix: str, place: str, allowance: Allowance) -> pd.DataFrame:
    """A Parquet or Arrow table. Class labels become names if the metadata of `datasets` lists them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if suffix == ".parquet":
        file = pq.ParquetFile(io.BytesIO(content))
        schema, batches = file.schema_arrow, _parquet_batches(file, place, allowance)
    elif content[:6] == b"ARROW1":
        opened = pa.ipc.open_file(content)
        schema, batches = opened.schema, (opened.get_batch(i) for i in range(opened.num_record_batches))
    else:
        stream = pa.ipc.open_stream(content)
        schema, batches = stream.schema, iter(stream)
    read = []
    for batch in batches:
        # Arrow does not check by itself that the offsets of a file's arrays lie inside the file.
        batch.validate(full=True)
        batch = _without_dictionaries(batch)
        allowance.take(batch.nbytes, place)
        read.append(batch)
    frame = pa.Table.from_batches(read, None if read else schema).to_pandas()
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    for column, feature in metadata.get("info", {}).get("features", {}).items():
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            names = dict(enumerate(feature.get("names", ())))
            frame[column] = frame[column].map(names)
    return frame


def _without_dictionaries(batch: Any) -> Any:
    """The record batch with plain values instead of dictionary indices."""
    import pyarrow as pa

    columns = [c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in batch.columns]
    fields = [field.with_type(column.type) for field, column in zip(batch.schema, columns, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, batch.schema.metadata))


def _parquet_batches(file: Any, place: str, allowance: Allowance) -> Iterator[Any]:
    """The record batches of a Parquet file, small enough for the rest of `allowance`.

    A file gives the unpacked size of its pages. Its values can take more, because a page stores a repeated value once.
    """
    metadata = file.metadata
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    sizes = [group.column(i).total_uncompressed_size for group in groups for i in range(group.num_columns)]
    allowance.check(max(sum(sizes), metadata.num_rows), place)
    left = allowance.left
    # A value is no longer than its column's pages. `FEWEST` is the minimum: smaller batches would take minutes.
    rows = ROWS if left is None or not sizes else min(ROWS, max(FEWEST, left // max(1, *sizes)))
    return iter(file.iter_batches(batch_size=rows))


def _records(text: str, place: str) -> list[dict[str, Any]]:
    """The objects of a JSON document or of JSON Lines.

    A document is a list of objects, an object with one list among its values, or a single object.

    Raises:
        InputError: the text is none of these; the message gives the line.
    """
    # Not `splitlines`: a text may hold line separators of Unicode. JSON forbids bare carriage returns in texts.
    lines = [(number, line) for number, line in enumerate(re.split(r"\r\n?|\n", text), 1) if line.strip()]
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise InputError(f"{place}: JSON in too many levels") from error
    except json.JSONDecodeError:
        document = [_json_line(line, f"{place}: line {number}") for number, line in lines]
    if isinstance(document, dict) and len(lines) > 1:
        lists = [value for value in document.values() if isinstance(value, list)]
        document = lists[0] if len(lists) == 1 else document
    if re.search(r"\\ud", text, re.IGNORECASE):
        document = _without_surrogates(document)
    records = document if isinstance(document, list) else [document]
    if not records or not all(isinstance(record, dict) for record in records):
        raise InputError(f"{place}: expected JSON objects, one a line or in a list")
    return records


def _json_line(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise InputError(f"{place}: JSON in too many levels") from error


def _without_surrogates(value: Any) -> Any:
    """The content of a JSON document with U+FFFD for lone surrogates, which no file or database takes.

    A text that was cut in the middle of an emoji ends with a lone surrogate.
    """
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def _separator(text: str, expected: str) -> tuple[str, bool]:
    """The first separator that gives all rows the same number of columns, above one; else the expected separator.

    `pandas.read_csv(sep=None)` guesses any character: it reads the lines `text`, `hello world`, `good morning` as three
    columns. It takes twice the time (5.1 s instead of 2.5 s for 100,000 rows of three columns).

    Returns:
        The separator, and whether all rows have the same number of cells. Rows may have empty cells beyond the columns.
    """
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # 131,072 characters by default; an article has more
    for separator in expected + SEPARATORS.replace(expected, ""):
        rows = (row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row)
        width = len(next(rows, ()))
        fits, even = width > 1, True
        for row in rows:
            if len(row) != width:
                even = False
                fits = fits and len(row) > width and _is_blank(row[width:])
            if not fits:
                break
        if fits:
            return separator, even
    return expected, False


def _is_blank(cells: list[str]) -> bool:
    return not any(cell.strip() for cell in cells)


def _without_surplus(text: str, separator: str, place: str) -> str:
    """The table without the empty cells that rows have beyond the first row, as in `text,label / good film,pos,`.

    pandas would take the first cells of such rows for row names, and shift the others by a column. Row names are left
    as they are: R writes them without a name in the header, so that each row has a cell more (`text / 1,good film`).

    Raises:
        InputError: a row has more cells than the first row, and they are neither empty nor due to row numbers.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows = [(reader.line_num, row) for row in reader if row]
    width = len(rows[0][1]) if rows else 0
    longer = [(line, row) for line, row in rows if len(row) > width]
    if not longer or _has_row_numbers([row for _, row in rows]):
        return text
    for line, row in longer:
        if not _is_blank(row[width:]):
            shown = "a tab" if separator == "\t" else repr(separator)
            raise InputError(
                f"{place}: line {line}: {len(row)} cells, but the first row has {width}; put quotation marks "
                f"around a cell that holds {shown}"
            )
    file = io.StringIO()
    csv.writer(file, delimiter=separator, lineterminator="\n").writerows(row[:width] for _, row in rows)
    return file.getvalue()


def _has_row_numbers(rows: list[list[str]]) -> bool:
    """Whether all rows have a cell more than the header, and begin with different whole numbers: R's row names."""
    header, *others = rows
    names = [row[0] for row in others]
    longer = all(len(row) == len(header) + 1 for row in others) and not _is_blank([row[-1] for row in others])
    return longer and all(name.isdecimal() for name in names) and len({*names}) == len(names)


def named_lines(name: str, content: str) -> list[tuple[str, str]]:
    """The lines of a text that are not blank, each after its name: `NAME:3` for the third line."""
    return [(f"{name}:{number}", line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]


def find(columns: Iterable[object], names: Iterable[str]) -> str | None:
    """The first of these names, in upper or lower case, that is a column; None if no name is.

    >>> find(["Id", "LABEL", "y"], ("target", "label", "y"))
    'LABEL'
    """
    by_lower = {str(column).lower(): str(column) for column in reversed([*columns])}
    return next((by_lower[name] for name in names if name in by_lower), None)


def label_text(value: object) -> str:
    """The name of a class. Whole numbers are one class in each form: `1` and `1.0` of JSON are the class "1".

    Parquet files and JSON have `1.0` for 1 where a column has a missing value.
    """
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value).strip()


def listed(names: Iterable[object], most: int = 12) -> str:
    """Names of columns or classes on one line: at most `most` names of at most 40 printable characters."""
    shown = [one_line(name, 40) or "(no name)" for name in names]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
