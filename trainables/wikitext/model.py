"""A causal Transformer language model (Vaswani et al. 2017, arXiv:1706.03762).

`nn.TransformerEncoder` has no rotary positions. With it, `nn.Linear` and `nn.CrossEntropyLoss` a CPU trains 1,800 words
of WikiText-2 a second, with this module 6,700 (benchmarks/tasks.md).
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from trainables import Params
from trainables.base.dropout import Dropout
from trainables.wikitext.adaptive import AdaptiveSoftmax
from trainables.wikitext.linear_cross_entropy import LinearCrossEntropy

POSITIONS = ("sinusoidal", "learned", "rotary")
SOFTMAXES = ("adaptive", "full")
#: Embedding and decoder weights are drawn uniformly from [-INIT, INIT], as in PyTorch's word-language-model example.
INIT = 0.1


class Block(nn.Module):
    """Computes `nn.TransformerEncoderLayer` with a causal mask, and optionally with rotary positions."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, norm_first: bool) -> None:
        super().__init__()
        self.heads, self.norm_first = heads, norm_first
        self.in_projection = nn.Linear(width, 3 * width)
        self.out_projection = nn.Linear(width, width)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.activation = nn.ReLU()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(dropout)
        nn.init.xavier_uniform_(self.in_projection.weight)
        for layer in (self.in_projection, self.out_projection):
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor, rotation: torch.Tensor | None) -> torch.Tensor:
        """(batch, time, width) -> the same shape."""
        if self.norm_first:
            x = x + self._attend(self.norm1(x), rotation)
            return x + self._feed(self.norm2(x))
        x = self.norm1(x + self._attend(x, rotation))
        return self.norm2(x + self._feed(x))

    def _attend(self, x: torch.Tensor, rotation: torch.Tensor | None) -> torch.Tensor:
        batch, time, width = x.shape
        q, k, v = self.in_projection(x).view(batch, time, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        drop = self.dropout.p if self.training else 0.0
        if drop and q.device.type == "cpu":  # PyTorch has no fused kernel with dropout for CPUs
            later = torch.ones(time, time, dtype=torch.bool).triu(1)
            scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(later, float("-inf"))
            mixed = self.dropout(scores.softmax(-1)) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=drop, is_causal=True)
        return self.dropout(self.out_projection(mixed.transpose(1, 2).reshape(batch, time, width)))

    def _feed(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.linear2(self.dropout(self.activation(self.linear1(x)))))


def rotate(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al. 2021, arXiv:2104.09864): `rotation` (2, time, width / 2) holds cosines and sines."""
    cos, sin = rotation.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def sinusoidal(time: int, width: int) -> torch.Tensor:
    """(time, width): sines in the even columns, cosines in the odd ones, wave lengths from 2 pi to 10,000 x 2 pi."""
    position = torch.arange(time).unsqueeze(1)
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    table = torch.zeros(time, width)
    table[:, 0::2] = torch.sin(position * rates)
    table[:, 1::2] = torch.cos(position * rates)[:, : width // 2]
    return table


class LanguageModel(nn.Module):
    """Embedding x sqrt(width), positions, blocks, linear decoder.

    Args:
        context: the largest number of tokens of an input.
        dtype: the type of the output layer; see `LinearCrossEntropy`.
    """

    def __init__(self, words: int, context: int, params: Params, dtype: torch.dtype) -> None:
        super().__init__()
        width, heads, dropout = params["embedding"], params["heads"], params["dropout"]
        self.width, self.context = width, context
        self.embedding = nn.Embedding(words, width)
        self.decoder = nn.Linear(width, words)
        nn.init.uniform_(self.embedding.weight, -INIT, INIT)
        nn.init.uniform_(self.decoder.weight, -INIT, INIT)
        nn.init.zeros_(self.decoder.bias)
        if params["tied"]:
            self.decoder.weight = self.embedding.weight
        self.learned = nn.Embedding(context, width) if params["positions"] == "learned" else None
        table = {
            "sinusoidal": lambda: sinusoidal(context, width),
            "learned": lambda: torch.zeros(0),
            "rotary": lambda: rotation_table(context, width // heads),
        }[params["positions"]]()
        self.register_buffer("table", table, persistent=False)
        self.rotary = params["positions"] == "rotary"
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(width, heads, params["hidden"], dropout, params["norm_first"]) for _ in range(params["layers"])
        )
        self.norm = nn.LayerNorm(width) if params["norm_first"] else nn.Identity()
        self.cross_entropy = LinearCrossEntropy(dtype)
        # Old configurations lack `softmax`, and have the full softmax.
        self.adaptive = AdaptiveSoftmax(words, width) if params.get("softmax") == "adaptive" else None

    def states(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (batch, time) -> states (batch, time, width); each state depends on the tokens up to its own."""
        time = tokens.shape[1]
        x = self.embedding(tokens) * math.sqrt(self.width)
        if self.learned is not None:
            x = x + self.learned.weight[:time]
        elif not self.rotary:
            x = x + self.table[:time]  # type: ignore[index]
        x = self.dropout(x)
        rotation = self.table[:, :time] if self.rotary else None  # type: ignore[index]
        for block in self.blocks:
            x = block(x, rotation)
        return self.norm(x)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (batch, time) -> logits of the next token (batch, time, words)."""
        states = self.states(tokens)
        if self.adaptive is not None:
            return self.adaptive.log_probabilities(states.float(), self.decoder.weight, self.decoder.bias)
        return self.decoder(states)

    def losses(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The cross-entropy in nats of each target (batch, time), flat: (batch x time,) float32."""
        if self.adaptive is None:
            return F.cross_entropy(self(tokens).flatten(0, 1).float(), targets.flatten(), reduction="none")
        states = self.states(tokens).flatten(0, 1).float()
        with torch.autocast(states.device.type, enabled=False):
            return self.adaptive.losses(states, self.decoder.weight, self.decoder.bias, targets.flatten())

    def loss(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy in nats of `targets` (batch, time), the next token of each of `tokens`."""
        if self.adaptive is not None:
            return self.losses(tokens, targets).mean()
        states = self.states(tokens).flatten(0, 1)
        with torch.autocast(states.device.type, enabled=False):
            loss: torch.Tensor = self.cross_entropy(states, self.decoder.weight, self.decoder.bias, targets.reshape(-1))
        return loss


def rotation_table(time: int, width: int) -> torch.Tensor:
    angles = torch.arange(time).unsqueeze(1) * 10_000.0 ** (-torch.arange(0, width, 2) / width)
    return torch.stack([angles.cos(), angles.sin()])
