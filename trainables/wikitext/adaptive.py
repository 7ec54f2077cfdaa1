"""An adaptive softmax over a vocabulary that is sorted by frequency (Grave et al. 2017, arXiv:1609.04309).

The most frequent words share the first softmax with one entry for each class of rarer words; the words of a class have
a softmax of their own, which is computed only where the target is one of them. The probabilities add up to one. Unlike
in the paper all words keep the full width, so that the weights can be those of the embedding.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

#: Words of the first softmax, and up to where the first class of rarer words goes; the second has the rest.
CUTOFFS = (2000, 10_000)


class AdaptiveSoftmax(nn.Module):
    """The classes' own weights; those of the words are given with each call, (words, width) and (words,)."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        ends = [min(cutoff, words) for cutoff in CUTOFFS]
        self.frequent = ends[0]
        #: Begin and end of each class of rarer words.
        self.classes = [(a, b) for a, b in zip(ends, [*ends[1:], words], strict=True) if b > a]
        self.entries = nn.Linear(width, len(self.classes)) if self.classes else None

    def _parts(self, weight: torch.Tensor, bias: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The frequent words' share of weight and bias, then that of each class; their gradients are joined at once."""
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
            if x.is_cuda:  # arithmetic is cheap there, and to be told which rows they are would be to wait
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
        found = [first[:, : self.frequent]]
        for index, part in enumerate(others):
            found.append(first[:, self.frequent + index, None] + F.linear(flat, *part).log_softmax(1))
        return torch.cat(found, 1).reshape(*x.shape[:-1], -1)
