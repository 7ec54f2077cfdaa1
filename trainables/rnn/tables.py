"""Tables of sequences, a row for each step or for each sequence; which column is what is found by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from trainables import InputError
from trainables.base.tables import TABLES, find, listed

#: Names of columns, in any case, of which the first that is there is taken: what tells sequences apart, what orders
#: their steps, and what is to be predicted.
SEQUENCES = ("sequence_id", "sequence", "series_id", "series", "sample_id", "sample", "case_id", "case", "id")
TIMES = ("t", "time", "step", "time_step", "timestep", "cycle", "timestamp", "datetime", "date")
TARGETS = ("target", "y", "label")
#: Names of arrays and columns that say which sequences come from one source.
GROUPS = (
    "group", "groups", "engine", "unit", "machine", "device", "subject", "patient", "person", "user", "session",
)  # fmt: skip
#: Names of columns that hold a sequence's file.
FILES = ("file", "file_name", "filename", "path", "name")


@dataclass(frozen=True, eq=False)
class Table:
    """A table that was read from the file `name`; `place` stands in messages."""

    name: PurePosixPath
    frame: pd.DataFrame
    place: str


def features(frame: pd.DataFrame) -> pd.DataFrame:
    """What a network reads of a table of one sequence: all but what names it, its steps and what it is about."""
    frame = _without_index(frame)
    known = [find(frame.columns, names) for names in (SEQUENCES, TIMES, TARGETS)]
    constant = [c for c in frame.columns if c.lower() in GROUPS and frame[c].nunique() <= 1]
    return frame.drop(columns=[c for c in (*known, *constant) if c is not None])


def read_tables(
    tables: list[Table], target: str | None, group: str | None, notes: list[str], of_train: Sequence[Table] = ()
) -> tuple[dict[str, Any], str]:
    """Reads the tables of a split as arrays: X, the target and the group, if there is one; and the target's name.

    A row is a step, with a column that tells sequences apart; of several tables, one without such a column is one
    sequence. Sequences are in the order in which they appear once rows are ordered in time. Where they do not hold the
    target, another table does, with a row for each sequence: its id, or the name of its file. Or a row is a whole
    sequence: lists, or a step a column.

    Args:
        target, group: the names of columns; None: found.
        of_train: the tables of train, of which one may hold the targets of all splits.

    Raises:
        InputError: a column is missing, or a sequence has no target, or several, or the same step twice.
    """
    if not _with(target, tables) and len(_with(target, of_train)) < len(of_train):
        tables = [*tables, *_with(target, of_train)]
    columns = [column for table in tables for column in table.frame.columns]
    target = target or find(columns, TARGETS)
    if target is None or target not in columns:
        wanted = f"no column {target!r}" if target else f"no column is called {', '.join(TARGETS)}"
        raise InputError(
            f"{tables[0].place}: {wanted}; there are {listed(dict.fromkeys(columns))}; say what is to be predicted "
            "with --set data.target=NAME"
        )
    about = _with(target, tables)
    steps = [table for table in tables if table not in about]
    if not steps:
        steps, about = tables, []
    known, shared = _rows_about(about, group)
    arrays: dict[str, Any] = {}
    inputs: list[str] = []
    for table in steps:
        frame, told = _without_index(table.frame), notes if table is steps[0] else []
        if not about and (whole := _columns_of_rows(frame, target, group, alone=len(steps) == 1)):
            read = _of_rows(table, frame, target, group, whole, told)
        else:
            key, time = _key(frame, steps), find(frame.columns, TIMES)
            if key is None and len(tables) == 1:
                raise InputError(
                    f"{table.place}: no column that tells sequences apart is recognised among {listed(frame.columns)}; "
                    "call it sequence_id"
                )
            by = key or "file"
            if key is None:  # the file is one sequence
                key = SEQUENCES[0]
                frame = frame.assign(**{key: table.name.stem})
            group = group or shared or (None if about else _constant(frame, key))
            elsewhere = {target if about else None, shared if shared not in frame else None}
            given = [c for c in (key, time, target, group) if c is not None and c not in elsewhere]
            inputs = inputs or [c for c in frame.columns if c not in given]
            _check_columns(frame, given, inputs, target, table.place)
            if (by, time, target) != ("sequence_id", "t", "y"):
                order = f"steps by {time}" if time else f"steps as they stand (no column is called {', '.join(TIMES)})"
                told.append(f"{table.name}: sequences by {by}, {order}, the target is {target}")
            sequences = _ordered(frame, key, time, table.place).groupby(key, sort=False)
            if about and (lacking := [name for name, _ in sequences if _plain(name) not in known]):
                raise InputError(f"{about[0].place}: no row for sequence {lacking[0]} of {table.place}")
            read = _of_steps(table, sequences, inputs, target, group, known if about else None)
        for name, values in read.items():
            arrays.setdefault(name, []).extend(values)
    return arrays, target


def _with(column: str | None, tables: Sequence[Table]) -> list[Table]:
    return [table for table in tables if column in table.frame.columns]


def _of_steps(
    table: Table, sequences: Any, inputs: list[str], target: str, group: str | None,
    known: dict[str, pd.DataFrame] | None,
) -> dict[str, list[Any]]:  # fmt: skip
    """The arrays of a table whose rows are steps; what `known` has no row for, the sequence's own rows say."""
    arrays: dict[str, list[Any]] = {"X": [], target: []} | ({group: []} if group else {})
    for name, rows in sequences:
        own = rows if known is None else known[_plain(name)]
        if known is None and rows[target].nunique(dropna=False) != 1:
            raise InputError(
                f"{table.place}: sequence {name}: {target} must be one value, but there are several (what is to be "
                "predicted is --set data.target=NAME)"
            )
        arrays["X"].append(rows[inputs].to_numpy(dtype=np.float64))
        arrays[target].append(own[target].iloc[0])
        if group is not None:
            arrays[group].append((own if group in own else rows)[group].iloc[0])
    return arrays


