"""Reads tables of sequences: a row is a step or a whole sequence. `base.columns` suggests the role of each column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from trainables import InputError
from trainables.base import columns
from trainables.base.columns import FILES, GROUPS, SEQUENCES, TARGETS
from trainables.base.tables import TABLES, find, listed
from trainables.rnn.dates import possible_orders, read_dates


@dataclass(frozen=True, eq=False)
class Table:
    """A table of the file `name`; `place` names the file in messages."""

    name: PurePosixPath
    frame: pd.DataFrame
    place: str


def read_tables(
    tables: list[Table], target: str | None, group: str | None, notes: list[str], of_train: Sequence[Table] = ()
) -> tuple[dict[str, Any], str]:
    """Reads the tables of a split as arrays: X, the target, and the group if a column holds groups.

    A table has one of these forms:

    1. A row is a step, and a column names the sequence: `sequence_id,t,x,y`. Rows are ordered by time; sequences keep
       the order in which they then first appear.
    2. A row is a step, and the file is the sequence, if there are several tables.
    3. A row is a whole sequence: cells with lists, or a column for each step.

    If the tables of steps lack the target, another table has a row for each sequence, with the target and the
    sequence's id or the name of its file.

    Args:
        target, group: the names of columns; None: suggested.
        of_train: the tables of train. One of them may hold the targets of all splits.

    Returns:
        The arrays by name, and the name of the target.

    Raises:
        InputError: a column is missing, a sequence has no target or several, or a step occurs twice.
    """
    if not _with(target, tables) and len(_with(target, of_train)) < len(of_train):
        tables = [*tables, *_with(target, of_train)]
    target = _target(tables, target)
    of_sequences = _with(target, tables)
    steps = [table for table in tables if table not in of_sequences]
    if not steps:
        steps, of_sequences = tables, []
    targets, shared_group = _rows_of_sequences(of_sequences, group)
    arrays: dict[str, Any] = {}
    inputs: list[str] = []
    date_orders = _date_orders([*steps, *of_train])
    for table in steps:
        table_notes = notes if table is steps[0] else []
        frame = columns.without_row_numbers(table.frame)
        whole = []
        if not of_sequences:
            whole = columns.suggest_whole_sequences(frame, target, group, alone=len(steps) == 1)
        if whole:
            read = _whole_sequences(table, frame, target, group, whole, table_notes)
        else:
            suggestion = columns.suggest_steps(frame, [step.frame for step in steps], target)
            frame, key = _with_key(table, frame, suggestion.columns.get("sequence"), alone=len(tables) == 1)
            time = suggestion.columns.get("time")
            group = group or shared_group or (None if of_sequences else columns.suggest_group(frame, key))
            # Columns of the tables with a row for each sequence.
            elsewhere: set[str | None] = {target} if of_sequences else set()
            if shared_group not in frame:
                elsewhere.add(shared_group)
            given = [c for c in (key, time, target, group) if c is not None and c not in elsewhere]
            inputs = inputs or [column for column in frame.columns if column not in given]
            _check_columns(frame, given, inputs, target, table.place)
            if suggestion.reason:
                table_notes.append(f"{table.name}: {suggestion.reason}")
            sequences = _ordered(frame, key, time, date_orders, table, table_notes).groupby(key, sort=False)
            if of_sequences:
                _check_all_known(sequences, targets, of_sequences[0].place, table.place)
            read = _sequences_of_steps(table, sequences, inputs, target, group, targets if of_sequences else None)
        for name, values in read.items():
            arrays.setdefault(name, []).extend(values)
    return arrays, target


def read_inputs(tables: list[Table]) -> list[tuple[PurePosixPath, str | None, np.ndarray]]:
    """Reads sequences to predict, in the forms of `read_tables`; the target may be missing.

    A table without a column that names the sequence, whose target does not vary, is one sequence: a row is a step.

    Returns:
        For each sequence the name of its table, its id or row in a table of several, and its steps (length, features).

    Raises:
        InputError: a value is no number, or a step occurs twice.
    """
    without_target = [table for table in tables if find(table.frame.columns, TARGETS) is None]
    tables = without_target or tables  # targets may stand in a table of their own
    read: list[tuple[PurePosixPath, str | None, np.ndarray]] = []
    date_orders = _date_orders(tables)
    for table in tables:
        frame = columns.without_row_numbers(table.frame)
        target = find(frame.columns, TARGETS)
        if target is None:
            target = TARGETS[0]
            frame = frame.assign(**{target: 0.0})
        key = find(frame.columns, (*SEQUENCES, *GROUPS))
        whole = columns.suggest_whole_sequences(frame, target, None, alone=True)
        lists = bool(whole) and pd.api.types.is_object_dtype(frame[whole[0]])
        if whole and (lists or key is not None or frame[target].nunique() > 1):
            sequences = _whole_sequences(table, frame, target, None, whole, [])["X"]
            ids = frame[key] if key is not None else range(1, len(frame) + 1)
            read += [(table.name, str(name), steps) for name, steps in zip(ids, sequences, strict=True)]
            continue
        roles = columns.suggest_steps(frame, [other.frame for other in tables], target).columns
        frame, key = _with_key(table, frame, roles.get("sequence"), alone=False)
        group = columns.suggest_group(frame, key)
        given = [column for column in (key, roles.get("time"), target, group) if column is not None]
        inputs = [column for column in frame.columns if column not in given]
        _check_columns(frame, given, inputs, target, table.place)
        rows_of = dict(iter(_ordered(frame, key, roles.get("time"), date_orders, table, []).groupby(key, sort=False)))
        several = "sequence" in roles and len(rows_of) > 1
        for name in frame[key].unique():
            values = rows_of[name][inputs].to_numpy(dtype=np.float64)
            read.append((table.name, str(name) if several else None, values))
    return read


def _target(tables: list[Table], target: str | None) -> str:
    """The column of the target: the given one, or a usual name; raises InputError if it is missing."""
    names = [column for table in tables for column in table.frame.columns]
    target = target or find(names, TARGETS)
    if target is None or target not in names:
        wanted = f"no column {target!r}" if target else f"no column is called {', '.join(TARGETS)}"
        raise InputError(
            f"{tables[0].place}: {wanted}; there are {listed(dict.fromkeys(names))}; name the column to predict with "
            "--set data.target=NAME"
        )
    return target


def _with_key(table: Table, frame: pd.DataFrame, key: str | None, alone: bool) -> tuple[pd.DataFrame, str]:
    """The table with a column that names the sequence, and this column. Without one, the file is the sequence."""
    if key is not None:
        return frame, key
    if alone:
        raise InputError(
            f"{table.place}: no column that names the sequence is recognised among {listed(frame.columns)}; call it "
            "sequence_id"
        )
    return frame.assign(**{SEQUENCES[0]: table.name.stem}), SEQUENCES[0]


def _check_all_known(sequences: Any, targets: dict[str, pd.DataFrame], place: str, steps_place: str) -> None:
    missing = [name for name, _ in sequences if _normalised_id(name) not in targets]
    if missing:
        raise InputError(f"{place}: no row for sequence {missing[0]} of {steps_place}")


def _with(column: str | None, tables: Sequence[Table]) -> list[Table]:
    return [table for table in tables if column in table.frame.columns]


def _sequences_of_steps(
    table: Table, sequences: Any, inputs: list[str], target: str, group: str | None,
    row_of: dict[str, pd.DataFrame] | None,
) -> dict[str, list[Any]]:  # fmt: skip
    """The arrays of a table whose rows are steps.

    Args:
        row_of: the row of each sequence with its target; None if the rows of steps hold the target.
    """
    arrays: dict[str, list[Any]] = {"X": [], target: []} | ({group: []} if group else {})
    for name, rows in sequences:
        own = rows if row_of is None else row_of[_normalised_id(name)]
        if row_of is None and rows[target].nunique(dropna=False) != 1:
            raise InputError(
                f"{table.place}: sequence {name}: {target} must be one value, but there are several (name the column "
                "to predict with --set data.target=NAME)"
            )
        arrays["X"].append(rows[inputs].to_numpy(dtype=np.float64))
        arrays[target].append(own[target].iloc[0])
        if group is not None:
            arrays[group].append((own if group in own else rows)[group].iloc[0])
    return arrays


def _whole_sequences(
    table: Table, frame: pd.DataFrame, target: str, group: str | None, inputs: list[str], notes: list[str]
) -> dict[str, list[Any]]:
    """The arrays of a table with a row for each sequence. Empty cells at the end of a row are no steps.

    Args:
        inputs: the columns with lists, or with a step each.
    """
    others = [c for c in frame.columns if c in (target, group) or c.lower() in GROUPS]
    if pd.api.types.is_object_dtype(frame[inputs[0]]):
        notes.append(f"{table.name}: a row is a sequence, the lists in {listed(inputs)}; the target is {target}")
        cells = frame[inputs].to_numpy()
    else:
        notes.append(f"{table.name}: a row is a sequence of up to {len(inputs)} steps; the target is {target}")
        cells = np.empty((len(frame), 1), dtype=object)
        _check_columns(frame[[*inputs, target]], [target], inputs, target, table.place)
        values = frame[inputs].to_numpy(dtype=np.float64)
        lengths = len(inputs) - np.isnan(values)[:, ::-1].argmin(1)
        cells[:, 0] = [row[:length] for row, length in zip(values, lengths, strict=True)]
    sequences = []
    for number, row in enumerate(cells, 1):
        try:
            parts = [np.array([np.asarray(step, dtype=np.float64) for step in cell]) for cell in row]
            sequences.append(np.column_stack(parts))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{table.place}: row {number}: {listed(inputs)}: lists of numbers, of one length, are needed"
            ) from error
    return {"X": sequences, **{name: frame[name].tolist() for name in others}}


def _check_columns(frame: pd.DataFrame, given: list[str], inputs: list[str], target: str, place: str) -> None:
    if absent := [c for c in given if c not in frame.columns]:
        raise InputError(f"{place}: no column {absent[0]!r}; there are {listed(frame.columns)}")
    if not inputs:
        raise InputError(f"{place}: no feature column beside {', '.join(given)}")
    if lacking := [c for c in inputs if c not in frame.columns]:
        raise InputError(f"{place}: no column {lacking[0]!r}, which the table before has")
    if more := [c for c in frame.columns if c not in (*inputs, *given)]:
        raise InputError(f"{place}: column {more[0]!r}, which the table before lacks")
    words = [c for c in (*inputs, target) if c in frame and not pd.api.types.is_numeric_dtype(frame[c])]
    if words:
        raise InputError(f"{place}: column {words[0]!r} holds {frame[words[0]].dtype}; numbers are needed")


def _date_orders(tables: Sequence[Table]) -> Callable[[str, str], list[str]]:
    """A function of a column and its name in messages, which returns the orders of day, month and year in all tables.

    The orders of a column are computed once: a folder may hold a table for each of thousands of sequences.
    """
    orders: dict[str, list[str]] = {}

    def of_column(column: str, shown: str) -> list[str]:
        if column not in orders:
            dates = pd.concat([table.frame[column] for table in _with(column, tables)])
            orders[column] = possible_orders(dates.unique(), shown)
        return orders[column]

    return of_column


def _ordered(
    frame: pd.DataFrame, key: str, time: str | None, date_orders: Callable[[str, str], list[str]], table: Table,
    notes: list[str],
) -> pd.DataFrame:  # fmt: skip
    """The rows of a table in the order of time, which may be numbers or dates.

    Args:
        date_orders: the result of `_date_orders`.

    Raises:
        InputError: a row has no sequence or no time, the order of day and month is unclear, or a step occurs twice.
    """
    place = table.place
    missing_keys = np.flatnonzero(frame[key].isna())
    if len(missing_keys):
        raise InputError(f"{place}: row {missing_keys[0] + 1}: no {key}")
    if time is None:
        return frame
    times = frame[time]
    if not pd.api.types.is_numeric_dtype(times):
        times = read_dates(times, frame[key], partial(date_orders, time), place, notes)
    unreadable = np.flatnonzero(times.isna())
    if len(unreadable):
        row = int(unreadable[0])
        raise InputError(f"{place}: row {row + 1}: {time} = {frame[time].iloc[row]!r}: neither a number nor a date")
    frame = frame.assign(**{time: times})
    twice = frame.duplicated([key, time])
    if twice.any():
        where = frame.index[twice][0]
        raise InputError(f"{place}: sequence {frame.at[where, key]}: {time} = {frame.at[where, time]} occurs twice")
    return frame.sort_values(time, kind="stable")


def _rows_of_sequences(tables: list[Table], group: str | None) -> tuple[dict[str, pd.DataFrame], str | None]:
    """Reads tables with a row for each sequence.

    Returns:
        The row of each sequence by its normalised id or file, and the column of groups in these tables.
    """
    rows: dict[str, pd.DataFrame] = {}
    shared_group = None
    for table in tables:
        frame = table.frame
        if (key := find(frame.columns, (*SEQUENCES, *FILES, *GROUPS))) is None:
            raise InputError(
                f"{table.place}: no column that names a sequence or its file is recognised among "
                f"{listed(frame.columns)}; call it sequence_id"
            )
        shared_group = group if group in frame else find([c for c in frame.columns if c != key], GROUPS)
        for position, name in enumerate(map(_normalised_id, frame[key])):
            if name in rows:
                raise InputError(f"{table.place}: row {position + 1}: sequence {name} occurs twice")
            rows[name] = frame.iloc[position : position + 1]
    return rows, shared_group


def _normalised_id(name: object) -> str:
    """A sequence's id, or the name of its file without folder and suffix. Numbers lose leading zeros: `007` is `7`."""
    if isinstance(name, float) and name.is_integer():
        name = int(name)
    path = PurePosixPath(str(name).replace("\\", "/").removesuffix(".gz"))
    plain = path.stem if path.suffix.lower() in TABLES else path.name
    return str(int(plain)) if plain.isdecimal() else plain
