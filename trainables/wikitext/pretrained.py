"""Causal language models of transformers: loading, tokens, perplexity per word, and the parts that train.

The perplexity per word of a text is

    exp(total negative log-likelihood of its tokens except the first / number of its words except the first)

in nats, with words counted as `basic_english` cuts them, as for a model that is trained over words. Radford et al. 2019
(Language Models are Unsupervised Multitask Learners, section 3.1) divide by the number of original units in the same
way, so that models with different tokens can be compared. The tokens hold more than the words: upper case, quotation
marks, line ends and rare words. A pretrained model has to predict them all, and gets no easier figure.
"""

from __future__ import annotations

import copy
import importlib.util
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from trainables import InputError, Params, array_digest
from trainables.base.batches import read_only
from trainables.base.errors import first_line
from trainables.base.finetuning import ALL
from trainables.base.values import Numbers
from trainables.wikitext.tokenizer import basic_english

# The import of transformers takes seconds. Functions import it.
if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

KEY = "model.pretrained"
#: Hyperparameters that a pretrained model alone has, with their allowed values.
ITS_OWN: dict[str, Numbers] = {
    "model.unfreeze": Numbers(whole=True, null=True, words=(ALL,)),
    "model.lora": Numbers(whole=True),
}
#: Hyperparameters that only a model has that is trained from nothing. With a pretrained model they are null.
FROM_NOTHING = (
    "embedding", "heads", "hidden", "layers", "dropout", "softmax", "mixture", "tied", "norm_first", "positions",
)  # fmt: skip
#: The number of lines that are tokenized at once, between two reports of the progress.
LINES = 2000
#: The largest difference of two logits that ought to be equal, as a share of the deviation of all logits. Rounding
#: makes 1e-6, and a tiny BERT of random weights 3e-3.
CLOSE = 1e-4
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, eq=False)
class Tokens:
    """A split in the tokens of a pretrained model.

    Attributes:
        ids: (n,) int32.
        words: (n,) int32, for each token the position of its word among the words of the split.
    """

    ids: np.ndarray
    words: np.ndarray

    @classmethod
    def of(cls, both: np.ndarray) -> Tokens:
        """Tokens of an array (2, n)."""
        return cls(both[0], both[1])

    def joined(self, other: Tokens, count: int) -> Tokens:
        """These tokens, followed by those of another split. `count` is the number of words of this split."""
        return Tokens(np.concatenate([self.ids, other.ids]), np.concatenate([self.words, other.words + count]))


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A model and its tokenizer as plain arrays and files, which workers on any machine read without a copy.

    Attributes:
        name: the hub id or folder.
        config: the configuration of transformers.
        weights: float32, by name. Of tied weights there is one.
        files: the files of the tokenizer.
        layers: the number of blocks.
        size: the number of tokens that the model knows. A tokenizer may have more, which no text may hold.
    """

    name: str
    config: Any
    weights: dict[str, np.ndarray]
    files: dict[str, bytes]
    layers: int
    size: int

    @property
    def digest(self) -> str:
        """A hash of weights, configuration and tokenizer."""
        names = "\0".join([*self.weights, *self.files, self.config.to_json_string()])
        return array_digest([names.encode(), *self.weights.values(), *self.files.values()])

    @property
    def context(self) -> int | None:
        """The largest number of tokens that the model reads at once; None: no limit is known."""
        return context_of(self.config)

    def net(self) -> PreTrainedModel:
        """The model on the CPU. Its weights are shared and must not be written to."""
        from transformers import AutoModelForCausalLM

        with _quiet():
            net = AutoModelForCausalLM.from_config(copy.deepcopy(self.config), dtype=torch.float32)
        net.load_state_dict({name: read_only(array) for name, array in self.weights.items()}, strict=False, assign=True)
        net.tie_weights()
        return net

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.files.items():
                (Path(folder) / name).write_bytes(content)
            return load_tokenizer(folder)


def context_of(config: Any) -> int | None:
    """The largest number of tokens of an input; None: the configuration names no limit."""
    return getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no warnings of transformers inside the block."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Turns an error of transformers or safetensors into an InputError that names the model."""
    from safetensors import SafetensorError

    try:
        with _quiet():
            yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{KEY}: {name!r} cannot be loaded ({first_line(error)}); allowed are a hub id or a folder of a causal "
            "language model of transformers with weights in safetensors, or null to train from nothing"
        ) from error


