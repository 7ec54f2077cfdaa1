"""Networks on top of a frozen encoder: heads, trained encoder blocks, and TF-IDF features."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from trainables.base.dropout import Dropout
from trainables.base.errors import InputError
from trainables.base.task import Params
from trainables.text import lora
from trainables.text.blocks import Opened, blocks_of, write_into
from trainables.text.encoders import Encoder, Frozen, mean_of, through

if TYPE_CHECKING:
    from transformers import DistilBertForSequenceClassification, DistilBertModel, PreTrainedModel

HEADS = ("classifier", "tokens", "cnn")
#: Kernel widths of the convolutional head.
WIDTHS = (3, 4, 5)


@dataclass(frozen=True)
class TextBatch:
    """The input of a network.

    Attributes:
        states: pooled features (batch, width), states (batch, tokens, width), or, if the whole encoder trains, token
            ids (batch, tokens).
        mask: (batch, tokens), true on tokens; None if `states` are pooled.
        tfidf: indices, weights and starts of the TF-IDF features, as `embedding_bag` takes them; None without TF-IDF.
    """

    states: torch.Tensor
    mask: torch.Tensor | None
    tfidf: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None


class Classifier(nn.Module):
    """The head of `DistilBertForSequenceClassification`: pre-classifier, ReLU, dropout, classifier."""

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.pre_classifier = nn.Linear(width, width)
        self.activation = nn.ReLU()
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(width, classes)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """(batch, width) -> logits (batch, classes)."""
        return self.classifier(self.dropout(self.activation(self.pre_classifier(pooled))))


class TokenHalving(nn.Module):
    """Four layers of Linear and ReLU on each token halve the width four times; then one layer reads all tokens."""

    def __init__(self, width: int, tokens: int, classes: int, dropout: float) -> None:
        super().__init__()
        widths = [max(1, width // 2**k) for k in range(5)]
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
        self.halving = nn.Sequential(*layers)
        self.dropout = Dropout(dropout)
        self.tokens = tokens
        self.output = nn.Linear(tokens * widths[-1], classes)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(batch, up to `tokens`, width) -> logits (batch, classes); padding counts as zero."""
        halved = self.halving(states).masked_fill(~mask.unsqueeze(-1), 0.0)
        halved = F.pad(halved, (0, 0, 0, self.tokens - halved.shape[1]))
        return self.output(self.dropout(halved.flatten(1)))


