"""An adaptive softmax over a vocabulary that is sorted by frequency (Grave et al. 2017, arXiv:1609.04309).

The first softmax covers the most frequent words and one entry for each class of rarer words. Each class has another
softmax, which is computed only for targets of the class. The probabilities add up to one.
A training step on WikiText-2 takes 275 ms instead of 558 ms with one softmax (benchmarks/tasks.md).

`nn.AdaptiveLogSoftmaxWithLoss` reduces the width of rare words. Here all words have the full width, so that the output
weights can be those of the embedding (`tied`).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

#: The first softmax has the words 0 to 1999, the first class of rarer words those up to 9999, the second the rest.
CUTOFFS = (2000, 10_000)


class AdaptiveSoftmax(nn.Module):
    """Holds the weights of the classes. Each call gets the weights (words, width) and biases (words,) of the words."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        ends = [min(cutoff, words) for cutoff in CUTOFFS]
        self.frequent = ends[0]
        #: Begin and end of each class of rarer words.
        self.classes = [(a, b) for a, b in zip(ends, [*ends[1:], words], strict=True) if b > a]
        self.entries = nn.Linear(width, len(self.classes)) if self.classes else None

    def _parts(self, weight: torch.Tensor, bias: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The weights and biases of the frequent words and of each class. One `split` joins their gradients at once."""
        sizes = [self.frequent, *(end - begin for begin, end in self.classes)]
        return list(zip(weight.split(sizes), bias.split(sizes), strict=True))

    def _first(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (n, frequent + classes) of the frequent words, whose weights are given, and the classes."""
        logits = F.linear(x, weight, bias)
        if self.entries is not None:
            logits = torch.cat([logits, self.entries(x)], 1)
        return logits.log_softmax(1)

    def losses(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The negative log-likelihood (n,) of `target` (n,) after states `x` (n, width)."""
        entry = target.clone()
        for index, (begin, end) in enumerate(self.classes):
            entry = entry.masked_fill((target >= begin) & (target < end), self.frequent + index)
        first, *others = self._parts(weight, bias)
        loss = F.nll_loss(self._first(x, *first), entry, reduction="none")
        for (begin, end), part in zip(self.classes, others, strict=True):
            mine = (target >= begin) & (target < end)
            if x.is_cuda:  # all rows are computed: to select rows, the CPU would have to wait for the device
                own = (target - begin).clamp(0, end - begin - 1)
                inner = F.linear(x, *part)
                loss = loss + F.cross_entropy(inner, own, reduction="none") * mine
                continue
            rows = mine.nonzero().squeeze(1)
            inner = F.linear(x[rows], *part)
            loss = loss.index_add(0, rows, F.cross_entropy(inner, target[rows] - begin, reduction="none"))
        return loss

    def log_probabilities(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(..., width) -> the log-probabilities (..., words) of every word."""
        flat = x.reshape(-1, x.shape[-1])
        frequent, *others = self._parts(weight, bias)
        first = self._first(flat, *frequent)
        parts = [first[:, : self.frequent]]
        for index, part in enumerate(others):
            parts.append(first[:, self.frequent + index, None] + F.linear(flat, *part).log_softmax(1))
        return torch.cat(parts, 1).reshape(*x.shape[:-1], -1)
