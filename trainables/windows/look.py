"""Findings about pictures: pictures that validation and test share with train, and examples."""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from trainables.base import plots
from trainables.base.survey import CHANCE, SHOWN, Finding, evenly, near_copies
from trainables.base.task import Splits
from trainables.windows.data import ImageSplit

#: The side of the perceptual hash (16 x 16 = 256 bits), and the largest distance in bits of two copies of one picture.
#: On TrashNet the nearest pair of different pictures is 66 bits apart (benchmarks/tasks.md).
SIDE, APART = 16, 32
#: The largest number of pictures that are compared: of train, and of each other split.
TRAIN, HELD_OUT = 20_000, 2_000
#: The number of pairs, and of pictures of each class, that are shown.
GRID, EXAMPLES = 10, 3


def same_pictures(splits: Splits) -> list[Finding]:
    """Finds pictures of validation and test whose perceptual hash equals, or nearly equals, that of one of train."""
    train: ImageSplit = splits.train
    chosen = evenly(len(train), TRAIN)
    train_hashes = _hashes(train, chosen)
    classes, findings = splits.info.classes, []
    for name in ("val", "test"):
        split: ImageSplit = getattr(splits, name)
        sample = evenly(len(split), HELD_OUT)
        pairs = []
        for i, bits in zip(sample, _hashes(split, sample), strict=True):
            distances = np.bitwise_count(train_hashes ^ bits).sum(1)
            nearest = int(distances.argmin())
            if distances[nearest] <= APART:
                pairs.append((int(i), int(chosen[nearest]), int(distances[nearest])))
        if not pairs:
            continue
        table = pd.DataFrame({
            f"picture of {name}": [split.names[i] for i, _, _ in pairs],
            "class": [classes[split.labels[i]] for i, _, _ in pairs],
            "picture of train": [train.names[j] for _, j, _ in pairs],
            "its class": [classes[train.labels[j]] for _, j, _ in pairs],
            "bits apart": [distance for _, _, distance in pairs],
        })  # fmt: skip
        other_class = int((table["class"] != table["its class"]).sum())
        fact = f"{len(pairs)} of {len(sample)} pictures of {name} look like one of train"
        disagree = f"; {other_class} of them have another class there" if other_class else ""
        words = (
            f"{fact}: their perceptual hashes differ in at most {APART} of {SIDE**2} bits{disagree}. If they show the "
            f"same picture, the figure on {name} is too good by up to {len(pairs) / len(sample):.1%}; pictures of one "
            "scene belong in one split."
        )
        shown = np.stack([image for i, j, _ in pairs[:GRID] for image in (split.images[i], train.images[j])])
        captions = [caption for _ in pairs[:GRID] for caption in (name, "train")]
        picture = plots.as_png(plots.picture_grid(shown, captions, columns=4))
        examples = [f"{split.names[i]} and {train.names[j]}" for i, j, _ in pairs]
        warning, note = near_copies(f"{fact}{disagree}", examples, len(pairs) > CHANCE * len(sample))
        title = f"Pictures of {name} that train holds"
        findings.append(Finding(title, words, table.head(SHOWN), picture, warning, note))
    return findings


def _hashes(split: ImageSplit, index: np.ndarray) -> np.ndarray:
    """(n, SIDE**2 / 64) uint64: the perceptual hashes of these pictures."""
    import imagehash

    bits = [
        imagehash.phash(Image.fromarray(np.asarray(split.images[i]).transpose(1, 2, 0)), SIDE).hash.ravel()
        for i in index
    ]
    return np.packbits(np.array(bits), axis=1).view(np.uint64)


def some_pictures(splits: Splits) -> Finding:
    """The first pictures of each class of train, in the form that the network gets."""
    train, classes = splits.train, splits.info.classes
    first = [i for code in range(len(classes)) for i in np.flatnonzero(train.labels == code)[:EXAMPLES]]
    captions = [classes[train.labels[i]] for i in first]
    picture = plots.as_png(plots.picture_grid(np.asarray(train.images[first]), captions, columns=2 * EXAMPLES))
    side = train.images.shape[-1]
    words = f"The first {EXAMPLES} of each class, scaled to squares of {side} pixels (data.size)."
    return Finding("Examples", words, picture=picture)
