"""Encoded texts, and their batches."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from trainables.base.batches import Rows, read_only, rows_on
from trainables.base.training import Learner
from trainables.text import ragged
from trainables.text.encoders import Encoder, Frozen
from trainables.text.models import TextBatch, filled_to, frozen_part
from trainables.text.ragged import Ragged
from trainables.text.tfidf import Terms

#: The number of batches of `similar_rows` that share a pool. Verse: an epoch of a whole MiniLM takes 63 s, with random
#: batches 96 s.
POOL = 50


@dataclass(frozen=True, eq=False)
class EncodedSplit:
    """Texts with their token ids and labels (n,) int64.

    Attributes:
        features: the features from the frozen encoder, by part of the encoder.
        counted: the terms and the TF-IDF features, of words alone (False) and of words and pieces of words (True).
    """

    texts: np.ndarray
    labels: np.ndarray
    ids: Ragged
    encoder: Encoder
    max_length: int
    features: dict[Frozen, np.ndarray] = field(default_factory=dict)
    counted: dict[bool, tuple[Terms, Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class TextEncoding:
    """The encoder, the terms and the classes of a model.

    Attributes:
        positive: the class that is rarest in train. With two classes the decision threshold applies to it.
        terms: the TF-IDF terms of train; None for a model without TF-IDF.
    """

    encoder: Encoder
    max_length: int
    classes: tuple[str, ...]
    positive: int
    terms: Terms | None


def merge(first: EncodedSplit, second: EncodedSplit) -> EncodedSplit:
    """Joins two splits. Their TF-IDF features are dropped, because the terms depend on all texts."""
    return replace(
        first,
        texts=np.concatenate([first.texts, second.texts]),
        labels=np.concatenate([first.labels, second.labels]),
        ids=ragged.join(first.ids, second.ids),
        features={part: np.concatenate([first.features[part], second.features[part]]) for part in first.features},
        counted={},
    )


@dataclass(frozen=True)
class Gathered:
    """The tensors of a split, from which batches are gathered: on the device, or on the CPU if they would fill it.

    Attributes:
        rows: features (texts, width); or, with `starts`, the states (tokens, width) or ids (tokens,) of all texts.
        starts: text i has the tokens `starts[i]` to `starts[i + 1] - 1`, (texts + 1,).
        lengths: the number of tokens of each text, on the CPU.
        words: the embedding of each token id, (words, width), if `rows` are ids and the network takes embeddings.
        fill: the content of padding: 0, or a token id if the network takes token ids.
        terms: the TF-IDF features of all texts: their indices, their weights, the start of each text (texts + 1,), and
            the number of features of each text on the CPU.
    """

    rows: torch.Tensor
    starts: torch.Tensor | None
    lengths: np.ndarray
    words: torch.Tensor | None
    fill: int
    terms: tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray] | None


def similar_rows(lengths: np.ndarray, batch_size: int, device: torch.device) -> list[Rows]:
    """Random batches of samples of similar length, which have little padding, from torch's global generator.

    The samples are cut at random into pools of `POOL` batches; each pool is sorted by length. The order of the batches
    is random.
    """
    order = torch.randperm(len(lengths)).numpy()
    pools = [order[start : start + POOL * batch_size] for start in range(0, len(order), POOL * batch_size)]
    batches = [
        part[start : start + batch_size]
        for part in (pool[np.argsort(lengths[pool], kind="stable")] for pool in pools)
        for start in range(0, len(part), batch_size)
    ]
    return rows_on(device, [batches[row] for row in torch.randperm(len(batches)).tolist()])


def batch(learner: Learner, split: EncodedSplit, index: Rows) -> TextBatch:
    """A batch of the texts `index` of a split, on the learner's device."""
    source = learner.resident(split, lambda: _gathered(learner, split))
    positions, device = index.there.to(source.rows.device), learner.device.torch_device
    if source.starts is None:
        states, mask = source.rows[positions], None
    else:
        steps = torch.arange(int(source.lengths[index.here].max()), device=positions.device)
        begin = source.starts[positions][:, None]
        mask = steps < source.starts[positions + 1][:, None] - begin
        states = source.rows[(begin + steps).clamp_(max=len(source.rows) - 1)]
        if source.words is None:
            states.masked_fill_(~mask.view(*mask.shape, *[1] * (states.dim() - 2)), source.fill)
        else:
            states = source.words[states.masked_fill_(~mask, 0)]
        mask = mask.to(device)
    return TextBatch(states.to(device), mask, None if source.terms is None else _terms(source.terms, index, device))


def _gathered(learner: Learner, split: EncodedSplit) -> Gathered:
    device, encoding = learner.device, learner.extra["encoding"]
    part = frozen_part(learner.params, encoding.encoder.layers, encoding.max_length)
    ids, words, fill = split.ids, None, 0
    net: Any = learner.model
    if net.reads_ids:
        fill = encoding.encoder.pad
        if filled := filled_to(learner.params, encoding.max_length):
            ids = ids.filled(filled, fill)
    rows, starts = ids.flat, ids.starts
    if part is None and not net.reads_ids:
        words = read_only(encoding.encoder.words)
    elif part is not None:
        rows = split.features[part]
        if part.fill:
            starts = np.arange(len(split) + 1) * part.fill
    pooled = part is not None and part.pooling != "tokens"
    rows_device = device.torch_device if device.holds(rows.nbytes) else torch.device("cpu")
    terms = None
    if encoding.terms:
        precomputed = (matrix for counted_with, matrix in split.counted.values() if counted_with is encoding.terms)
        matrix = next(precomputed, None)
        matrix = encoding.terms.transform(split.texts) if matrix is None else matrix
        # The indices keep their 32 bits: a copy would double the memory that all workers share.
        begins = matrix.indptr.astype(np.int64)
        on_device = (read_only(a).to(device.torch_device) for a in (matrix.indices, matrix.data, begins))
        terms = (*on_device, np.diff(begins))
    return Gathered(
        read_only(rows).to(rows_device),
        None if pooled else read_only(starts).to(rows_device),
        np.diff(starts),
        None if words is None else words.to(rows_device),
        fill,
        terms,
    )


def _terms(
    terms: tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray], index: Rows, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    columns, weights, begins, counts = terms
    total = int(counts[index.here].sum())  # computed on the CPU: no wait for the device
    begin = begins[index.there]
    lengths = begins[index.there + 1] - begin
    starts = lengths.cumsum(0) - lengths
    rows = torch.repeat_interleave(begin - starts, lengths, output_size=total) + torch.arange(total, device=device)
    return columns[rows], weights[rows], starts.to(columns.dtype)
