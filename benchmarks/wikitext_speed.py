"""Claim: the wikitext task trains three times as many tokens a second as a plain PyTorch loop of the same model.

Both train 400 steps of batch 20 and 35 words (width 200, hidden 200, 2 layers, 2 heads, SGD) from the same weights on
the same data, two threads: WikiText-2 (`--data`), or, without, a made-up stream with WikiText-2's vocabulary size. The
plain loop is float32 and eager, `nn.TransformerEncoder`, `nn.Linear` and `nn.CrossEntropyLoss`, as in PyTorch's
word-language-model example. The two take turns, 50 steps each, so that both meet the same machine. Exits with 1 where
their validation losses differ by more than 1 %, or the ratio is missed.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from search.core.config import load_config
from trainables import DataInfo, Splits, choose_device, get_task, seed_everything
from trainables.wikitext.data import Corpus, batchify, get_batch
from trainables.wikitext.model import LanguageModel, sinusoidal

CLAIM, TOLERANCE = 3.0, 0.01
STEPS, TURN = 400, 50
SETS = (
    "embedding=200", "heads=2", "hidden=200", "layers=2", "dropout=0.2", "optimizer=sgd", "sgd_lr=1.0",
    "batch_size=20", "bptt=35",
)  # fmt: skip


class Plain(nn.Module):
    """The example's model."""

    def __init__(self, words: int, width: int = 200, heads: int = 2, hidden: int = 200, layers: int = 2) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(words, width)
        self.dropout = nn.Dropout(0.2)
        layer = nn.TransformerEncoderLayer(width, heads, hidden, 0.2)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.decoder = nn.Linear(width, words)
        self.register_buffer("table", sinusoidal(35, width).unsqueeze(1), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(time, batch) -> logits (time, batch, words)."""
        mask = nn.Transformer.generate_square_subsequent_mask(len(tokens))
        x = self.dropout(self.embedding(tokens) * math.sqrt(self.width) + self.table[: len(tokens)])
        return self.decoder(self.encoder(x, mask))

    def take(self, model: LanguageModel) -> None:
        """The other's weights."""
        state = {
            name: getattr(model, name.split(".")[0]).get_parameter(name.split(".")[1])
            for name in ("embedding.weight", "decoder.weight", "decoder.bias")
        }
        pairs = {
            "self_attn.in_proj_weight": "in_projection.weight", "self_attn.in_proj_bias": "in_projection.bias",
            "self_attn.out_proj.weight": "out_projection.weight", "self_attn.out_proj.bias": "out_projection.bias",
        }  # fmt: skip
        for name in self.state_dict():
            if name.startswith("encoder.layers."):
                _, _, layer, rest = name.split(".", 3)
                state[name] = model.blocks[int(layer)].get_parameter(pairs.get(rest, rest))
        self.load_state_dict(state)


def corpus(source: Path | None) -> Splits:
    if source is not None:
        return get_task("wikitext").prepare(load_config("wikitext").data, source, Path(), lambda *_: None)
    words, rng = 28_782, np.random.default_rng(0)
    odds = 1 / np.arange(1, words + 1)
    streams = [rng.choice(words, n, p=odds / odds.sum()).astype(np.int32) for n in (400_000, 40_000, 40_000)]
    parts = [Corpus(stream, tuple(map(str, range(words)))) for stream in streams]
    return Splits(*parts, DataInfo("made up", "", "", {}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of WikiText-2")
    splits = corpus(parser.parse_args().data)
    task, device = get_task("wikitext"), choose_device(2, 0, "native")
    params = load_config("wikitext", SETS).space.sample(lambda parameter: parameter.choices[0])
    params |= {"parts": (len(splits.train) // 20 - 1) // 35 // TURN + 1}
    seed_everything(0)
    ours = task.build(params, splits, 1, device)
    plain = Plain(len(splits.train.words))
    plain.take(ours.model)
    stream, criterion = batchify(torch.from_numpy(splits.train.tokens.astype(np.int64)), 20), nn.CrossEntropyLoss()
    ratios, steps, words = [], 0, len(splits.train.words)
    starts = list(range(0, len(stream) - 1, 35))
    while steps < STEPS:
        ours.epoch += 1
        mine = starts[(ours.epoch - 1) * len(starts) // params["parts"] : ours.epoch * len(starts) // params["parts"]]
        begun = time.perf_counter()
        task.train_epoch(ours, splits.train)
        middle = time.perf_counter()
        plain.train()
        for start in mine:
            data, target = get_batch(stream, start, 35)
            plain.zero_grad()
            loss = criterion(plain(data).view(-1, words), target)
            loss.backward()
            nn.utils.clip_grad_norm_(plain.parameters(), params["clip_norm"])
            for parameter in plain.parameters():
                parameter.data.add_(parameter.grad, alpha=-params["sgd_lr"])
        ended = time.perf_counter()
        steps += len(mine)
        ratios.append((ended - middle) / (middle - begun))
        print(
            f"step {steps}: {700 * len(mine) / (middle - begun):.0f} tokens/s, plain "
            f"{700 * len(mine) / (ended - middle):.0f}: {ratios[-1]:.2f} x",
            flush=True,
        )
    part = Corpus(splits.val.tokens[:35_001], splits.val.words)
    loss = task.evaluate(ours, part)["loss"]
    plain.eval()
    with torch.no_grad():
        tokens = torch.from_numpy(part.tokens.astype(np.int64))
        windows = tokens[:-1].view(-1, 35), tokens[1:].view(-1, 35)
        pairs = zip(*(w.split(20) for w in windows), strict=True)
        theirs = statistics.mean(criterion(plain(x.t()).view(-1, words), y.t().reshape(-1)).item() for x, y in pairs)
    print(f"validation loss {loss:.4f}, plain {theirs:.4f}: {loss / theirs - 1:+.2%}")
    print(f"median of {len(ratios)} turns: {statistics.median(ratios):.2f} x, claimed {CLAIM:g} x")
    return 0 if statistics.median(ratios) >= CLAIM and abs(loss / theirs - 1) <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
