"""Sequences of different lengths with one target each: reads arrays, pickles and long tables into flat arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from trainables import DataInfo, InputError, Splits, array_digest
from trainables.base.files import read_files
from trainables.base.tables import NO_TABLES, TABLES, listed, read_frame
from trainables.rnn import demo
from trainables.rnn.pickles import read_npy, read_npz, read_pickle

ARRAYS = {".npy", ".npz", ".pkl", ".pickle"}
SPLITS = ("train", "val", "test")
#: Names of arrays and columns that say which sequences come from one source.
GROUP_NAMES = (
    "group",
    "groups",
    "engine",
    "unit",
    "machine",
    "device",
    "subject",
    "patient",
    "person",
    "user",
    "session",
)


@dataclass(frozen=True, eq=False)  # arrays have no equality of their own; a split equals itself alone
class SequenceSplit:
    """Sequences: `values` float32 (sum of lengths, features), of which sequence i is the rows
    `offsets[i]:offsets[i+1]`; `targets` (n,) and `groups` (n,)."""

    values: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def lengths(self) -> np.ndarray:
        """The length of each sequence, (n,)."""
        return np.diff(self.offsets)

    def sequence(self, index: int) -> np.ndarray:
        """One sequence, (length, features)."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def take(self, index: np.ndarray) -> SequenceSplit:
        """The sequences at these positions."""
        return pack([self.sequence(i) for i in index], self.targets[index], self.groups[index])


def pack(sequences: list[np.ndarray], targets: np.ndarray, groups: np.ndarray | None = None) -> SequenceSplit:
    """Joins sequences (length, features) into a split; without `groups` each is a group of its own."""
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64)
    values = np.ascontiguousarray(np.concatenate(sequences), dtype=np.float32)
    groups = np.arange(len(sequences)) if groups is None else groups
    return SequenceSplit(values, offsets, np.asarray(targets, dtype=np.float32), groups)


def prepare(data: dict[str, Any], source: Path | None) -> Splits:
    """Prepares the user's sequences, or the demo's; see `Task.prepare`."""
    notes: list[str] = []
    chosen: dict[str, Any] = {}
    if source is None:
        made, noise = demo.make(**data["demo"])
        parts = {name: pack(*pair) for name, pair in made.items()}
        notes.append(f"data: the demo set, made by code; the best possible test MSE is {noise:.4f}")
    else:
        parts, group = _read(data, source, notes)
        chosen = {"group": group} if group is not None else {}
    train, place = parts["train"], str(source or "demo")
    for name, fraction in (("test", data["test_fraction"]), ("val", data["val_fraction"])):
        if name not in parts:
            train, parts[name] = _split_off(train, fraction, data["split_seed"], place)
    widths = {name: part.values.shape[1] for name, part in parts.items()}
    if len(set(widths.values())) > 1:
        raise InputError(f"{place}: widths differ between the splits: {widths}")
    parts["train"] = train
    contents = [array for part in parts.values() for array in (part.values, part.offsets, part.targets)]
    test = parts["test"]
    lengths = train.lengths
    notes.append(f"lengths in train: {lengths.min()} to {lengths.max()}, {train.values.shape[1]} features")
    info = DataInfo(
        source=place,
        fingerprint=array_digest(contents),
        test_fingerprint=array_digest([test.values, test.offsets, test.targets]),
        sizes={name: len(parts[name]) for name in SPLITS},
        notes=tuple(notes),
        chosen=chosen,
    )
    return Splits(train, parts["val"], test, info)


def _read(data: dict[str, Any], source: Path, notes: list[str]) -> tuple[dict[str, SequenceSplit], str | None]:
    """The splits that the files give, and the name of the groups, given or found."""
    found: dict[str, dict[str, Any]] = {}
    for name, content in read_files(source, {*ARRAYS, *TABLES}, data["max_unpacked_gb"]):
        if name.name in NO_TABLES:
            continue
        split = next((s for s in SPLITS if s in str(name).lower()), "train")
        arrays = found.setdefault(split, {})
        for key, value in _arrays(name, content, f"{source}: {name}", data).items():
            arrays[key] = value
    parts = {}
    group, target = data["group"], data["target"]
    if group is None and (group := _find_group(found.get("train", {}))) is not None:
        notes.append(f"sequences of one {group} stay in one split (data.group={group}, found by its name)")
    for split, arrays in found.items():
        missing = [key for key in ("X", target) if key not in arrays]
        if missing:
            raise InputError(
                f"{source}: {split}: no array named {missing[0]!r}; there are {', '.join(arrays) or 'none'}"
            )
        if data["group"] is not None and group not in arrays:
            raise InputError(f"{source}: {split}: data.group: no array named {group!r}; there are {', '.join(arrays)}")
        others = sorted(set(arrays) - {"X", target, group})
        if others:
            notes.append(
                f"{split}: not used: {listed(others)} (the target is --set data.target=NAME, what belongs together "
                "--set data.group=NAME)"
            )
        parts[split] = check(arrays["X"], arrays[target], arrays.get(group) if group else None, f"{source}: {split}")
    if "train" not in parts:
        raise InputError(f"{source}: no training data; expected arrays X and {data['target']}, or a long table")
    return parts, group


def _find_group(arrays: dict[str, Any]) -> str | None:
    """The array that is called like a group and whose values repeat over sequences."""
    for name, values in arrays.items():
        one_each = name.lower() in GROUP_NAMES and len(values) == len(arrays.get("X", ()))
        if one_each and len({str(value) for value in values}) < len(values):
            return name
    return None