def config_of(name: str) -> Any:
    """The configuration of a model; raises InputError if there is none, or if it is no causal language model."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    with _loading(name):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise InputError(f"{KEY}: {name!r} is a {config.model_type} model, which is no causal language model")
    return config


def load_net(name: str) -> PreTrainedModel:
    """The model in float32 on the CPU; raises InputError if it cannot be loaded whole."""
    from transformers import AutoModelForCausalLM

    with _loading(name):
        net, about = AutoModelForCausalLM.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    if missing := sorted(about["missing_keys"]):
        raise InputError(f"{KEY}: {name!r}: {len(missing)} weights are missing, such as {missing[0]}")
    return net.eval()


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a model; raises InputError if it cannot be loaded."""
    from transformers import AutoTokenizer

    with _loading(name):
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise InputError(f"{KEY}: {name!r}: its tokenizer has no fast version (tokenizer.json)")
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def load(name: str) -> Pretrained:
    """Loads a model by its hub id or folder.

    Raises:
        InputError: it cannot be loaded, or it is no causal language model.
    """
    config_of(name)
    net, tokenizer = load_net(name), load_tokenizer(name)
    config = net.config
    _check_causal(net, name)
    weights, seen = {}, set()
    for key, tensor in net.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            weights[key] = tensor.detach().numpy()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}
    return Pretrained(name, config, weights, files, len(_blocks(net)[1]), net.get_input_embeddings().num_embeddings)


