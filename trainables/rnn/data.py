"""Reads sequences of different lengths, each with one target, from arrays, pickles and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from trainables import InputError, Splits, array_digest
from trainables.base.columns import GROUPS, TARGETS
from trainables.base.files import UNLIMITED, Allowance, broken, read_files, split_of
from trainables.base.leakage import without_copies
from trainables.base.splitting import SPLITS, Splitter
from trainables.base.tables import TABLES, find, listed, read_frame
from trainables.rnn import demo
from trainables.rnn.pickles import read_npy, read_npz, read_pickle
from trainables.rnn.tables import Table, read_tables
from trainables.rnn.tables import read_inputs as read_inputs_of

ARRAYS = {".npy", ".npz", ".pkl", ".pickle"}
#: The largest float32, the type in which networks compute.
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: arrays have no single truth value
class SequenceSplit:
    """Sequences: sequence i is `values[offsets[i]:offsets[i+1]]`, with `targets[i]` and `groups[i]`.

    `values` is float32 (sum of lengths, features); `targets` and `groups` are (n,).
    """

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
    """Joins sequences (length, features) into a split. Without `groups` each sequence is a group."""
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64)
    values = np.ascontiguousarray(np.concatenate(sequences), dtype=np.float32)
    groups = np.arange(len(sequences)) if groups is None else groups
    return SequenceSplit(values, offsets, np.asarray(targets, dtype=np.float32), groups)


def join(parts: Sequence[SequenceSplit], grouped: bool = True) -> SequenceSplit:
    """Joins splits; without `grouped` each sequence is a group."""
    sequences = [part.sequence(i) for part in parts for i in range(len(part))]
    groups = np.concatenate([part.groups for part in parts]) if grouped else None
    return pack(sequences, np.concatenate([part.targets for part in parts]), groups)


def prepare(data: dict[str, Any], source: Path | None) -> Splits:
    """Prepares the user's sequences, or the demo's; see `Task.prepare`."""
    notes: list[str] = []
    chosen: dict[str, Any] = {}
    if source is None:
        made, noise = demo.make(**data["demo"])
        parts = {name: pack(*pair) for name, pair in made.items()}
        notes.append(f"data: the demo set, made by code; the best possible test MSE is {noise:.4f}")
    else:
        parts, target, group = _read(data, source, notes)
        chosen = {"target": target} | ({"group": group} if group is not None else {})
    place = str(source or "demo")
    splitter = Splitter.of(data)

    def cut(_: str, train: SequenceSplit, fraction: float) -> tuple[SequenceSplit, SequenceSplit]:
        groups = len(np.unique(train.groups))
        if groups < 2:
            raise InputError(f"{place}: {groups} group of sequences left to split; at least 2 are needed")
        stay, leave = splitter.by_group(train.groups, fraction)
        return train.take(stay), train.take(leave)

    splitter.complete(parts, cut)
    widths = {name: part.values.shape[1] for name, part in parts.items()}
    if len(set(widths.values())) > 1:
        raise InputError(f"{place}: the splits have different numbers of features: {widths}")
    keys = {name: [part.sequence(i).tobytes() for i in range(len(part))] for name, part in parts.items()}
    targets = {name: part.targets.tolist() for name, part in parts.items()}
    parts = without_copies(parts, keys, "sequences", place, notes, targets)
    lengths = parts["train"].lengths
    notes.append(f"lengths in train: {lengths.min()} to {lengths.max()}, {widths['train']} features")
    return Splits.made(place, parts, _digest, notes=tuple(notes), chosen=chosen)


def _digest(parts: list[SequenceSplit]) -> str:
    return array_digest(array for part in parts for array in (part.values, part.offsets, part.targets))


def _read(
    data: dict[str, Any], source: Path, notes: list[str]
) -> tuple[dict[str, SequenceSplit], str, str | None]:  # fmt: skip
    """The splits of the files, and the names of the target and of the groups, given or suggested."""
    tables: dict[str, list[Table]] = {}
    pieces: dict[str, list[dict[str, Any]]] = {}
    allowance = Allowance(data["max_unpacked_gb"])
    files = [*read_files(source, {*ARRAYS, *TABLES}, allowance)]
    for name, content in files:
        place = f"{source}: {name}"
        split = "train" if len(files) == 1 and source.is_file() else split_of(name)
        own = pieces.setdefault(split, [])  # the order of files decides the fingerprint
        if name.suffix.lower() in TABLES:
            table = Table(name, read_frame(content, name, place, numbers=True, allowance=allowance), place)
            tables.setdefault(split, []).append(table)
            continue
        arrays = _arrays(name, content, place, data["target"], allowance)
        if not own or arrays.keys() & own[-1].keys():
            own.append({})  # a repeated name begins the next part of the split
        own[-1].update(arrays)
    named = [key for parts_of_split in pieces.values() for arrays in parts_of_split for key in arrays]
    target, group = data["target"] or find(named, TARGETS), data["group"]
    for split in sorted(tables, key=SPLITS.index):
        train_tables = () if split == "train" else tables.get("train", ())
        arrays, target = read_tables(tables[split], target, group, notes, train_tables)
        pieces[split].append(arrays)
    target = target or "y"
    if data["group"] is None:
        group = _suggest_group(pieces.get("train", []))
    if data["group"] is None and group is not None:
        notes.append(f"sequences of one {group} stay in one split (data.group={group}, found by its name)")
    parts = {split: _joined(pieces[split], target, group, data, source, split, notes) for split in pieces}
    if "train" not in parts:
        raise InputError(f"{source}: no training data; expected arrays X and y, or a table with a row for each step")
    return parts, target, group


def _joined(
    pieces: list[dict[str, Any]], target: str, group: str | None, data: dict[str, Any], source: Path, split: str,
    notes: list[str],
) -> SequenceSplit:  # fmt: skip
    """A split of the arrays of several files."""
    place = f"{source}: {split}"
    for arrays in pieces:
        missing = [key for key in ("X", target) if key not in arrays]
        if missing:
            raise InputError(
                f"{place}: no array named {missing[0]!r}; there are {listed(arrays) or 'none'} (name the target with "
                "--set data.target=NAME)"
            )
        if data["group"] is not None and group not in arrays:
            raise InputError(f"{place}: data.group: no array named {group!r}; there are {listed(arrays)}")
    if others := sorted({key for arrays in pieces for key in arrays} - {"X", target, group}):
        notes.append(
            f"{split}: the array {others[0]} is not used" if len(others) == 1
            else f"{split}: the arrays {listed(others)} are not used"
        )  # fmt: skip
    parts = [check(arrays["X"], arrays[target], arrays.get(group) if group else None, place) for arrays in pieces]
    if len(parts) == 1:
        return parts[0]
    widths = {part.values.shape[1] for part in parts}
    if len(widths) > 1:
        raise InputError(f"{place}: files of sequences with {' and '.join(map(str, sorted(widths)))} features")
    return join(parts, grouped=group is not None and all(arrays.get(group) is not None for arrays in pieces))


def _suggest_group(pieces: list[dict[str, Any]]) -> str | None:
    """The array with the usual name of a group, one value for each sequence, and a value that repeats."""
    for name in (key for key in (pieces[0] if pieces else ()) if key.lower() in GROUPS):
        arrays = [piece.get(key, ()) for key in (name, "X") for piece in pieces]
        if not all(map(_is_list, arrays)):
            continue
        values = [value for piece in pieces for value in piece.get(name, ())]
        one_for_each = len(values) == sum(len(piece.get("X", ())) for piece in pieces)
        if one_for_each and len({str(value) for value in values}) < len(values):
            return name
    return None


def _arrays(
    name: PurePosixPath, content: bytes, place: str, target: str | None, allowance: Allowance
) -> dict[str, Any]:
    """The arrays of a file by name: the keys of a dict or `.npz`; for a single array the name of the file."""
    suffix = name.suffix.lower()
    if suffix == ".npz":
        return read_npz(content, place, allowance)
    value = (read_npy if suffix == ".npy" else read_pickle)(content, place, allowance)
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items()}
    targets = TARGETS if target is None else (target,)
    if isinstance(value, tuple) and len(value) == 2 and name.stem not in ("X", *targets):
        return {"X": value[0], target or "y": value[1]}
    return {name.stem: value}


def read_inputs(source: Path) -> list[tuple[str, np.ndarray]]:
    """Reads sequences to predict from a file, folder or zip, in the formats of training data. Targets are not used.

    Returns:
        The name and the steps (length, features) of each sequence: `FILE`, or `FILE:ID` in a file of several.

    Raises:
        InputError: the files cannot be read, or hold no sequence.
    """
    files = [*read_files(source, {*ARRAYS, *TABLES}, UNLIMITED)]
    alone = len(files) == 1 and source.is_file()
    tables: list[Table] = []
    read: list[tuple[PurePosixPath, str | None, Any]] = []
    for name, content in files:
        place = str(source) if alone else f"{source}: {name}"
        if name.suffix.lower() in TABLES:
            tables.append(Table(name, read_frame(content, name, place, numbers=True), place))
            continue
        arrays = _arrays(name, content, place, None, UNLIMITED)
        x = arrays.get("X", next(iter(arrays.values())) if alone and len(arrays) == 1 else ())
        if not _is_list(x):
            raise InputError(f"{place}: X must be a list or an array of sequences")
        if isinstance(x, np.ndarray) and x.ndim == 2 and x.dtype != object:
            x = [x]  # one sequence
        read += [(name, str(index) if len(x) > 1 else None, sequence) for index, sequence in enumerate(x)]
    if tables:
        read += read_inputs_of(tables)
    if not read:
        raise InputError(f"{source}: no sequences; expected an array X, or a table with a row for each step")
    named = []
    for name, key, sequence in read:
        label = str(source if alone else source / name) + ("" if key is None else f":{key}")
        named.append((label, _sequence(sequence, label)))
    return named


def check(sequences: Any, targets: Any, groups: Any | None, place: str) -> SequenceSplit:
    """Checks sequences, targets and groups, and packs them.

    Raises:
        InputError: a value is wrong; the message gives its index.
    """
    if not (_is_list(sequences) and _is_list(targets) and (groups is None or _is_list(groups))):
        raise InputError(f"{place}: X, the targets and the groups must be lists or arrays")
    if len(sequences) != len(targets):
        raise InputError(f"{place}: {len(sequences)} sequences in X but {len(targets)} targets")
    if not len(sequences):
        raise InputError(f"{place}: no sequence in X")
    checked: list[np.ndarray] = []
    for index, sequence in enumerate(sequences):
        array = _sequence(sequence, f"{place}: X[{index}]")
        if checked and array.shape[1] != checked[0].shape[1]:
            raise InputError(f"{place}: X[{index}]: {array.shape[1]} features, but X[0] has {checked[0].shape[1]}")
        checked.append(array)
    y = _numbers(targets, f"{place}: targets").reshape(len(targets), -1)
    if y.shape[1] != 1:
        raise InputError(f"{place}: targets: {y.shape[1]} values a sequence; expected one")
    wrong = np.flatnonzero(~(np.abs(y[:, 0]) <= LARGEST))
    if len(wrong):
        raise InputError(f"{place}: y[{wrong[0]}]: {y[wrong[0], 0]}; targets must be finite, and at most {LARGEST:.4g}")
    if groups is not None and len(groups) != len(checked):
        raise InputError(f"{place}: {len(groups)} groups for {len(checked)} sequences")
    return pack(checked, y[:, 0], None if groups is None else _group_names(groups, place))


def _sequence(sequence: Any, place: str) -> np.ndarray:
    """A sequence (length, features) float64; raises InputError unless it has steps, and numbers that float32 holds."""
    array = _numbers(sequence, place)
    if array.ndim != 2 or array.shape[1] == 0:
        raise InputError(f"{place}: shape {array.shape}; expected (length, features)")
    if not len(array):
        raise InputError(f"{place}: the sequence is empty")
    wrong = np.argwhere(~(np.abs(array) <= LARGEST))
    if len(wrong):
        step, feature = wrong[0]
        finite = np.isfinite(array[step, feature])
        hint = f"numbers are at most {LARGEST:.4g}" if finite else "fill missing values"
        raise InputError(f"{place}: {array[step, feature]} at step {step}, feature {feature}; {hint}")
    return array


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _group_names(groups: Any, place: str) -> np.ndarray:
    """Groups (n,) as numbers or texts."""
    with broken(f"{place}: groups", "not a text or a number for each sequence"):
        array = np.asarray(groups)
        if array.ndim != 1:
            raise ValueError(f"shape {array.shape!r:.40}")
        return array.astype(str) if array.dtype.kind not in "biufSU" else array


def _numbers(value: Any, place: str) -> np.ndarray:
    with broken(place, "not an array of numbers"):
        if np.iscomplexobj(value):
            raise ValueError("complex numbers")
        return np.asarray(value, dtype=np.float64)
