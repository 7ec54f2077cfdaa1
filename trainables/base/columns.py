"""Suggests which columns of a table hold the text, the label, the sequence, its steps and its target.

Each function lists its rules; the first rule that applies decides. A user overrides a suggestion by naming the column:
`data.text`, `data.label`, `data.target`, `data.group`. Names match in upper and lower case. If several columns have
usual names, the first name of the list wins. No dependency suggests columns: pandas and `datasets` ask the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from trainables.base.tables import find

#: Usual names of the columns of texts and their labels.
TEXTS = ("text", "tweet", "content", "message", "sentence", "lyric", "lyrics", "line")
TEXT_LABELS = ("label", "class", "target", "category", "artist", "y")
#: Usual names of the label of a picture.
PICTURE_LABELS = ("label", "labels", "class", "category", "target", "kind", "y")
#: Usual names of the columns that identify a sequence, order its steps, and hold its target.
SEQUENCES = ("sequence_id", "sequence", "series_id", "series", "sample_id", "sample", "case_id", "case", "id")
TIMES = ("t", "time", "step", "time_step", "timestep", "cycle", "timestamp", "datetime", "date")
TARGETS = ("target", "y", "label")
#: Usual names of arrays and columns that say which sequences come from one source.
GROUPS = (
    "group", "groups", "engine", "unit", "machine", "device", "subject", "patient", "person", "user", "session",
)  # fmt: skip
#: Usual names of the column with the file of a sequence.
FILES = ("file", "file_name", "filename", "path", "name")


@dataclass(frozen=True)
class Suggestion:
    """Suggested columns by role, and the reason for the user; the reason is empty if usual names decided."""

    columns: dict[str, str]
    reason: str = ""


def lacks_header(frame: pd.DataFrame) -> bool:
    """Whether the first row of a table of texts is a sample and not a header.

    1. A value of the first row is the usual name of a text: the row is a header.
    2. A value of the first row occurs again in its column: the row is a sample. In `good film,pos / bad film,neg /
       fine,pos` the value "pos" occurs again.
    3. The table has one column, whose first value contains a blank: the row is a sample (`good film / bad film`).
    4. Else the row is a header.

    Args:
        frame: the table, read without a header.
    """
    first = frame.iloc[0]
    if {str(value).lower() for value in first} & {*TEXTS}:
        return False
    repeated = ((frame.iloc[1:] == first) & (first != "")).any(axis=None)
    return bool(repeated) or (len(frame.columns) == 1 and " " in str(first.iloc[0]))


def suggest_texts(frame: pd.DataFrame, text: str | None, label: str | None, header: bool) -> Suggestion:
    """Suggests the columns `text` and `label` of a table of labelled texts.

    1. A column that the user named is used.
    2. Without a header, the label is the column with the fewest different values (of equals the last), and the text is
       the longest other column. `good film,pos`: text 0, label 1.
    3. The table has two columns, and at most one has a usual name. This name decides about both: in `tweet,stance` the
       label is `stance`. If no name is usual, the longer column is the text. This rule needs a label that occurs twice.
    4. Else the usual names decide, and a role without a usual name stays open.
    """
    if not header:
        if label not in frame:
            label = min(reversed(frame.columns), key=lambda column: frame[column].nunique())
        if text not in frame:
            text = max(frame.columns, key=lambda column: (column != label, _mean_length(frame[column])))
        reason = f"column {text} is the text, {label} the label (data.text, data.label)"
        return Suggestion({"text": str(text), "label": str(label)}, reason)
    if text is None and label is None and (pair := _text_and_label(frame)):
        reason = f"{pair[0]!r} is the text, {pair[1]!r} the label (data.text, data.label)"
        return Suggestion({"text": pair[0], "label": pair[1]}, reason)
    text, label = text or find(frame.columns, TEXTS), label or find(frame.columns, TEXT_LABELS)
    return Suggestion({role: name for role, name in (("text", text), ("label", label)) if name is not None})


def longest(frame: pd.DataFrame) -> str:
    """The column with the longest values on average."""
    return str(max(frame.columns, key=lambda column: _mean_length(frame[column])))


def _text_and_label(frame: pd.DataFrame) -> tuple[str, str] | None:
    """Rule 3 of `suggest_texts`; None if the rule does not apply."""
    columns = [column for column in frame.columns if not column.startswith("Unnamed")]  # row numbers of pandas
    if len(columns) != 2:
        return None
    text = next((column for column in columns if column.lower() in TEXTS), None)
    label = next((column for column in columns if column.lower() in TEXT_LABELS), None)
    if text and label:
        return None
    if text is None and label is not None:
        text = next((column for column in columns if column != label), label)
    text = text or max(columns, key=lambda column: _mean_length(frame[column]))
    label = next(column for column in columns if column != text)
    return (text, label) if frame[label].duplicated().any() else None


def _mean_length(column: pd.Series) -> float:
    return float(column.astype(str).str.len().mean())


def suggest_picture_label(columns: Sequence[str], others: Sequence[str]) -> str | None:
    """Suggests the column of labels in a table of pictures.

    1. A usual name: `file,label`.
    2. The only column of `others`, those that hold neither pictures nor splits: `file,defect`.
    """
    return find(columns, PICTURE_LABELS) or (others[0] if len(others) == 1 else None)


def suggest_steps(frame: pd.DataFrame, frames: Sequence[pd.DataFrame], target: str) -> Suggestion:
    """Suggests the columns `sequence` and `time` of a table with a row for each step.

    The sequence:

    1. A usual name of a sequence: `sequence_id,t,x,y`.
    2. A usual name of a group (`engine,cycle,x,y`) if this is the only table, or if a table of `frames` holds several
       groups. Else each table is a sequence, and the role stays open.

    The time: a usual name. Without one, steps keep the order of the rows.

    Args:
        frames: all tables of steps of the split.
    """
    group = find(frame.columns, GROUPS)
    several = len(frames) == 1 or any(group in other and other[group].nunique() > 1 for other in frames)
    key = find(frame.columns, SEQUENCES) or (group if several else None)
    time = find(frame.columns, TIMES)
    columns = {role: name for role, name in (("sequence", key), ("time", time)) if name is not None}
    if (key, time, target) == ("sequence_id", "t", "y"):
        return Suggestion(columns)
    order = f"steps by {time}" if time else f"steps in the order of the rows (no column is called {', '.join(TIMES)})"
    return Suggestion(columns, f"sequences by {key or 'file'}, {order}, the target is {target}")


def suggest_group(frame: pd.DataFrame, sequence: str) -> str | None:
    """Suggests the column of groups: a usual name, if the column has one value in each sequence.

    `engine` is a group if no sequence has two engines; else it is an input of the network.
    """
    named = [column for column in frame.columns if column.lower() in GROUPS and column != sequence]
    return next((column for column in named if (frame.groupby(sequence)[column].nunique() <= 1).all()), None)


def suggest_whole_sequences(frame: pd.DataFrame, target: str, group: str | None, alone: bool) -> list[str]:
    """Suggests the inputs of a table whose rows are whole sequences; empty if a row is a step.

    1. Columns whose cells are lists: `x=[0.1, 0.3], y=2`.
    2. All columns except key, target and group, at least two (`id,t0,t1,t2,y`), if no column is called like a time, the
       key does not repeat, and the table is not itself one sequence: it is the only table (`alone`), or its target
       varies.
    """
    lists = [column for column in frame.columns if len(frame) and isinstance(frame[column].iloc[0], list | np.ndarray)]
    if lists:
        return lists
    key = find(frame.columns, (*SEQUENCES, *GROUPS))
    if find(frame.columns, TIMES) is not None or (key is not None and frame[key].duplicated().any()):
        return []
    if not alone and frame[target].nunique() == 1:
        return []
    others = [c for c in frame.columns if c not in (key, target, group) and c.lower() not in GROUPS]
    return others if len(others) > 1 else []


def without_row_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """The table without the row numbers that pandas writes as a first column without a name."""
    first = frame.columns[0] if len(frame.columns) else ""
    numbered = first.startswith("Unnamed") and frame[first].tolist() == list(range(len(frame)))
    return frame.drop(columns=first) if numbered else frame
