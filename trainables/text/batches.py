"""Encoded texts, and the batches that are made of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from trainables.base.training import Learner
from trainables.text import ragged
from trainables.text.encoders import Encoder, Frozen, read_only
from trainables.text.models import TextBatch, frozen_part
from trainables.text.ragged import Ragged


@dataclass(frozen=True, eq=False)
class EncodedSplit:
    """Texts with their token ids, their labels (n,) int64, and their features from the frozen encoder."""

    texts: np.ndarray
    labels: np.ndarray
    ids: Ragged
    encoder: Encoder
    max_length: int
    features: dict[Frozen, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Reading:
    """How a model reads texts, and which classes it knows.

    Attributes:
        positive: of two classes the one that is rarer in train, to which the decision threshold applies.
        vectorizer: TF-IDF fitted on train; None for a model without.
    """

    encoder: Encoder
    max_length: int
    classes: tuple[str, ...]
    positive: int
    vectorizer: Any
    #: The TF-IDF rows of each split that was read, sparse (n, terms).
    terms: WeakKeyDictionary[EncodedSplit, Any] = field(default_factory=WeakKeyDictionary)


def merge(one: EncodedSplit, other: EncodedSplit) -> EncodedSplit:
    """Joins two splits."""
    return replace(
        one,
        texts=np.concatenate([one.texts, other.texts]),
        labels=np.concatenate([one.labels, other.labels]),
        ids=ragged.join(one.ids, other.ids),
        features={part: np.concatenate([one.features[part], other.features[part]]) for part in one.features},
    )


def batch(learner: Learner, split: EncodedSplit, index: np.ndarray) -> TextBatch:
    """A batch of the texts `index` of a split, on the learner's device."""
    device, reading = learner.device.torch_device, learner.extra["reading"]
    part = frozen_part(learner.params, reading.encoder.layers, reading.max_length)
    if part is None:
        ids, mask = split.ids.padded(index)
        states = read_only(reading.encoder.weights["embeddings.word_embeddings.weight"])[torch.from_numpy(ids)]
    elif part.pooling == "tokens":
        starts = np.arange(len(split) + 1) * part.fill if part.fill else split.ids.starts
        values, mask = Ragged(split.features[part], starts).padded(index)
        states = torch.from_numpy(values)
    else:
        states, mask = torch.from_numpy(split.features[part][index]), None
    return TextBatch(
        states.to(device),
        None if mask is None else torch.from_numpy(mask).to(device),
        None if reading.vectorizer is None else _terms(reading, split, index, device),
    )


def _terms(
    reading: Reading, split: EncodedSplit, index: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if split not in reading.terms:
        reading.terms[split] = reading.vectorizer.transform(split.texts)
    rows = reading.terms[split][index]
    columns, starts = rows.indices.astype(np.int64), rows.indptr[:-1].astype(np.int64)
    return tuple(torch.from_numpy(array).to(device) for array in (columns, rows.data, starts))  # type: ignore[return-value]
