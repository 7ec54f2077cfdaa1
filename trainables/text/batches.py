"""Encoded texts, and the batches that are made of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from trainables.base.batches import Rows, read_only
from trainables.base.training import Learner
from trainables.text import ragged
from trainables.text.encoders import Encoder, Frozen
from trainables.text.models import TextBatch, frozen_part
from trainables.text.ragged import Ragged
from trainables.text.tfidf import Terms


@dataclass(frozen=True, eq=False)
class EncodedSplit:
    """Texts with their token ids, their labels (n,) int64, and their features from the frozen encoder.

    `counted` are their TF-IDF features, of words alone (False) and of pieces of words too (True), with the terms that
    they were counted with.
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
class Reading:
    """How a model reads texts, and which classes it knows.

    Attributes:
        positive: of two classes the one that is rarer in train, to which the decision threshold applies.
        terms: of TF-IDF, those of train; None for a model without.
    """

    encoder: Encoder
    max_length: int
    classes: tuple[str, ...]
    positive: int
    terms: Terms | None


def merge(one: EncodedSplit, other: EncodedSplit) -> EncodedSplit:
    """Joins two splits; their TF-IDF features depend on the texts of both."""
    return replace(
        one,
        texts=np.concatenate([one.texts, other.texts]),
        labels=np.concatenate([one.labels, other.labels]),
        ids=ragged.join(one.ids, other.ids),
        features={part: np.concatenate([one.features[part], other.features[part]]) for part in one.features},
        counted={},
    )


@dataclass(frozen=True)
class Gathered:
    """A split where its batches are gathered: on the device, or on the processor where it would fill the device.

    Attributes:
        rows: features (texts, width); or, with `starts`, the states (tokens, width) or ids (tokens,) of all texts.
        starts: where the tokens of each text begin in `rows`, and behind the last where they end, (texts + 1,).
        lengths: the same numbers of tokens on the processor.
        words: the embedding of each token id, (words, width), where `rows` are ids.
        terms: the TF-IDF features of all texts: indices, weights, where those of each text begin (texts + 1,), and
            their numbers on the processor.
    """

    rows: torch.Tensor
    starts: torch.Tensor | None
    lengths: np.ndarray
    words: torch.Tensor | None
    terms: tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray] | None


def batch(learner: Learner, split: EncodedSplit, index: Rows) -> TextBatch:
    """A batch of the texts `index` of a split, on the learner's device."""
    whole = learner.resident(split, lambda: _gathered(learner, split))
    at, device = index.there.to(whole.rows.device), learner.device.torch_device
    if whole.starts is None:
        states, mask = whole.rows[at], None
    else:
        steps = torch.arange(int(whole.lengths[index.here].max()), device=at.device)
        begin = whole.starts[at][:, None]
        mask = steps < whole.starts[at + 1][:, None] - begin
        states = whole.rows[(begin + steps).clamp_(max=len(whole.rows) - 1)]
        if whole.words is None:
            states.masked_fill_(~mask.unsqueeze(-1), 0)
        else:
            states = whole.words[states.masked_fill_(~mask, 0)]
        mask = mask.to(device)
    return TextBatch(states.to(device), mask, None if whole.terms is None else _terms(whole.terms, index, device))


def _gathered(learner: Learner, split: EncodedSplit) -> Gathered:
    device, reading = learner.device, learner.extra["reading"]
    part = frozen_part(learner.params, reading.encoder.layers, reading.max_length)
    rows, starts, words = split.ids.flat, split.ids.starts, None
    if part is None:
        words = read_only(reading.encoder.weights["embeddings.word_embeddings.weight"])
    else:
        rows = split.features[part]
        if part.fill:
            starts = np.arange(len(split) + 1) * part.fill
    pooled = part is not None and part.pooling != "tokens"
    place = device.torch_device if device.holds(rows.nbytes) else torch.device("cpu")
    terms = None
    if reading.terms:
        known = (found for counted_with, found in split.counted.values() if counted_with is reading.terms)
        found = next(known, None)
        found = reading.terms.transform(split.texts) if found is None else found
        # Columns stay as they are, 32 bits each: what was counted once lies in memory once for all workers.
        begins = found.indptr.astype(np.int64)
        on_device = (read_only(a).to(device.torch_device) for a in (found.indices, found.data, begins))
        terms = (*on_device, np.diff(begins))
    return Gathered(
        read_only(rows).to(place),
        None if pooled else read_only(starts).to(place),
        np.diff(starts),
        None if words is None else words.to(place),
        terms,
    )


def _terms(
    terms: tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray], index: Rows, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    columns, weights, begins, counts = terms
    total = int(counts[index.here].sum())  # known on the processor, so that the device need not be asked
    begin = begins[index.there]
    own = begins[index.there + 1] - begin
    starts = own.cumsum(0) - own
    at = torch.repeat_interleave(begin - starts, own, output_size=total) + torch.arange(total, device=device)
    return columns[at], weights[at], starts.to(columns.dtype)
