"""Findings about labelled texts: near-duplicates between splits, lengths, examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from trainables.base.survey import CHANCE, SHOWN, SPLITS, Finding, evenly, histograms, near_copies
from trainables.base.task import Splits
from trainables.text.duplicates import shown

#: The number of characters of a piece (shingle), and the smallest Jaccard similarity of near-duplicates.
PIECE, SAME = 5, 0.8
#: The number of hash functions of MinHash. More of them find candidates more reliably, and take more time.
PERMUTATIONS = 64
#: The largest numbers of texts that are compared (of train, of each other split), and of characters of a text.
TRAIN, HELD_OUT, LENGTH = 50_000, 5_000, 2_000
#: The number of texts of each class that are shown.
EXAMPLES = 3


def near_duplicates(splits: Splits) -> list[Finding]:
    """Finds texts of validation and test with a near-duplicate in train; the splits have `texts` and `labels`.

    MinHash with locality-sensitive hashing (Broder 1997) finds candidates, which are then compared exactly.
    """
    from datasketch import MinHash, MinHashLSH

    chosen = evenly(len(splits.train), TRAIN)
    train = [_pieces(splits.train.texts[i]) for i in chosen]
    index = MinHashLSH(threshold=SAME, num_perm=PERMUTATIONS)
    for position, sketch in enumerate(MinHash.bulk(train, num_perm=PERMUTATIONS)):
        index.insert(position, sketch, check_duplication=False)
    findings = []
    for name in ("val", "test"):
        split = getattr(splits, name)
        sample = evenly(len(split), HELD_OUT)
        texts = [_pieces(split.texts[i]) for i in sample]
        pairs = []
        for i, pieces, sketch in zip(sample, texts, MinHash.bulk(texts, num_perm=PERMUTATIONS), strict=True):
            similarity = {j: len(pieces & train[j]) / len(pieces | train[j]) for j in sorted(index.query(sketch))}
            best = max(similarity, key=lambda j: similarity[j], default=None)
            if best is not None and similarity[best] >= SAME:
                pairs.append((similarity[best], int(i), int(chosen[best])))
        if pairs:
            findings.append(_finding(splits, name, pairs, len(sample)))
    return findings


def _pieces(text: str) -> set[bytes]:
    """The pieces of a text; a text that is shorter than a piece is one piece."""
    plain = " ".join(text[:LENGTH].casefold().split())
    return {plain[start : start + PIECE].encode() for start in range(max(1, len(plain) - PIECE + 1))}


def _finding(splits: Splits, name: str, pairs: Sequence[tuple[float, int, int]], sampled: int) -> Finding:
    """A finding for pairs (similarity, position in the split `name`, position in train)."""
    split, train, classes = getattr(splits, name), splits.train, np.array(splits.info.classes, dtype=object)
    pairs = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
    mine, theirs = (np.array(column) for column in list(zip(*pairs, strict=True))[1:])
    other_label = int((split.labels[mine] != train.labels[theirs]).sum())
    fact = f"{len(pairs)} of {sampled} texts of {name} have a near-duplicate in train"
    fact += f"; {other_label} of them with another label" if other_label else ""
    table = pd.DataFrame({
        f"text of {name}": split.texts[mine], "label": classes[split.labels[mine]],
        "text of train": train.texts[theirs], "its label": classes[train.labels[theirs]],
        "similarity": [pair[0] for pair in pairs],
    }).head(SHOWN)  # fmt: skip
    words = (
        f"{fact}. A model may have memorised them, so its figure on {name} is too good by up to "
        f"{len(pairs) / sampled:.1%}. Copies of one text (retweets, refrains, boilerplate) belong in one split."
    )
    texts = (shown(split.texts[mine[:EXAMPLES]]), shown(train.texts[theirs[:EXAMPLES]]))
    examples = [f"{held_out} and {copy}" for held_out, copy in zip(*texts, strict=True)]
    warning, note = near_copies(fact, examples, len(pairs) > CHANCE * sampled)
    return Finding(f"Near-duplicates of {name} in train", words, table, warning=warning, note=note)


def lengths(splits: Splits) -> Finding:
    """The number of tokens of texts, and the share of texts that are cut."""
    most = splits.train.max_length
    cut = float((splits.train.ids.lengths >= most).mean())
    words = f"The longest text of train has {int(splits.train.ids.lengths.max())} tokens."
    if cut:
        words = f"{cut:.1%} of the texts of train reach {most} tokens (data.max_length), and are cut there."
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