class Convolutions(nn.Module):
    """Convolutions over word embeddings with max-over-time pooling (Kim 2014, arXiv:1408.5882)."""

    def __init__(self, width: int, filters: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(width, filters, k, padding=k - 1) for k in WIDTHS)
        self.activation = nn.ReLU()
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(filters * len(WIDTHS), classes)

    def forward(self, embedded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width) -> logits (batch, classes)."""
        sequence = embedded.masked_fill(~mask.unsqueeze(-1), 0.0).transpose(1, 2)
        pooled = torch.cat([convolution(sequence).amax(2) for convolution in self.convolutions], 1)
        # ReLU after the maximum gives the same result as before it.
        return self.output(self.dropout(self.activation(pooled)))


class TextNet(nn.Module):
    """The network that a trial trains: trained encoder blocks, a head, and weights of TF-IDF features.

    Its input are the states of the frozen encoder blocks, or the token ids if the whole encoder trains.

    Attributes:
        opened: the trained part of the encoder; None if nothing of it trains.
        blocks: the trained blocks of a DistilBERT, in place of `opened`, for a trial of an earlier version.
    """

    def __init__(self, encoder: Encoder, params: Params, classes: int, max_length: int, terms: int) -> None:
        """
        Args:
            terms: the number of TF-IDF features. Their weighted sum is added to the head's logits.
        """
        super().__init__()
        kind, opened, dropout = params["model.head"], opened_blocks(params), params["dropout"]
        self.pooling, self.kind = params["model.pooling"], kind
        self.blocks = nn.ModuleList()
        self.opened: Opened | None = None
        self.adapters = params.get("model.lora") or 0 if opened else 0
        # Earlier versions had no adapters. Their checkpoints hold weights of `blocks`, and their trials resume to the
        # same bits.
        if opened and not (encoder.is_distilbert and "model.lora" not in params):
            self.opened = Opened(encoder.model(), opened)
        elif isinstance(opened, int) and opened:
            model = encoder.model()
            self.config = model.config
            for block in model.transformer.layer[encoder.layers - opened :]:
                # Copied: other trials may share the weights.
                self.blocks.append(copy.deepcopy(block).requires_grad_(True))
        if kind == "classifier":
            self.head: nn.Module = Classifier(encoder.width, classes, dropout)
        elif kind == "tokens":
            self.head = TokenHalving(encoder.width, max_length, classes, dropout)
        else:
            self.head = Convolutions(encoder.words.shape[1], params["model.filters"], classes, dropout)
        self.terms = nn.Parameter(torch.zeros(terms, classes)) if terms else None
        if self.opened is not None and self.adapters:  # after the head, whose first weights do not depend on the rank
            lora.add(self.opened, self.opened.blocks, self.adapters)

    def without_encoder(self) -> nn.Module:
        """A module with the weights of this network, those of the encoder excepted."""
        module: Any = nn.Module()
        module.head, module.terms = self.head, self.terms
        return module

    @property
    def trained_blocks(self) -> nn.ModuleList:
        """The encoder blocks that train, the lowest first."""
        return self.blocks if self.opened is None else self.opened.blocks

    @property
    def reads_ids(self) -> bool:
        """Whether the input of the network are token ids, because the whole encoder trains."""
        return self.opened is not None and self.opened.reads_ids

    def write_encoder(self, model: PreTrainedModel) -> None:
        """Replaces weights of an encoder by those that were trained, in place. Adapters are added to the weights."""
        opened = self.opened
        if opened is None:
            for block, trained in zip(reversed(list(blocks_of(model) or ())), reversed(self.blocks), strict=False):
                block.load_state_dict(trained.state_dict(), assign=True)
            return
        if self.adapters:
            opened = copy.deepcopy(opened)
            lora.merge(opened)
        write_into(model, opened)

    @property
    def is_sequence_classifier(self) -> bool:
        """Whether the encoder and this network are together a `DistilBertForSequenceClassification`."""
        return self.kind == "classifier" and self.pooling == "cls" and self.terms is None

    def as_sequence_classifier(
        self, encoder: DistilBertModel, classes: tuple[str, ...]
    ) -> DistilBertForSequenceClassification:
        """Joins this head and an encoder into one transformers model."""
        from transformers import DistilBertForSequenceClassification

        head: Any = self.head
        config = encoder.config
        config.id2label = dict(enumerate(classes))
        config.label2id = {name: code for code, name in enumerate(classes)}
        config.seq_classif_dropout = head.dropout.p
        whole = DistilBertForSequenceClassification(config)
        whole.distilbert, whole.pre_classifier, whole.classifier = encoder, head.pre_classifier, head.classifier
        return whole.eval()

    def forward(self, batch: TextBatch) -> torch.Tensor:
        """Logits (batch, classes), float32."""
        states = batch.states
        if self.opened is not None and batch.mask is not None:
            states = self.opened(states, batch.mask)
        elif len(self.blocks):
            states = through(self.blocks, states, batch.mask, self.config)
        if self.kind == "classifier":
            if batch.mask is not None:
                states = states[:, 0] if self.pooling == "cls" else mean_of(states, batch.mask)
            logits = self.head(states)
        else:
            logits = self.head(states, batch.mask)
        if self.terms is not None and batch.tfidf is not None:
            features, weights, starts = batch.tfidf
            logits = logits + F.embedding_bag(features, self.terms, starts, mode="sum", per_sample_weights=weights)
        return logits.float()


def opened_blocks(params: Params) -> int | str:
    """The number of encoder blocks that a configuration trains, or `all`. The head `cnn` reads word embeddings only."""
    return 0 if params["model.head"] == "cnn" else params["model.unfreeze"] or 0


def frozen_part(params: Params, layers: int, max_length: int) -> Frozen | None:
    """The features that a configuration needs from the frozen encoder; None: only its word embeddings, or none at all
    because the whole encoder trains."""
    kind, opened = params["model.head"], opened_blocks(params)
    if kind == "cnn" or isinstance(opened, str):
        return None
    if kind == "tokens":
        return Frozen(layers - opened, "tokens", filled_to(params, max_length))
    return Frozen(layers - opened, "tokens" if opened else params["model.pooling"])


def filled_to(params: Params, max_length: int) -> int:
    """The length to which texts are padded with tokens that the encoder reads as text; 0: padding is masked."""
    return max_length if params["model.head"] == "tokens" and not params["model.mask_padding"] else 0


def parameter_groups(net: TextNet, params: Params) -> list[dict[str, Any]]:
    """Parameter groups with learning rates: `lr` for the head, `tfidf_lr` for TF-IDF weights, and `encoder_lr` *
    `encoder_lr_decay` ** k for the k-th encoder block from the top.

    Of a whole encoder, the layers behind the last block have the rate of this block, and the embeddings the rate of one
    more block below the first.
    """
    groups: list[dict[str, Any]] = [{"params": list(net.head.parameters()), "lr": params["lr"]}]
    if net.terms is not None:
        groups.append({"params": [net.terms], "lr": params["tfidf_lr"]})
    opened = opened_blocks(params)
    if opened and (params["encoder_lr"] is None or params["encoder_lr_decay"] is None):
        raise InputError(
            f"encoder_lr: no value with model.unfreeze={opened}: give encoder_lr and encoder_lr_decay, as in --set "
            "encoder_lr=3e-5 --set encoder_lr_decay=0.8"
        )
    parts = [list(block.parameters()) for block in reversed(net.trained_blocks)]
    if net.opened is not None and net.reads_ids:
        model: Any = net.opened.model
        in_blocks = {id(p) for part in parts for p in part}
        below = {id(p) for p in model.embeddings.parameters()} if hasattr(model, "embeddings") else set()
        rest = [p for p in model.parameters() if id(p) not in in_blocks]
        parts.append([p for p in rest if id(p) in below])
        parts[0] = parts[0] + [p for p in rest if id(p) not in below]
    for depth, part in enumerate(parts):
        trained = [p for p in part if p.requires_grad]
        if trained:
            groups.append({"params": trained, "lr": params["encoder_lr"] * params["encoder_lr_decay"] ** depth})
    return groups


def classification_loss(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None, focus: float
) -> torch.Tensor:
    """The mean loss of a batch: cross-entropy with class weights, or with `focus` > 0 the focal loss,
    (1 - p)^focus times the cross-entropy (Lin et al. 2017, arXiv:1708.02002)."""
    log_p = logits.log_softmax(1)
    if not focus:
        return F.nll_loss(log_p, labels, weights)
    own = log_p.gather(1, labels[:, None]).squeeze(1)
    return ((1 - own.exp()) ** focus * -own).mean()
