"""Findings about running text: stretches of words that train, validation and test share, and frequent words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from trainables.base.survey import CHANCE, SHOWN, SPLITS, Finding, near_copies, run_hashes
from trainables.base.task import Splits
from trainables.wikitext.data import Corpus
from trainables.wikitext.tokenizer import UNKNOWN, decode

#: The number of words of a stretch. Brown et al. 2020 (arXiv:2005.14165, appendix C) count 13 as contamination.
STRETCH = 13


def repeated_stretches(splits: Splits) -> list[Finding]:
    """Finds words of validation and test inside stretches of `STRETCH` words that occur in train too."""
    train_runs, findings = np.unique(run_hashes(splits.train.tokens, STRETCH)), []
    for name in ("val", "test"):
        corpus: Corpus = getattr(splits, name)
        begins = np.flatnonzero(np.isin(run_hashes(corpus.tokens, STRETCH), train_runs))
        if not len(begins):
            continue
        covered = np.zeros(len(corpus) + 1, dtype=np.int64)
        np.add.at(covered, begins, 1)
        np.add.at(covered, begins + STRETCH, -1)
        inside = np.cumsum(covered[:-1]) > 0
        share = float(inside.mean())
        first = np.flatnonzero(np.diff(inside.astype(np.int8), prepend=0) == 1)
        after = np.flatnonzero(np.diff(inside.astype(np.int8), append=0) == -1) + 1
        longest = np.argsort(first - after, kind="stable")[:SHOWN]
        table = pd.DataFrame({
            "words": (after - first)[longest],
            "stretch": [decode(corpus.words[t] for t in corpus.tokens[first[i] : after[i]][:60]) for i in longest],
        })  # fmt: skip
        fact = f"{share:.1%} of the words of {name} are in train too, in stretches of at least {STRETCH} words"
        words = (
            f"{fact}. Headings, licences and tables repeat in any corpus; whole paragraphs are copies, which a model "
            f"memorises, so that perplexity on {name} flatters."
        )
        examples = [repr(stretch[:60]) for stretch in table["stretch"]]
        warning, note = near_copies(fact, examples, share > CHANCE)
        findings.append(Finding(f"Words of {name} in train", words, table, warning=warning, note=note))
    return findings


def most_frequent(splits: Splits) -> Finding:
    """The most frequent words of train, and the share of unknown words in each split."""
    words = splits.train.words
    counts = np.bincount(splits.train.tokens, minlength=len(words))
    order = np.argsort(-counts, kind="stable")[:SHOWN]
    table = pd.DataFrame({"word": [words[i] for i in order], "share of train": counts[order] / len(splits.train)})
    unknown = words.index(UNKNOWN)
    shares = ", ".join(f"{name} {(getattr(splits, name).tokens == unknown).mean():.1%}" for name in SPLITS)
    return Finding("Words", f"A vocabulary of {len(words)} words, of train alone; {UNKNOWN} in {shares}.", table)
