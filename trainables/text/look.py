"""What a look at labelled texts shows: those that validation and test share with train, lengths, examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from trainables.base.survey import SHOWN, SPLITS, Finding, evenly, histograms
from trainables.base.task import Splits

#: Characters of a piece, and the share of common pieces (Jaccard) from which texts count as nearly the same.
PIECE, SAME = 5, 0.8
PERMUTATIONS = 64
#: Texts of train, and of validation and test each, that are looked at; and characters of each.
TRAIN, HELD_OUT, LENGTH = 50_000, 5_000, 2_000
EXAMPLES = 3


def near_duplicates(splits: Splits) -> list[Finding]:
    """Which texts of validation and test have a near-duplicate in train; the splits have `texts` and `labels`.

    Candidates are found by MinHash with locality-sensitive hashing (Broder 1997), and then compared exactly.
    """
    from datasketch import MinHash, MinHashLSH

    chosen = evenly(len(splits.train), TRAIN)
    train = [_pieces(splits.train.texts[i]) for i in chosen]
    index = MinHashLSH(threshold=SAME, num_perm=PERMUTATIONS)
    for position, sketch in enumerate(MinHash.bulk(train, num_perm=PERMUTATIONS)):
        index.insert(position, sketch, check_duplication=False)
    found = []
    for name in ("val", "test"):
        split = getattr(splits, name)
        looked = evenly(len(split), HELD_OUT)
        own = [_pieces(split.texts[i]) for i in looked]
        rows = []
        for i, pieces, sketch in zip(looked, own, MinHash.bulk(own, num_perm=PERMUTATIONS), strict=True):
            alike = {j: len(pieces & train[j]) / len(pieces | train[j]) for j in sorted(index.query(sketch))}
            best = max(alike, key=lambda j: alike[j], default=None)
            if best is not None and alike[best] >= SAME:
                rows.append((alike[best], int(i), int(chosen[best])))
        if rows:
            found.append(_finding(splits, name, rows, len(looked)))
    return found


def _pieces(text: str) -> set[bytes]:
    """The pieces of a text; a text shorter than a piece is one."""
    plain = " ".join(text[:LENGTH].casefold().split())
    return {plain[at : at + PIECE].encode() for at in range(max(1, len(plain) - PIECE + 1))}


def _finding(splits: Splits, name: str, rows: Sequence[tuple[float, int, int]], looked: int) -> Finding:
    split, train, classes = getattr(splits, name), splits.train, np.array(splits.info.classes, dtype=object)
    rows = sorted(rows, key=lambda row: (-row[0], row[1]))
    mine, theirs = (np.array(column) for column in list(zip(*rows, strict=True))[1:])
    other = int((split.labels[mine] != train.labels[theirs]).sum())
    said = f"{len(rows)} of {looked} texts of {name} stand in train nearly the same"
    disagree = f"; {other} of them with another label" if other else ""
    table = pd.DataFrame({
        f"text of {name}": split.texts[mine], "label": classes[split.labels[mine]],
        "text of train": train.texts[theirs], "its label": classes[train.labels[theirs]],
        "alike": [row[0] for row in rows],
    }).head(SHOWN)  # fmt: skip
    words = (
        f"{said}{disagree}. A model may know them by heart, so its figure on {name} is too good by up to "
        f"{len(rows) / looked:.1%}. Texts that are copies of each other (retweets, refrains, boilerplate) belong in "
        "one split."
    )
    # A pair in a hundred is chance among short texts, and changes no decision.
    warning = f"{said}{disagree}: its figures flatter" if len(rows) > looked / 100 else ""
    return Finding(f"Near-duplicates of {name} in train", words, table, warning=warning)


def lengths(splits: Splits) -> Finding:
    """How many tokens texts have, and how many of them are cut."""
    most = splits.train.max_length
    cut = float((splits.train.ids.lengths >= most).mean())
    words = f"The longest text of train has {int(splits.train.ids.lengths.max())} tokens."
    if cut:
        words = f"{cut:.1%} of the texts of train reach {most} tokens (data.max_length), after which they are cut."
    return Finding("Lengths", words, picture=histograms({s: getattr(splits, s).ids.lengths for s in SPLITS}, "tokens"))


def some_texts(splits: Splits) -> Finding:
    """The first texts of each class of train."""
    rows = [
        (name, text)
        for code, name in enumerate(splits.info.classes)
        for text in splits.train.texts[np.flatnonzero(splits.train.labels == code)[:EXAMPLES]]
    ]
    return Finding(
        "Examples", f"The first {EXAMPLES} texts of each class.", pd.DataFrame(rows, columns=["class", "text"])
    )