def _arrays(name: PurePosixPath, content: bytes, place: str, data: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a file by name: the keys of a dict or `.npz`, the file's name for a single array."""
    suffix = name.suffix.lower()
    if suffix in TABLES:
        return read_table(content, name, place, data["target"], data["group"])
    if suffix == ".npz":
        return read_npz(content, place)
    value = read_npy(content, place) if suffix == ".npy" else read_pickle(content, place)
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, tuple) and len(value) == 2 and name.stem not in ("X", data["target"]):
        return {"X": value[0], data["target"]: value[1]}
    return {name.stem: value}


def read_table(content: bytes, name: PurePosixPath, place: str, target: str, group: str | None) -> dict[str, Any]:
    """Reads a long table (`sequence_id, t, x0, x1, ..., target`) as arrays X and target, in order of first appearance.

    Raises:
        InputError: a column is missing, or a sequence has two targets or the same step twice.
    """
    frame = read_frame(content, name, place, numbers=True)
    if group is None:  # one that is constant in each sequence; else it is a feature
        named = [c for c in frame.columns if str(c).lower() in GROUP_NAMES]
        constant = [
            c for c in named if "sequence_id" in frame and (frame.groupby("sequence_id")[c].nunique() <= 1).all()
        ]
        group = constant[0] if constant else None
    given = [c for c in ("sequence_id", "t", target, group) if c is not None]
    absent = [c for c in given if c not in frame.columns]
    if absent:
        raise InputError(f"{place}: no column {absent[0]!r}; there are {listed(frame.columns)}")
    features = [c for c in frame.columns if c not in given]
    if not features:
        raise InputError(f"{place}: no feature column beside {', '.join(given)}")
    words = [c for c in (*features, target) if not pd.api.types.is_numeric_dtype(frame[c])]
    if words:
        raise InputError(f"{place}: column {words[0]!r} holds {frame[words[0]].dtype}; numbers are needed")
    twice = frame.duplicated(["sequence_id", "t"])
    if twice.any():
        where = frame.index[twice][0]
        raise InputError(f"{place}: sequence {frame.at[where, 'sequence_id']}: t = {frame.at[where, 't']} stands twice")
    arrays: dict[str, Any] = {"X": [], target: []} | ({group: []} if group else {})
    for key, rows in frame.sort_values("t", kind="stable").groupby("sequence_id", sort=False):
        if rows[target].nunique(dropna=False) != 1:
            raise InputError(f"{place}: sequence {key}: {target} must be one value, but there are several")
        arrays["X"].append(rows[features].to_numpy(dtype=np.float64))
        for column in (target, group) if group else (target,):
            arrays[column].append(rows[column].iloc[0])
    return arrays


def check(sequences: Any, targets: Any, groups: Any | None, place: str) -> SequenceSplit:
    """Checks sequences, targets and groups, and packs them; raises InputError with the index of what is wrong."""
    if not isinstance(sequences, (list, tuple, np.ndarray)) or not isinstance(targets, (list, tuple, np.ndarray)):
        raise InputError(f"{place}: X and the targets must be lists or arrays")
    if len(sequences) != len(targets):
        raise InputError(f"{place}: {len(sequences)} sequences in X but {len(targets)} targets")
    if not len(sequences):
        raise InputError(f"{place}: no sequence in X")
    checked: list[np.ndarray] = []
    for index, sequence in enumerate(sequences):
        array = _numbers(sequence, f"{place}: X[{index}]")
        if array.ndim != 2 or array.shape[1] == 0:
            raise InputError(f"{place}: X[{index}]: shape {array.shape}; expected (length, features)")
        if not len(array):
            raise InputError(f"{place}: X[{index}]: the sequence is empty")
        if checked and array.shape[1] != checked[0].shape[1]:
            raise InputError(f"{place}: X[{index}]: {array.shape[1]} features, but X[0] has {checked[0].shape[1]}")
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            step, feature = bad[0]
            raise InputError(f"{place}: X[{index}]: {array[step, feature]} at step {step}, feature {feature}")
        checked.append(array)
    y = _numbers(targets, f"{place}: targets").reshape(len(targets), -1)
    if y.shape[1] != 1:
        raise InputError(f"{place}: targets: {y.shape[1]} values a sequence; expected one")
    wrong = np.flatnonzero(~np.isfinite(y[:, 0]))
    if len(wrong):
        raise InputError(f"{place}: y[{wrong[0]}]: {y[wrong[0], 0]}; targets must be finite")
    if groups is not None and len(groups) != len(checked):
        raise InputError(f"{place}: {len(groups)} groups for {len(checked)} sequences")
    return pack(checked, y[:, 0], None if groups is None else np.asarray(groups))


def _numbers(value: Any, place: str) -> np.ndarray:
    try:
        return np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"{place}: not an array of numbers ({error})") from error


def _split_off(split: SequenceSplit, fraction: float, seed: int, place: str) -> tuple[SequenceSplit, SequenceSplit]:
    """Splits off a fraction of the groups, as sequences of one group must not be on both sides."""
    groups = np.unique(split.groups)
    if len(groups) < 2:
        raise InputError(f"{place}: {len(groups)} group of sequences left to split; at least 2 are needed")
    shuffled = np.random.default_rng(seed).permutation(groups)
    taken = shuffled[: min(max(1, round(fraction * len(groups))), len(groups) - 1)]
    mask = np.isin(split.groups, taken)
    return split.take(np.flatnonzero(~mask)), split.take(np.flatnonzero(mask))
