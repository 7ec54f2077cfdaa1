"""What a look at pictures shows: those that validation and test share with train, under whatever name, and examples."""

from __future__ import annotations

from functools import partial
from typing import BinaryIO

import numpy as np
import pandas as pd
from PIL import Image

from trainables.base import plots
from trainables.base.survey import SHOWN, Finding, drawn, evenly
from trainables.base.task import Splits
from trainables.windows.data import ImageSplit

#: Side of the perceptual hash, so 256 bits, and how many of them the same picture may differ in.
SIDE, APART = 16, 32
#: Pictures of train, and of validation and test each, that are looked at.
TRAIN, HELD_OUT = 20_000, 2_000
GRID, EXAMPLES = 10, 3


def same_pictures(splits: Splits) -> list[Finding]:
    """Which pictures of validation and test have the perceptual hash of one of train, or nearly that."""
    train: ImageSplit = splits.train
    chosen = evenly(len(train), TRAIN)
    known = _hashes(train, chosen)
    classes, found = splits.info.classes, []
    for name in ("val", "test"):
        split: ImageSplit = getattr(splits, name)
        looked = evenly(len(split), HELD_OUT)
        pairs = []
        for i, bits in zip(looked, _hashes(split, looked), strict=True):
            apart = np.bitwise_count(known ^ bits).sum(1)
            if apart[nearest := int(apart.argmin())] <= APART:
                pairs.append((int(i), int(chosen[nearest]), int(apart[nearest])))
        if not pairs:
            continue
        table = pd.DataFrame({
            f"picture of {name}": [split.names[i] for i, _, _ in pairs],
            "class": [classes[split.labels[i]] for i, _, _ in pairs],
            "picture of train": [train.names[j] for _, j, _ in pairs],
            "its class": [classes[train.labels[j]] for _, j, _ in pairs],
            "bits apart": [apart for _, _, apart in pairs],
        })  # fmt: skip
        other = int((table["class"] != table["its class"]).sum())
        said = f"{len(pairs)} of {len(looked)} pictures of {name} look like one of train"
        disagree = f"; {other} of them have another class there" if other else ""
        words = (
            f"{said}: their perceptual hashes differ in at most {APART} of {SIDE**2} bits{disagree}. Where they are "
            f"the same picture, the figure on {name} is too good by up to {len(pairs) / len(looked):.1%}; pictures of "
            "one scene belong in one split."
        )
        shown = np.stack([image for i, j, _ in pairs[:GRID] for image in (split.images[i], train.images[j])])
        captions = [caption for _ in pairs[:GRID] for caption in (name, "train")]
        picture = drawn(partial(_grid, shown, captions, 4))
        warning = f"{said}{disagree}: its figures flatter" if len(pairs) > len(looked) / 100 else ""
        found.append(Finding(f"Pictures of {name} that train holds", words, table.head(SHOWN), picture, warning))
    return found


def _grid(images: np.ndarray, captions: list[str], columns: int, file: BinaryIO) -> None:
    plots.picture_grid(images, captions, file, "", columns)


def _hashes(split: ImageSplit, index: np.ndarray) -> np.ndarray:
    """(n, SIDE**2 / 64) uint64: the perceptual hashes of these pictures."""
    import imagehash

    bits = [
        imagehash.phash(Image.fromarray(np.asarray(split.images[i]).transpose(1, 2, 0)), SIDE).hash.ravel()
        for i in index
    ]
    return np.packbits(np.array(bits), axis=1).view(np.uint64)


def some_pictures(splits: Splits) -> Finding:
    """The first pictures of each class of train, as the network gets them."""
    train, classes = splits.train, splits.info.classes
    first = [i for code in range(len(classes)) for i in np.flatnonzero(train.labels == code)[:EXAMPLES]]
    captions = [classes[train.labels[i]] for i in first]
    picture = drawn(partial(_grid, np.asarray(train.images[first]), captions, 2 * EXAMPLES))
    side = train.images.shape[-1]
    words = f"The first {EXAMPLES} of each class, as they are read: squashed to squares of {side} pixels (data.size)."
    return Finding("Examples", words, picture=picture)