def _columns_of_rows(frame: pd.DataFrame, target: str, group: str | None, alone: bool) -> list[str]:
    """The columns of which each row is a sequence: of lists, or a step each; none where a row is a step."""
    lists = [c for c in frame.columns if len(frame) and isinstance(frame[c].iloc[0], list | np.ndarray)]
    if lists:
        return lists
    key = find(frame.columns, (*SEQUENCES, *GROUPS))
    one_each = find(frame.columns, TIMES) is None and (key is None or not frame[key].duplicated().any())
    if not one_each or (not alone and frame[target].nunique() == 1):  # else a table is a sequence
        return []
    others = [c for c in frame.columns if c not in (key, target, group) and c.lower() not in GROUPS]
    return others if len(others) > 1 else []


def _of_rows(
    table: Table, frame: pd.DataFrame, target: str, group: str | None, columns: list[str], notes: list[str]
) -> dict[str, list[Any]]:
    """The arrays of a table of which each row is a sequence; empty columns at its end are no steps."""
    what = [c for c in frame.columns if c in (target, group) or c.lower() in GROUPS]
    if pd.api.types.is_object_dtype(frame[columns[0]]):
        notes.append(f"{table.name}: a row is a sequence, the lists in {listed(columns)}; the target is {target}")
        cells = frame[columns].to_numpy()
    else:
        notes.append(f"{table.name}: a row is a sequence of up to {len(columns)} steps; the target is {target}")
        cells = np.empty((len(frame), 1), dtype=object)
        _check_columns(frame[[*columns, target]], [target], columns, target, table.place)
        values = frame[columns].to_numpy(dtype=np.float64)
        lengths = len(columns) - np.isnan(values)[:, ::-1].argmin(1)
        cells[:, 0] = [row[:length] for row, length in zip(values, lengths, strict=True)]
    sequences = []
    for number, row in enumerate(cells, 1):
        try:
            parts = [np.array([np.asarray(step, dtype=np.float64) for step in cell]) for cell in row]
            sequences.append(np.column_stack(parts))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{table.place}: row {number}: {listed(columns)}: lists of numbers, of one length, are needed"
            ) from error
    return {"X": sequences, **{name: frame[name].tolist() for name in what}}


def _key(frame: pd.DataFrame, steps: list[Table]) -> str | None:
    """The column that tells sequences apart: one called so, or a group where a table holds several of it."""
    group = find(frame.columns, GROUPS)
    several = len(steps) == 1 or any(group in t.frame and t.frame[group].nunique() > 1 for t in steps)
    return find(frame.columns, SEQUENCES) or (group if several else None)


