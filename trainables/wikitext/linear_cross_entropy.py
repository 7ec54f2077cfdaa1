"""Output layer and cross-entropy in one operation: for a large vocabulary they are most of a small model's work.

The gradient of the loss with respect to the logits (softmax minus one-hot) is known in the forward pass, so nothing of
their size is kept or computed again: one buffer holds the logits, then the probabilities, then that gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

#: Rows of logits that pass the softmax at a time, in float32; few enough to stay in the cache.
ROWS = 32


class LinearCrossEntropy(nn.Module):
    """Computes `cross_entropy(linear(x, weight, bias), target)` with logits in `dtype`; float32 is plain PyTorch."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self._buffers_of: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean loss of `x` (n, width) for classes `target` (n,), with `weight` (classes, width)."""
        if self.dtype == torch.float32:
            return F.cross_entropy(F.linear(x.float(), weight, bias), target)
        needed = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        loss: torch.Tensor = _LinearCrossEntropy.apply(x, weight, bias, target, self, needed)
        return loss

    def buffer(self, name: str, rows: int, columns: int, like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """A buffer that is used again in each call: fresh memory pages cost as much as the arithmetic."""
        known = self._buffers_of.get(name)
        if known is None or known.shape[0] < rows or known.shape[1] != columns or known.device != like.device:
            known = self._buffers_of[name] = torch.empty(rows, columns, dtype=dtype, device=like.device)
        return known[:rows]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, target: torch.Tensor,
        owner: LinearCrossEntropy, needed: bool,
    ) -> torch.Tensor:  # fmt: skip
        count, classes, dtype = len(x), len(weight), owner.dtype
        low_x = x.to(dtype)
        low_weight = owner.buffer("weight", classes, x.shape[1], x, dtype).copy_(weight)
        logits = torch.addmm(
            bias.to(dtype), low_x, low_weight.t(), out=owner.buffer("logits", count, classes, x, dtype)
        )
        rows = min(ROWS, count) if x.device.type == "cpu" else count
        wide = owner.buffer("wide", rows, classes, x, torch.float32)
        loss = torch.zeros((), device=x.device)
        for start in range(0, count, rows):
            some, labels = logits[start : start + rows], target[start : start + rows, None]
            p = wide[: len(some)].copy_(some)
            if not needed:
                loss -= p.log_softmax(1).gather(1, labels).sum()
                continue
            # The largest probability is 1 over the sum of exponentials, even where others underflow.
            (largest, where), own = p.max(1, keepdim=True), p.gather(1, labels)
            torch.softmax(p, 1, out=p)
            loss += (largest - own - p.gather(1, where).log()).sum()
            p.scatter_(1, labels, p.gather(1, labels) - 1)
            some.copy_(p)
        if needed:
            ones = torch.ones(1, count, dtype=dtype, device=x.device)
            low = torch.mm(logits.t(), low_x, out=owner.buffer("gradient", classes, x.shape[1], x, dtype))
            ctx.save_for_backward((logits @ low_weight).to(x.dtype), low.float(), (ones @ logits)[0].float())
            ctx.count = count
        return loss / count

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scale = scale / ctx.count
        return *(gradient.mul_(scale) for gradient in ctx.saved_tensors), None, None, None
