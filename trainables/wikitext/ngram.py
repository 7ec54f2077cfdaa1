"""The baseline: an interpolated, modified Kneser-Ney n-gram model (Chen and Goodman 1999, sections 2.7 and 3).

No dependency has such a model. nltk's has a single discount, and stores n-grams in Python dictionaries. This one counts
and scores WikiText-2 (2.05 million words) with the orders 2 to 5 in 6 s (benchmarks/tasks.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Order:
    """The n-grams of one order: a sorted key for each (number of its context, last word), and their counts.

    Attributes:
        counts: for the highest order the number of occurrences; for lower orders the number of different previous words
            (continuations).
        totals: the sum of the counts of all n-grams with the same context.
        held_back: the part of each total that the discounts reserve for the order below.
        discounts: the discount of the counts 0, 1, 2, and 3 or more.
    """

    keys: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    held_back: np.ndarray
    discounts: np.ndarray


class KneserNey:
    """Orders 1 to `order` over `words` words, fitted to a stream of word indices."""

    def __init__(self, stream: np.ndarray, words: int, order: int) -> None:
        self.words = words
        keys: list[np.ndarray] = []
        counts: list[np.ndarray] = []
        # `number[i]` is the number of the n-gram of the order below that begins at i; the empty n-gram has number 0.
        number, contexts = np.zeros(len(stream) + 1, dtype=np.int64), [1]
        for n in range(1, order + 1):
            occurrences = number[: len(stream) - n + 1] * words + stream[n - 1 :]
            key, first, numbers, count = np.unique(
                occurrences, return_index=True, return_inverse=True, return_counts=True
            )
            if n > 1:  # each different previous word of an n-gram of the order below counts once
                counts[-1] = np.bincount(number[first + 1], minlength=len(keys[-1]))
            keys.append(key)
            counts.append(count)
            number = numbers
            contexts.append(len(key))
        self.orders = [_order(k, c, n, words) for k, c, n in zip(keys, counts, contexts, strict=False)]

    def probabilities(self, stream: np.ndarray) -> np.ndarray:
        """The probability of each word of a stream given the words before it, (n,) float64."""
        p = np.full(len(stream), 1 / self.words)
        # `context[i]` is the number of the n-gram that ends before i, or -1 if train lacks it.
        context = np.zeros(len(stream), dtype=np.int64)
        numbers: list[np.ndarray] = []
        for n, order in enumerate(self.orders, 1):
            if n > 1:
                context = np.full(len(stream), -1)
                context[n - 1 :] = numbers[-1][n - 2 : -1]
            wanted = context * self.words + stream
            position = np.minimum(np.searchsorted(order.keys, wanted), len(order.keys) - 1)
            seen = (context >= 0) & (order.keys[position] == wanted)
            has_context = (context >= 0) & (order.totals[context] > 0)
            count = np.where(seen, order.counts[position], 0)
            discounted = count - order.discounts[np.minimum(count, 3)]
            p = np.where(
                has_context, (discounted + order.held_back[context] * p) / np.maximum(order.totals[context], 1), p
            )
            numbers.append(np.where(seen, position, -1))
        return p

    def perplexity(self, stream: np.ndarray) -> float:
        """The perplexity of all words except the first, which is how the network is evaluated."""
        return float(np.exp(-np.log(self.probabilities(stream)[1:]).mean()))


def _order(keys: np.ndarray, counts: np.ndarray, contexts: int, words: int) -> Order:
    context = keys // words
    discounts = _discounts(counts)
    held_back = np.bincount(context, weights=discounts[np.minimum(counts, 3)], minlength=contexts)
    return Order(keys, counts, np.bincount(context, weights=counts, minlength=contexts), held_back, discounts)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """The discounts of the counts 0, 1, 2, and 3 or more (Chen and Goodman's modified discounts, equation 26).

    If a small text has no n-gram with a count of 1, 2, 3 or 4, the discounts are 0.5, 1 and 1.5.
    """
    n = [int((counts == k).sum()) for k in range(5)]
    if min(n[1:]) == 0:
        return np.array([0.0, 0.5, 1.0, 1.5])
    y = n[1] / (n[1] + 2 * n[2])
    return np.array([0.0, *(max(0.0, k - (k + 1) * y * n[k + 1] / n[k]) for k in (1, 2, 3))])
