"""An interpolated, modified Kneser-Ney n-gram model, the baseline (Chen and Goodman 1999, sections 2.7 and 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Order:
    """The n-grams of one order: a sorted key for each (number of its context, last word), and their counts.

    Attributes:
        counts: for the highest order the number of occurrences; for lower ones the number of different words before
            (continuations).
        totals: the sum of the counts of each context's n-grams.
        held_back: the part of each total that discounting leaves for the order below.
        discounts: by count, up to 3.
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
        # `at[i]` is the number of the n-gram that begins at i, of the order below; of no word, there is only one.
        at, contexts = np.zeros(len(stream) + 1, dtype=np.int64), [1]
        for n in range(1, order + 1):
            every = at[: len(stream) - n + 1] * words + stream[n - 1 :]
            known, first, number, count = np.unique(every, return_index=True, return_inverse=True, return_counts=True)
            if n > 1:  # what stands before the n-grams of the order below, each different word once
                counts[-1] = np.bincount(at[first + 1], minlength=len(keys[-1]))
            keys.append(known)
            counts.append(count)
            at = number
            contexts.append(len(known))
        self.orders = [_order(k, c, n, words) for k, c, n in zip(keys, counts, contexts, strict=False)]

    def probabilities(self, stream: np.ndarray) -> np.ndarray:
        """The probability of each word of a stream given those before it: (n,) float64."""
        p = np.full(len(stream), 1 / self.words)
        # `context[i]` is the number of the n-gram that ends before i, or -1 where train has none such.
        context = np.zeros(len(stream), dtype=np.int64)
        numbers: list[np.ndarray] = []
        for n, order in enumerate(self.orders, 1):
            if n > 1:
                context = np.full(len(stream), -1)
                context[n - 1 :] = numbers[-1][n - 2 : -1]
            wanted = context * self.words + stream
            found = np.minimum(np.searchsorted(order.keys, wanted), len(order.keys) - 1)
            seen = (context >= 0) & (order.keys[found] == wanted)
            known = (context >= 0) & (order.totals[context] > 0)
            count = np.where(seen, order.counts[found], 0)
            kept = count - order.discounts[np.minimum(count, 3)]
            p = np.where(known, (kept + order.held_back[context] * p) / np.maximum(order.totals[context], 1), p)
            numbers.append(np.where(seen, found, -1))
        return p

    def perplexity(self, stream: np.ndarray) -> float:
        """The perplexity of all words but the first, as for the network."""
        return float(np.exp(-np.log(self.probabilities(stream)[1:]).mean()))


def _order(keys: np.ndarray, counts: np.ndarray, contexts: int, words: int) -> Order:
    context = keys // words
    discounts = _discounts(counts)
    held_back = np.bincount(context, weights=discounts[np.minimum(counts, 3)], minlength=contexts)
    return Order(keys, counts, np.bincount(context, weights=counts, minlength=contexts), held_back, discounts)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """The discounts of counts of 0, 1, 2, and 3 or more (Chen and Goodman's modified discounts, equation 26).

    They are 0.5, 1 and 1.5 where a small text lacks the counts to estimate them from.
    """
    n = [int((counts == k).sum()) for k in range(5)]
    if min(n[1:]) == 0:
        return np.array([0.0, 0.5, 1.0, 1.5])
    y = n[1] / (n[1] + 2 * n[2])
    return np.array([0.0, *(max(0.0, k - (k + 1) * y * n[k + 1] / n[k]) for k in (1, 2, 3))])
