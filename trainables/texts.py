"""Labelled texts: read from tables, checked, split by class."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from trainables.files import read_files
from trainables.task import DataInfo, InputError, Splits, array_digest

TABLES = {".csv": ",", ".tsv": "\t", ".parquet": None}
#: Columns that are taken where none is named, in this order.
TEXT_NAMES = ("text", "tweet", "content", "message", "sentence", "lyric", "lyrics", "line")
LABEL_NAMES = ("label", "class", "target", "category", "artist", "y")
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}


@dataclass(frozen=True)
class TextSplit:
    """`texts` (n,) of str and `labels` (n,) int64, indices of the classes."""

    texts: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> TextSplit:
        return TextSplit(self.texts[index], self.labels[index])


#: Reads one file of labelled texts into a frame of two string columns, `text` and `label`.
Reader = Callable[[bytes, PurePosixPath, str], pd.DataFrame]


def prepare(data: dict[str, Any], source: Path, read: Reader, suffixes: Collection[str] = TABLES) -> Splits:
    """The texts at `source` as splits; a split that is not given is cut off train, each class in proportion.

    Raises:
        InputError: naming the file, the line or the column, and what is allowed.
    """
    frames: dict[str, list[pd.DataFrame]] = {}
    files = [(name, content) for name, content in read_files(source, suffixes, data["max_unpacked_gb"])]
    below = _common_folders([name for name, _ in files])
    for name, content in files:
        part = PurePosixPath(*name.parts[below:])
        frames.setdefault(split_of(part), []).append(read(content, part, str(source / name)))
    notes: list[str] = []
    together = {split: clean(pd.concat(parts, ignore_index=True), split, notes) for split, parts in frames.items()}
    if "train" not in together:
        raise InputError(f"{source}: there is a {' and a '.join(together)} split but no train")
    _without_overlap(together, notes)
    return split_up(together, data, str(source), notes)


def split_up(frames: dict[str, pd.DataFrame], data: dict[str, Any], source: str, notes: list[str]) -> Splits:
    """Frames of `text` and `label` by split as `Splits`; classes are those of train, in alphabetical order."""
    empty = [split for split, frame in frames.items() if frame.empty]
    if empty:
        raise InputError(f"{source}: {', '.join(empty)}: no texts are left of it; a label and a text are needed")
    classes = tuple(sorted(frames["train"]["label"].unique()))
    if len(classes) < 2:
        raise InputError(f"{source}: only one label, {classes[0]!r}; at least two are needed")
    for split, frame in frames.items():
        if unknown := sorted(set(frame["label"]) - set(classes)):
            raise InputError(f"{source}: {split}: label {unknown[0]!r} does not stand in train ({', '.join(classes)})")
    codes = {label: code for code, label in enumerate(classes)}
    parts = {
        split: TextSplit(frame["text"].to_numpy(dtype=object), frame["label"].map(codes).to_numpy(dtype=np.int64))
        for split, frame in frames.items()
    }
    for name, fraction in (("test", data["test_fraction"]), ("val", data["val_fraction"])):
        if name not in parts:
            parts["train"], parts[name] = stratified(parts["train"], classes, fraction, data["split_seed"], source)
    counts = np.bincount(parts["train"].labels, minlength=len(classes))
    notes.append("classes in train: " + ", ".join(f"{c} {n}" for c, n in zip(classes, counts, strict=True)))
    info = DataInfo(
        source=source,
        fingerprint=_digest([parts[name] for name in ("train", "val", "test")], classes),
        test_fingerprint=_digest([parts["test"]], classes),
        sizes={name: len(parts[name]) for name in ("train", "val", "test")},
        classes=classes,
        notes=tuple(notes),
    )
    return Splits(parts["train"], parts["val"], parts["test"], info)


def _digest(parts: list[TextSplit], classes: tuple[str, ...]) -> str:
    texts = ("\0".join(part.texts).encode() for part in parts)
    return array_digest([*texts, *(part.labels for part in parts), "\0".join(classes).encode()])


def _common_folders(names: list[PurePosixPath]) -> int:
    """How many leading folders all names share, such as the one that a zip was made of; a split's name is none."""
    shared = 0
    while all(len(n.parts) > shared + 1 and n.parts[shared] == names[0].parts[shared] for n in names):
        if names[0].parts[shared].lower() in SPLITS:
            break
        shared += 1
    return shared