def _logits(net: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    # The mask says that no token is padding. Without it transformers warns of texts that hold the padding token.
    return net(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits


@torch.no_grad()
def _check_causal(net: PreTrainedModel, name: str) -> None:
    """Raises InputError if a state depends on later tokens: the perplexity would mean nothing."""
    tokens = torch.arange(1, 9)[None] % net.get_input_embeddings().num_embeddings
    other = tokens.clone()
    other[0, -1] = 0
    first, second = (_logits(net, each)[:, :-1] for each in (tokens, other))
    if (first - second).abs().max() > CLOSE * first.std():
        raise InputError(f"{KEY}: {name!r}: its predictions depend on later tokens; needed is a causal language model")


def _blocks(net: nn.Module) -> tuple[str, nn.ModuleList]:
    """The name and the list of the blocks of a model."""
    count = net.config.get_text_config(decoder=True).num_hidden_layers  # type: ignore[operator, union-attr]
    for name, module in net.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise InputError(f"{KEY}: a {type(net).__name__} has no list of {count} blocks")


def check(params: Params) -> None:
    """Checks the hyperparameters of a configuration, of which some may be missing.

    Raises:
        InputError: a hyperparameter means nothing for the kind of model, the model cannot be loaded, or it has fewer
            blocks or a shorter context.
    """
    name = params.get(KEY)
    if name is None:
        for key in (*FROM_NOTHING, "bptt"):
            if key in params and params[key] is None:
                raise InputError(f"{key}: null: only a pretrained model has none")
        for key in ITS_OWN:
            if params.get(key) is not None:
                raise InputError(f"{key}: {params[key]!r}: means nothing without {KEY}")
        return
    for key in FROM_NOTHING:
        if params.get(key) is not None:
            raise InputError(f"{key}: {params[key]!r}: means nothing with {KEY}; leave it out")
    lora, opened = params.get("model.lora"), params.get("model.unfreeze")
    if lora and opened not in (None, 0):
        raise InputError(f"model.unfreeze: {opened!r}: with model.lora {lora} the adapters train alone; leave it out")
    if lora and importlib.util.find_spec("peft") is None:
        raise InputError("model.lora: needs the library peft: pip install 'trial-search[lora]'")


def check_size(name: str, layers: int, context: int | None, opened: Sequence[Any], windows: Sequence[Any]) -> None:
    """Checks values of `model.unfreeze` and `bptt`.

    Raises:
        InputError: the model has fewer blocks, or its context is shorter.
    """
    for blocks in opened:
        if isinstance(blocks, int) and blocks > layers:
            raise InputError(f"model.unfreeze: {blocks}: {name} has {layers} blocks; allowed are 0 to {layers}, or all")
    if context is not None and (long := [tokens for tokens in windows if tokens and tokens > context]):
        raise InputError(f"bptt: {max(long)}: {name} reads at most {context} tokens at once")


class Finetuned(nn.Module):
    """A pretrained model with the weights that train. Its `state_dict` holds these weights alone.

    Args:
        net: the model.
        context: the number of tokens that it reads at once.
        params: `model.lora` is the rank of adapters on all linear layers of the blocks (0: none; Hu et al. 2021,
            arXiv:2106.09685, with the factor 2 of their product). `model.unfreeze` is the number of last blocks that
            train, together with the norm behind them, or `all` weights.

    Raises:
        InputError: no weight trains.
    """

    def __init__(self, net: PreTrainedModel, context: int, params: Params) -> None:
        super().__init__()
        self.context = context
        rank, opened = params.get("model.lora") or 0, params.get("model.unfreeze")
        net.requires_grad_(opened == ALL)
        if rank:
            net = _with_adapters(net, rank)
        elif opened != ALL:
            name, blocks = _blocks(net)
            count = opened or 0
            parent = net.get_submodule(name.rpartition(".")[0])
            norms = [
                child for own, child in parent.named_children()
                if "norm" in type(child).__name__.lower() and "emb" not in own
            ]  # fmt: skip
            for module in (*list(blocks)[len(blocks) - count :], *norms):
                module.requires_grad_(True)
        for parameter in net.parameters():
            if parameter.requires_grad:  # the others are shared by all trials of a machine
                parameter.data = parameter.data.clone()
        self.net = net
        if not self._trained():
            raise InputError(
                f"model.unfreeze: {opened!r}: no weight would train; give 1 or more, or all, or model.lora"
            )

    def _trained(self) -> set[str]:
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    def groups(self) -> list[dict[str, Any]]:
        """The weights that train as groups of an optimizer: weight decay of norms and biases would bias the model."""
        trained = [p for p in self.parameters() if p.requires_grad]
        plain = [p for p in trained if p.dim() <= 1]
        return [{"params": [p for p in trained if p.dim() > 1]}, {"params": plain, "weight_decay": 0.0}]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (batch, time) -> logits of the next token (batch, time, tokens)."""
        return _logits(self.net, tokens)

    def losses(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The cross-entropy in nats of each target (batch, time), flat: (batch x time,) float32."""
        return F.cross_entropy(self(tokens).flatten(0, 1).float(), targets.flatten(), reduction="none")

    def loss(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy in nats of `targets` (batch, time), the next token of each of `tokens`."""
        return self.losses(tokens, targets).mean()

    def whole(self) -> PreTrainedModel:
        """A copy of the model on the CPU, with each adapter added to its layer."""
        net: Any = copy.deepcopy(self.net).cpu()
        return net.merge_and_unload() if hasattr(net, "merge_and_unload") else net

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        trained = self._trained()
        return {name: tensor for name, tensor in super().state_dict(*args, **kwargs).items() if name in trained}

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        if strict and state.keys() != self._trained():
            differing = sorted(state.keys() ^ self._trained())
            raise RuntimeError(f"the weights that train differ: {differing[0]}")
        return super().load_state_dict(state, strict=False, assign=assign)


def save(model: Finetuned, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes a transformers checkpoint with its tokenizer."""
    with _quiet():
        model.whole().save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _with_adapters(net: PreTrainedModel, rank: int) -> Any:
    from peft import LoraConfig, get_peft_model

    transposed = any(type(module).__name__ == "Conv1D" for module in net.modules())  # the linear layers of GPT-2
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM", fan_in_fan_out=transposed
    )
    return get_peft_model(net, config)


def encode(
    tokenizer: PreTrainedTokenizerFast, lines: Sequence[str], boundaries: bool,
    progress: Callable[[int, int], None] = lambda done, total: None, end: str = "\n",
) -> np.ndarray:  # fmt: skip
    """Tokenizes lines, each with its line end and without special tokens. Lines without a word are left out.

    Args:
        boundaries: whether each line counts two more words, for its begin and its end.

    Returns:
        (2, n) int32: the ids of the tokens, and for each token the position of its word among the words of all lines.
        A chunk between blanks, such as `(move)`, may have several words: its tokens belong to the first of them. A
        line end belongs to the last chunk.
    """
    ids: list[np.ndarray] = []
    words: list[np.ndarray] = []
    before = 0
    for start in range(0, len(lines), LINES):
        counted = [(line, basic_english(line)) for line in lines[start : start + LINES]]
        some = [(line, len(found)) for line, found in counted if found]
        encodings = tokenizer.backend_tokenizer.encode_batch([line + end for line, _ in some], add_special_tokens=False)
        for (line, count), encoding in zip(some, encodings, strict=True):
            chunks = [(match.start(), len(basic_english(match.group()))) for match in _WORD.finditer(line)]
            first = np.concatenate([[0], np.cumsum([size for _, size in chunks])[:-1]])
            # The last character decides: tokens of GPT-2 begin with the blank before their word.
            last = np.array([stop - 1 for _, stop in encoding.offsets], dtype=np.int64)
            chunk = np.searchsorted([begin for begin, _ in chunks], last, side="right") - 1
            own = np.minimum(first[np.maximum(chunk, 0)], count - 1) + before + boundaries
            ids.append(np.array(encoding.ids, dtype=np.int32))
            words.append(own.astype(np.int32))
            before += count + 2 * boundaries
        progress(min(start + LINES, len(lines)), len(lines))
    if not ids:
        return np.zeros((2, 0), dtype=np.int32)
    return np.stack([np.concatenate(ids), np.concatenate(words)])
