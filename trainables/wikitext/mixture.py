"""Mixes the network's probabilities with those of an n-gram model and of a cache over the recent words.

The n-gram model knows what follows rare words, the cache that texts repeat their words (Kuhn and De Mori 1990; Grave et
al. 2017, arXiv:1612.04426, has a cache that is compared by the network's states; here it is by the words alone, which a
processor can afford). The weights of the mixture are fitted to validation by expectation maximisation.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from trainables.wikitext.data import Corpus
from trainables.wikitext.ngram import KneserNey

#: Order of the n-gram model; words that the cache holds, and by how much each weighs less than the one after it.
ORDER, RECENT, DECAY = 5, 1000, 0.997
#: Steps of expectation maximisation.
STEPS = 100

_models: WeakKeyDictionary[Corpus, KneserNey] = WeakKeyDictionary()
_parts: WeakKeyDictionary[Corpus, tuple[int, np.ndarray]] = WeakKeyDictionary()


def components(train: Corpus, split: Corpus) -> np.ndarray:
    """(2, n - 1): the probability of each word of `split` but the first, by the n-gram model of `train` and the cache.

    Counting takes seconds, so the model of a corpus and what it says of a split are kept as long as these live.
    """
    if train not in _models:
        _models[train] = KneserNey(train.tokens, len(train.words), ORDER)
    known = _parts.get(split)
    if known is None or known[0] != id(_models[train]):
        both = np.stack([_models[train].probabilities(split.tokens)[1:], cache(split.tokens)[1:]])
        known = _parts[split] = id(_models[train]), both
    return known[1]


def cache(stream: np.ndarray) -> np.ndarray:
    """The share of each word among the `RECENT` words before it, (n,); each weighs `DECAY` times the one after it."""
    found, total = np.zeros(len(stream)), np.zeros(len(stream))
    for lag in range(1, min(RECENT, len(stream) - 1) + 1):
        weight = DECAY**lag
        found[lag:] += weight * (stream[lag:] == stream[:-lag])
        total[lag:] += weight
    return found / np.maximum(total, 1e-12)


def fit_weights(probabilities: np.ndarray) -> np.ndarray:
    """The weights (k,) of components (k, n) that make the data most probable."""
    weights = np.full(len(probabilities), 1 / len(probabilities))
    for _ in range(STEPS):
        joint = weights[:, None] * probabilities
        weights = (joint / joint.sum(0)).mean(1)
    return weights