def split_of(name: PurePosixPath) -> str:
    """The split that a file's name, or its folder's, says it is; train where neither says."""
    for part in (name.stem.lower(), *(folder.lower() for folder in reversed(name.parts[:-1]))):
        if part in SPLITS:
            return SPLITS[part]
    return "train"


def decode(content: bytes, place: str) -> str:
    """UTF-8 text, with or without a byte order mark.

    Raises:
        InputError: with the line and the byte that is not UTF-8.
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
    """A CSV, TSV or Parquet table as columns `text` and `label`, the values as they stand, no text taken for NaN.

    Args:
        text, label: names of the columns; None: the first that is called like one.
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
    """The texts of a table, the column being called like one."""
    frame = _table(content, name, place)
    return [str(text) for text in frame[_column(list(frame.columns), None, TEXT_NAMES, "text", place)].fillna("")]


def _table(content: bytes, name: PurePosixPath, place: str) -> pd.DataFrame:
    try:
        if name.suffix.lower() == ".parquet":
            frame = pd.read_parquet(io.BytesIO(content))
        else:
            separator = TABLES[name.suffix.lower()]
            frame = pd.read_csv(io.StringIO(decode(content, place)), sep=separator, dtype=str, keep_default_na=False)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise InputError(f"{place}: cannot be read as a table ({str(error).strip().splitlines()[0]})") from error
    frame.columns = pd.Index([str(column) for column in frame.columns])
    return frame


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


def clean(frame: pd.DataFrame, split: str, notes: list[str]) -> pd.DataFrame:
    """Without empty texts and repeated ones, and a note of how many were left out."""
    empty = frame["text"].str.strip() == ""
    if empty.any():
        notes.append(f"{split}: {int(empty.sum())} empty texts left out")
        frame = frame[~empty]
    again = frame.duplicated("text")
    if again.any():
        other = frame.groupby("text")["label"].nunique()
        notes.append(
            f"{split}: {int(again.sum())} repeated texts left out, the first of each kept"
            + (f"; {n} of them stand there with two labels" if (n := int((other > 1).sum())) else "")
        )
        frame = frame[~again]
    return frame.reset_index(drop=True)


def _without_overlap(frames: dict[str, pd.DataFrame], notes: list[str]) -> None:
    """Texts of validation and test that train holds too leave train: they would be tested on what was learned."""
    held = set().union(*(set(frame["text"]) for split, frame in frames.items() if split != "train"))
    both = frames["train"]["text"].isin(held)
    if both.any():
        notes.append(f"train: {int(both.sum())} texts left out that val or test hold too")
        frames["train"] = frames["train"][~both].reset_index(drop=True)
    if "val" in frames and "test" in frames:
        both = frames["val"]["text"].isin(set(frames["test"]["text"]))
        if both.any():
            notes.append(f"val: {int(both.sum())} texts left out that test holds too")
            frames["val"] = frames["val"][~both].reset_index(drop=True)


def stratified(
    split: TextSplit, classes: tuple[str, ...], fraction: float, seed: int, place: str
) -> tuple[TextSplit, TextSplit]:
    """What stays and what is cut off, `fraction` of every class, at least one of each.

    Raises:
        InputError: a class has too few texts for both.
    """
    rng = np.random.default_rng(seed)
    taken = np.zeros(len(split), dtype=bool)
    for code, name in enumerate(classes):
        members = np.flatnonzero(split.labels == code)
        if len(members) < 2:
            raise InputError(f"{place}: label {name!r} has {len(members)} text left to split; at least 2 are needed")
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        taken[rng.permutation(members)[:count]] = True
    return split.take(np.flatnonzero(~taken)), split.take(np.flatnonzero(taken))


def merge(splits: Splits) -> TextSplit:
    """Train and validation together."""
    both = (splits.train, splits.val)
    return TextSplit(np.concatenate([s.texts for s in both]), np.concatenate([s.labels for s in both]))
