"""Mixes the probabilities of the network, of an n-gram model, and of a cache of recent words.

The n-gram model knows the successors of rare words. The cache reflects that texts repeat their words (Kuhn and De Mori
1990). Grave et al. 2017 (arXiv:1612.04426) look up the cache by states of the network; here it is looked up by words,
which is fast enough on a CPU. Expectation maximisation fits the weights of the mixture to validation.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from trainables.wikitext.data import Corpus
from trainables.wikitext.ngram import KneserNey

#: The order of the n-gram model. Test perplexities on WikiText-2 for the orders 2 to 5: 251.4, 208.9, 204.3, 203.1
#: (benchmarks/tasks.md).
ORDER = 5
#: The number of words in the cache, and the factor of a word's weight for each word of distance.
RECENT, DECAY = 1000, 0.997
#: The number of steps of expectation maximisation.
STEPS = 100

_models: WeakKeyDictionary[Corpus, KneserNey] = WeakKeyDictionary()
_parts: WeakKeyDictionary[Corpus, tuple[int, np.ndarray]] = WeakKeyDictionary()


def components(train: Corpus, split: Corpus) -> np.ndarray:
    """The probability of each word of `split` except the first by the n-gram model of `train` and by the cache,
    (2, n - 1).

    Counting takes seconds. The model of a corpus and its probabilities are stored as long as the corpora live.
    """
    if train not in _models:
        _models[train] = KneserNey(train.tokens, len(train.words), ORDER)
    stored = _parts.get(split)
    if stored is None or stored[0] != id(_models[train]):
        both = np.stack([_models[train].probabilities(split.tokens)[1:], cache(split.tokens)[1:]])
        stored = _parts[split] = id(_models[train]), both
    return stored[1]


def cache(stream: np.ndarray) -> np.ndarray:
    """The weighted share of each word among the `RECENT` words before it, (n,); the weight at lag k is `DECAY` ** k."""
    same, total = np.zeros(len(stream)), np.zeros(len(stream))
    for lag in range(1, min(RECENT, len(stream) - 1) + 1):
        weight = DECAY**lag
        same[lag:] += weight * (stream[lag:] == stream[:-lag])
        total[lag:] += weight
    return same / np.maximum(total, 1e-12)


def fit_weights(probabilities: np.ndarray) -> np.ndarray:
    """The weights (k,) of components (k, n) with the maximum likelihood."""
    weights = np.full(len(probabilities), 1 / len(probabilities))
    for _ in range(STEPS):
        joint = weights[:, None] * probabilities
        weights = (joint / joint.sum(0)).mean(1)
    return weights
