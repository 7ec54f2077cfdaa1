"""Reads labelled texts, drops duplicates, and splits the texts by class."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from trainables.base.errors import InputError
from trainables.base.files import SPLIT_WORDS, Allowance, read_files, split_of
from trainables.base.splitting import SPLITS, Splitter
from trainables.base.tables import TABLES, listed
from trainables.base.task import Splits, array_digest
from trainables.text.duplicates import clean, remove_overlap


@dataclass(frozen=True)
class TextSplit:
    """`texts` (n,) of str and `labels` (n,) int64, indices of the classes."""

    texts: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> TextSplit:
        """The texts at these positions."""
        return TextSplit(self.texts[index], self.labels[index])


#: Reads one file of labelled texts into a frame of two string columns, `text` and `label`. The frame's `attrs["notes"]`
#: holds sentences for the user.
Reader = Callable[[bytes, PurePosixPath, str, Allowance], pd.DataFrame]


def prepare(data: dict[str, Any], source: Path, read: Reader, suffixes: Collection[str] = TABLES) -> Splits:
    """Reads the texts at `source` as splits. Missing splits are cut off train, stratified by class.

    Args:
        data: the `data` section of the configuration.
        read: reads one file.

    Raises:
        InputError: the texts cannot be used; the message names the file, the line or the column.
    """
    frames: dict[str, list[pd.DataFrame]] = {}
    allowance = Allowance(data["max_unpacked_gb"])
    files = [*read_files(source, suffixes, allowance)]
    common = _common_folders([name for name, _ in files])
    for name, content in files:
        path = PurePosixPath(*name.parts[common:])
        place = str(source) if source.is_file() and len(name.parts) == 1 else str(source / name)
        alone = len(files) == 1 and source.is_file()  # a single file is train, whatever its name is
        split = "train" if alone else split_of(path, whole=path.suffix.lower() not in TABLES)
        frames.setdefault(split, []).append(read(content, path, place, allowance))
    notes = [note for parts in frames.values() for frame in parts for note in frame.attrs.get("notes", ())]
    together = {split: clean(pd.concat(parts, ignore_index=True), split, notes) for split, parts in frames.items()}
    if "train" not in together:
        raise InputError(f"{source}: there is a {' and a '.join(together)} split but no train")
    return split_up(remove_overlap(together, str(source), notes), data, str(source), notes)


def split_up(frames: dict[str, pd.DataFrame], data: dict[str, Any], source: str, notes: list[str]) -> Splits:
    """Makes `Splits` of frames with `text` and `label`, by split. The classes are those of train, sorted.

    Raises:
        InputError: a split is empty, train has one class, another split has a class that train lacks, or a class has
            too few texts to split and `data.rare` is null.
    """
    rare = data.get("rare")
    if rare not in (None, "drop", "train"):
        raise InputError(f"data.rare: {rare!r}: must be drop, train or null")
    if rare == "drop":
        frames = _without_rare(frames, notes)
    empty = [split for split, frame in frames.items() if frame.empty]
    if empty:
        raise InputError(f"{source}: {', '.join(empty)}: no texts are left of it; a label and a text are needed")
    classes = tuple(sorted(frames["train"]["label"].unique()))
    if len(classes) < 2:
        raise InputError(f"{source}: only one label, {classes[0]!r:.60}; at least two are needed")
    for split, frame in frames.items():
        if unknown := sorted(set(frame["label"]) - set(classes)):
            raise InputError(f"{source}: {split}: label {unknown[0]!r:.60} is not in train ({listed(classes)})")
    codes = {label: code for code, label in enumerate(classes)}
    parts = {
        split: TextSplit(frame["text"].to_numpy(dtype=object), frame["label"].map(codes).to_numpy(dtype=np.int64))
        for split, frame in frames.items()
    }
    splitter = Splitter.of(data)

    def refuse(code: int, count: int) -> InputError | None:
        if rare == "train":
            return None
        return InputError(
            f"{source}: label {classes[code]!r:.60} has {count} text left to split; at least 2 are needed "
            "(--set data.rare=drop leaves such classes out, data.rare=train keeps them in train)"
        )

    def cut(name: str, train: TextSplit, fraction: float) -> tuple[TextSplit, TextSplit]:
        stay, leave = splitter.by_class(train.labels, fraction, refuse, len(classes))
        if not len(leave):
            raise InputError(f"{source}: no text can be cut off for {name}: every label has a single text")
        return train.take(stay), train.take(leave)

    splitter.complete(parts, cut)
    counts = np.bincount(parts["train"].labels, minlength=len(classes))
    notes.append("classes in train: " + ", ".join(f"{c} {n}" for c, n in zip(classes, counts, strict=True)))

    def digest(some: list[TextSplit]) -> str:
        texts = ("\0".join(part.texts).encode() for part in some)
        return array_digest([*texts, *(part.labels for part in some), "\0".join(classes).encode()])

    parts = {split: parts[split] for split in SPLITS}
    return Splits.made(source, parts, digest, classes=classes, notes=tuple(notes))


def _without_rare(frames: dict[str, pd.DataFrame], notes: list[str]) -> dict[str, pd.DataFrame]:
    """Leaves out classes with fewer texts than the number of splits that are made of train."""
    counts = frames["train"]["label"].value_counts()
    small = sorted(counts.index[counts < 1 + len({"val", "test"} - set(frames))])
    if not small:
        return frames
    notes.append(f"data.rare=drop: left out for too few texts: {listed(small)}")
    return {split: frame[~frame["label"].isin(small)].reset_index(drop=True) for split, frame in frames.items()}


def _common_folders(names: list[PurePosixPath]) -> int:
    """The number of leading folders that all names share, as in a zip of one folder. It ends at the name of a split."""
    shared = 0
    while all(len(n.parts) > shared + 1 and n.parts[shared] == names[0].parts[shared] for n in names):
        if names[0].parts[shared].lower() in SPLIT_WORDS:
            break
        shared += 1
    return shared