def _without_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Without the numbers of rows that pandas writes as a first column of no name."""
    first = frame.columns[0] if len(frame.columns) else ""
    counts = first.startswith("Unnamed") and frame[first].tolist() == list(range(len(frame)))
    return frame.drop(columns=first) if counts else frame


def _constant(frame: pd.DataFrame, key: str) -> str | None:
    """The column that is called like a group and is one value in each sequence; any other such column is an input."""
    named = [c for c in frame.columns if c.lower() in GROUPS and c != key]
    return next((c for c in named if (frame.groupby(key)[c].nunique() <= 1).all()), None)


def _check_columns(frame: pd.DataFrame, given: list[str], inputs: list[str], target: str, place: str) -> None:
    if absent := [c for c in given if c not in frame.columns]:
        raise InputError(f"{place}: no column {absent[0]!r}; there are {listed(frame.columns)}")
    if not inputs:
        raise InputError(f"{place}: no feature column beside {', '.join(given)}")
    if lacking := [c for c in inputs if c not in frame.columns]:
        raise InputError(f"{place}: no column {lacking[0]!r}, which the table before has")
    if more := [c for c in frame.columns if c not in (*inputs, *given)]:
        raise InputError(f"{place}: column {more[0]!r}, which the table before does not have")
    words = [c for c in (*inputs, target) if c in frame and not pd.api.types.is_numeric_dtype(frame[c])]
    if words:
        raise InputError(f"{place}: column {words[0]!r} holds {frame[words[0]].dtype}; numbers are needed")


def _ordered(frame: pd.DataFrame, key: str, time: str | None, place: str) -> pd.DataFrame:
    """Its rows in the order of time, which may be numbers or dates."""
    if (nameless := frame[key].isna()).any():
        raise InputError(f"{place}: row {int(np.flatnonzero(nameless)[0]) + 1}: no {key}")
    if time is None:
        return frame
    moments = frame[time]
    if not pd.api.types.is_numeric_dtype(moments):
        moments = pd.to_datetime(frame[time], format="ISO8601", utc=True, errors="coerce")
        if moments.isna().any():  # a hundred times as slow
            moments = pd.to_datetime(frame[time], format="mixed", utc=True, errors="coerce")
    if (unknown := moments.isna()).any():
        row = int(np.flatnonzero(unknown)[0])
        raise InputError(f"{place}: row {row + 1}: {time} = {frame[time].iloc[row]!r}: neither a number nor a date")
    frame = frame.assign(**{time: moments})
    twice = frame.duplicated([key, time])
    if twice.any():
        where = frame.index[twice][0]
        raise InputError(f"{place}: sequence {frame.at[where, key]}: {time} = {frame.at[where, time]} stands twice")
    return frame.sort_values(time, kind="stable")


def _rows_about(tables: list[Table], group: str | None) -> tuple[dict[str, pd.DataFrame], str | None]:
    """The rows of tables that have one for each sequence, by its id or file, and the column of groups in them."""
    found: dict[str, pd.DataFrame] = {}
    shared = None
    for table in tables:
        frame = table.frame
        if (key := find(frame.columns, (*SEQUENCES, *FILES, *GROUPS))) is None:
            raise InputError(
                f"{table.place}: no column that names a sequence or its file is recognised among "
                f"{listed(frame.columns)}; call it sequence_id"
            )
        shared = group if group in frame else find([c for c in frame.columns if c != key], GROUPS)
        for position, name in enumerate(map(_plain, frame[key])):
            if name in found:
                raise InputError(f"{table.place}: row {position + 1}: sequence {name} stands twice")
            found[name] = frame.iloc[position : position + 1]
    return found, shared


def _plain(name: object) -> str:
    """A sequence's id, or its file's name without folder and suffix; numbers without leading zeros."""
    if isinstance(name, float) and name.is_integer():
        name = int(name)
    path = PurePosixPath(str(name).replace("\\", "/").removesuffix(".gz"))
    plain = path.stem if path.suffix.lower() in TABLES else path.name
    return str(int(plain)) if plain.isdecimal() else plain
