"""A language model of running text: it predicts each word from the words before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from trainables import (
    Allowed,
    Choices,
    DataInfo,
    Device,
    Finding,
    InputError,
    Learner,
    Numbers,
    Objective,
    Params,
    Progress,
    Splits,
    check_params,
    fit_batches,
    make_optimizer,
    make_schedule,
)  # fmt: skip
from trainables.base import plots
from trainables.base.exported import finished, load_weights, read_about, write_about, write_model
from trainables.base.files import read_whole
from trainables.base.optimizers import ALLOWED as OPTIMIZED
from trainables.base.tables import decode as decode_bytes
from trainables.base.tables import named_lines
from trainables.base.values import COUNT, SWITCH
from trainables.wikitext import data as reading
from trainables.wikitext import look, mixture, pretrained
from trainables.wikitext.data import Corpus, batchify
from trainables.wikitext.generate import generate
from trainables.wikitext.model import POSITIONS, SOFTMAXES, LanguageModel
from trainables.wikitext.ngram import KneserNey
from trainables.wikitext.pretrained import Finetuned, Tokens
from trainables.wikitext.tokenizer import START, UNKNOWN, basic_english, decode, encode

#: The number of windows in a batch of the evaluation.
EVAL_BATCH = 20
#: The number of neighbouring words that the bootstrap draws together, because neighbours depend on each other.
UNIT = 500
#: Orders of the n-gram baselines.
ORDERS = (2, 5)
#: The number of sentences that `samples` writes, and the number of words of each.
SENTENCES, WORDS = 3, 20
SIZE = Numbers(1, whole=True, null=True)
#: The allowed values of the hyperparameters.
ALLOWED: Allowed = {
    **OPTIMIZED, "embedding": SIZE, "heads": SIZE, "hidden": SIZE, "layers": SIZE,
    "dropout": Numbers(0, 1, below=True, null=True),
    "sgd_lr": Numbers(), "adam_lr": Numbers(), "clip_norm": Numbers(above=True, null=True), "batch_size": COUNT,
    "bptt": COUNT, "parts": COUNT, "softmax": (*SOFTMAXES, None), "mixture": (*SWITCH, None), "tied": (*SWITCH, None),
    "norm_first": (*SWITCH, None), "positions": (*POSITIONS, None), "temperature": Numbers(),
    "top_k": Numbers(whole=True), "top_p": Numbers(0, 1, above=True), **pretrained.ITS_OWN,
}  # fmt: skip


#: The example program of a model that began with a pretrained one.
USAGE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("."), AutoModelForCausalLM.from_pretrained(".")
# The perplexity was measured in windows of {window} tokens.
prompt = tokenizer("the history of", return_tensors="pt", add_special_tokens=False)
print(tokenizer.decode(model.generate(**prompt, do_sample=True, max_new_tokens=20)[0]))
"""


class WikitextTask:
    name = "wikitext"
    objective = Objective("perplexity", "min", tuned=("ngram_weight", "cache_weight"))
    allowed = ALLOWED

    def prepare(self, data: dict[str, Any], source: Path | None, cache: Path, progress: Progress) -> Splits:
        return reading.prepare(data, source)

    def describe_source(self, data: dict[str, Any]) -> str:
        return f"{reading.choose(data['corpus'])[1]} (--data FILE|FOLDER|ZIP for your own)"

    def check(self, params: Params) -> None:
        pretrained.check(params)
        if (name := params.get(pretrained.KEY)) is not None:
            config = pretrained.config_of(name)
            layers = config.get_text_config(decoder=True).num_hidden_layers
            opened, window = params.get("model.unfreeze"), params.get("bptt")
            pretrained.check_size(name, layers, pretrained.context_of(config), [opened], [window])
            return
        width, heads = params.get("embedding"), params.get("heads")
        if width is not None and heads is not None and width % heads:
            raise InputError(f"embedding: {width}: must be a multiple of heads ({heads})")

    def leaks(self, splits: Splits) -> list[Finding]:
        return look.repeated_stretches(splits)

    def overview(self, splits: Splits) -> list[Finding]:
        return [look.most_frequent(splits)]

    def precompute(self, splits: Splits, choices: Choices, device: Device, cache: Path, progress: Progress) -> Splits:
        """Loads the pretrained models of the space, and tokenizes the text for each."""
        return reading.encoded(splits, choices, cache, progress)

    def build(self, params: Params, splits: Splits, epochs: int, device: Device) -> Learner:
        check_params(self.allowed, params)
        extra = {"words": splits.train.words, "train": splits.train}
        model: LanguageModel | Finetuned
        if (name := params.get(pretrained.KEY)) is None:
            self.check(params)
            model = LanguageModel(len(splits.train.words), params["bptt"], params, device.dtype)
        else:
            pretrained.check(params)
            start = extra["pretrained"] = splits.train.models[name]
            model = Finetuned(start.net(), params["bptt"], params)
        model.to(device.torch_device)
        rate = params["sgd_lr"] if params["optimizer"] == "sgd" else params["adam_lr"]
        weights = model.groups() if isinstance(model, Finetuned) else model.parameters()
        optimizer = make_optimizer(weights, {**params, "lr": rate})
        schedule = make_schedule(optimizer, params["schedule"], epochs)
        return Learner(model, optimizer, schedule, device, params, extra=extra)

    def train_epoch(self, learner: Learner, split: Corpus) -> dict[str, float]:
        """Trains one of `parts` equal parts of a pass over the split. A part has at least one step."""
        params, model = learner.params, learner.model
        stream = batchify(_stream(learner, split), params["batch_size"]).t().contiguous()  # (batch, length)
        length = params["bptt"]
        starts = range(0, stream.shape[1] - 1, length)  # the last word is no start: no word follows it
        parts = min(params["parts"], len(starts))
        part = (learner.epoch - 1) % parts
        mine = starts[part * len(starts) // parts : (part + 1) * len(starts) // parts]

        def forward(window: torch.Tensor) -> tuple[torch.Tensor, int, dict[str, torch.Tensor]]:
            data, target = window[:, :-1], window[:, 1:]
            return model.loss(data, target), target.numel(), {}  # type: ignore[operator]

        trained = fit_batches(learner, _Windows(stream, mine, length + 1), forward, params["clip_norm"])
        if isinstance(model, Finetuned):  # a loss for each word, as of validation
            trained["loss"] *= len(_ids(learner, split)) / len(split)
        learner.notes.setdefault("curve", []).append(trained["loss"])
        return trained | {"perplexity": exp_or_infinity(trained["loss"])}

    @torch.no_grad()
    def evaluate(self, learner: Learner, split: Corpus) -> dict[str, float]:
        """Loss and perplexity: every word except the first is predicted once, in windows of `bptt` words.

        Of a pretrained model every token except the first is predicted once, in windows of `bptt` tokens, and loss and
        perplexity are per word (see `pretrained`); `token_perplexity` is per token. No window reads the one before.

        With `mixture` they are the figures of the mixture, and `network_perplexity` is that of the network alone. In a
        search the weights of the mixture are fitted to the split, which is validation.
        """
        if learner.params.get("mixture"):
            return self._mixed(learner, split)[0]
        learner.model.eval()
        model: Any = learner.model
        stream = _stream(learner, split)
        total = torch.zeros((), device=stream.device, dtype=torch.float64)
        with learner.device.autocast():
            for data, target in _windows(stream, learner.params["bptt"]):
                total += model.loss(data, target) * target.numel()
        loss = total.item() / (len(split) - 1)
        metrics = {"loss": loss, "perplexity": exp_or_infinity(loss)}
        if isinstance(model, Finetuned):
            metrics["token_perplexity"] = exp_or_infinity(total.item() / (len(stream) - 1))
        return metrics

    def answer(self, learner: Learner, split: Corpus) -> Callable[[], object]:
        window = _stream(learner, split)[: learner.params["bptt"]][None]
        return lambda: learner.model(window)

    @torch.no_grad()
    def units(self, learner: Learner, split: Corpus) -> np.ndarray:
        """(stretches, 2): for each stretch of `UNIT` words the sum of the cross-entropies, and the number of words."""
        count = len(split) - 1
        starts = np.arange(0, count, UNIT)
        counts = np.diff(starts, append=count)
        losses = self._mixed(learner, split)[1] if learner.params.get("mixture") else _losses(learner, split)
        if isinstance(learner.model, Finetuned):
            place = _tokens(learner, split).words[1:]
            stretch = np.maximum(place - 1, 0) // UNIT  # the first word is not predicted, as far as it is one token
            return np.stack([np.bincount(stretch, losses, len(starts)), counts], 1)
        return np.stack([np.add.reduceat(losses, starts), counts], 1)

    def _mixed(self, learner: Learner, split: Corpus) -> tuple[dict[str, float], np.ndarray]:
        """The metrics of the mixture, and its loss on each word except the first."""
        network = _losses(learner, split)
        parts = np.concatenate([np.exp(-network)[None], mixture.components(learner.extra["train"], split)])
        given = [learner.params[name] for name in self.objective.tuned if learner.params.get(name) is not None]
        weights = np.array([1 - sum(given), *given]) if given else mixture.fit_weights(parts)
        losses = -np.log(weights @ parts)
        loss, alone = float(losses.mean()), exp_or_infinity(float(network.mean()))
        tuned = dict(zip(self.objective.tuned, weights[1:].tolist(), strict=True))
        return {"loss": loss, "perplexity": exp_or_infinity(loss), "network_perplexity": alone, **tuned}, losses

    def objective_of(self, sums: np.ndarray) -> np.ndarray:
        return np.exp(sums[..., 0] / sums[..., 1])

    def merge(self, splits: Splits) -> Corpus:
        train, val = splits.train, splits.val
        encoded = {name: tokens.joined(val.encoded[name], len(train)) for name, tokens in train.encoded.items()}
        return Corpus(np.concatenate([train.tokens, val.tokens]), train.words, encoded=encoded, models=train.models)

    def baselines(self, splits: Splits) -> dict[str, float]:
        """Kneser-Ney models, fitted to train and validation like the final model."""
        tokens, words = self.merge(splits).tokens, len(splits.train.words)
        return {f"{n}-gram": KneserNey(tokens, words, n).perplexity(splits.test.tokens) for n in ORDERS}

    def samples(self, learner: Learner) -> list[str]:
        """Sentences that the model writes, with a constant seed."""
        if isinstance(learner.model, Finetuned):
            tokenizer, generator = learner.extra["pretrained"].tokenizer(), torch.Generator().manual_seed(0)
            start = [_first(learner, tokenizer)]
            return [
                _continued(learner, tokenizer, start, _sampling(learner.params), generator) for _ in range(SENTENCES)
            ]
        settings, words = _sampling(learner.params), learner.extra["words"]
        generator = torch.Generator().manual_seed(0)
        never = [words.index(UNKNOWN)]
        begin = next((words.index(word) for word in (START, ".") if word in words), len(words) - 1)
        drawn = [
            generate(learner.model, [begin], WORDS, **settings, generator=generator, never=never)  # type: ignore[arg-type]
            for _ in range(SENTENCES)
        ]
        return [decode(words[i] for i in sentence) for sentence in drawn]

    def artifacts(self, learner: Learner, split: Corpus, info: DataInfo, folder: Path) -> None:
        (folder / "samples.txt").write_text("\n".join(self.samples(learner)) + "\n")
        curve = np.array(learner.notes["curve"])
        figure = plots.new_figure(10, 4)
        for axes, values, name in zip(
            figure.subplots(1, 2), (curve, np.exp(curve)), ("loss", "perplexity"), strict=True
        ):
            axes.plot(np.arange(1, len(values) + 1), values, "o-")
            axes.set(xlabel="epoch", ylabel=f"train {name}")
        plots.save_figure(figure, folder / "curves.png")

    def export(self, learner: Learner, info: DataInfo, folder: Path) -> None:
        """Writes the weights and the words; of a pretrained model a transformers checkpoint with its tokenizer."""
        if isinstance(learner.model, Finetuned):
            pretrained.save(learner.model, learner.extra["pretrained"].tokenizer(), folder)
            (folder / "usage.py").write_text(USAGE.format(window=learner.params["bptt"]))
            write_about(folder, {"params": learner.params})
            return
        about = {"params": learner.params, "words": learner.extra["words"]}
        write_model(folder, about, learner.model)

    def load(self, folder: Path) -> Learner:
        about = read_about(folder)
        params = about["params"]
        if params.get(pretrained.KEY) is not None:
            whole = params | {"model.lora": 0, "model.unfreeze": pretrained.ALL}
            finetuned = Finetuned(pretrained.load_net(str(folder)), params["bptt"], whole)
            return finished(finetuned, params, {"tokenizer": pretrained.load_tokenizer(str(folder))})
        words = tuple(about["words"])
        model = LanguageModel(len(words), params["bptt"], params, torch.float32)
        load_weights(model, folder / "weights.pt")
        return finished(model, params, {"words": words, "index": {word: i for i, word in enumerate(words)}})

    def inputs(self, arguments: Sequence[str]) -> pd.DataFrame:
        """A frame with a column `prompt`, from prompts or from files with a prompt on each line."""
        prompts: list[tuple[str, str]] = []
        for argument in arguments:
            if Path(argument).is_file():
                prompts += named_lines(argument, decode_bytes(read_whole(Path(argument)), argument))
            else:
                prompts.append((argument, argument))
        return pd.DataFrame({"prompt": [text for _, text in prompts]}, index=[name for name, _ in prompts])

    def predict(self, model: Learner, frame: pd.DataFrame) -> pd.DataFrame:
        """A frame with a column `prompt` -> `continuation` (20 words) and the prompt's `perplexity`.

        Columns `temperature`, `top_k`, `top_p` and `seed` override the model's settings for a row.
        """
        if isinstance(model.model, Finetuned):
            return pd.DataFrame([_answer(model, row) for _, row in frame.iterrows()], index=frame.index)
        words, index = model.extra["words"], model.extra["index"]
        net: Any = model.model
        rows = []
        for _, row in frame.iterrows():
            tokens = encode(basic_english(str(row["prompt"])), index).tolist()
            settings, generator = _drawing(model, row)
            drawn = generate(net, tokens or [0], WORDS, **settings, generator=generator, never=[index[UNKNOWN]])
            perplexity = math.nan
            if len(tokens) > 1:
                read = torch.tensor([tokens[-model.params["bptt"] - 1 :]])
                with torch.no_grad():
                    perplexity = exp_or_infinity(float(net.loss(read[:, :-1], read[:, 1:])))
            rows.append({"continuation": decode(words[i] for i in drawn), "perplexity": perplexity})
        return pd.DataFrame(rows, index=frame.index)

    def example(self, split: Corpus, info: DataInfo) -> pd.DataFrame:
        return pd.DataFrame({"prompt": [decode(split.words[i] for i in split.tokens[at : at + 5]) for at in (0, 50)]})


@dataclass(frozen=True)
class _Windows(Sequence[torch.Tensor]):
    """The windows (batch, `length`) of a stream (batch, n) that begin at `starts`."""

    stream: torch.Tensor
    starts: range
    length: int

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: Any) -> Any:
        start = self.starts[index]
        return self.stream[:, start : start + self.length]


def _drawing(model: Learner, row: pd.Series) -> tuple[dict[str, Any], torch.Generator]:
    """The settings of `generate` and the generator for a row of the frame of `predict`."""
    settings = {key: type(value)(row.get(key, value)) for key, value in _sampling(model.params).items()}
    return settings, torch.Generator().manual_seed(int(row.get("seed", 0)))


def _first(learner: Learner, tokenizer: Any) -> int:
    """The token before a text: the tokenizer's own sign for a begin if the model knows it, else the end of a line."""
    net: Any = learner.model
    begin, known = tokenizer.bos_token_id, net.net.get_input_embeddings().num_embeddings
    return begin if begin is not None and begin < known else tokenizer.encode(".\n", add_special_tokens=False)[-1]


def _continued(
    learner: Learner, tokenizer: Any, prompt: list[int], settings: dict[str, Any], generator: torch.Generator
) -> str:
    """The text of up to `WORDS` words that a pretrained model writes after a prompt. A word has about 1.3 tokens."""
    net: Any = learner.model
    never = [token for token in tokenizer.all_special_ids if token < net.net.get_output_embeddings().out_features]
    drawn = generate(learner.model, prompt, 2 * WORDS, **settings, generator=generator, never=never)  # type: ignore[arg-type]
    return " ".join(tokenizer.decode(drawn).split()[:WORDS])


def _answer(model: Learner, row: pd.Series) -> dict[str, Any]:
    """The row of `predict` of a pretrained model."""
    net: Any = model.model
    tokenizer, (settings, generator) = model.extra["tokenizer"], _drawing(model, row)
    text = str(row["prompt"])
    tokens, places = pretrained.encode(tokenizer, [text], False, end="").astype(np.int64)
    read, places = tokens[-net.context - 1 :], places[-net.context - 1 :]
    perplexity, words = math.nan, len(basic_english(text)) - 1 - int(places[:1].sum())
    if words > 0 and len(read) > 1:
        data = torch.from_numpy(read)[None]
        with torch.no_grad():
            perplexity = exp_or_infinity(float(net.losses(data[:, :-1], data[:, 1:]).sum()) / words)
    prompt = tokens.tolist() or [_first(model, tokenizer)]
    return {"continuation": _continued(model, tokenizer, prompt, settings, generator), "perplexity": perplexity}


def _sampling(params: Params) -> dict[str, Any]:
    return {"temperature": float(params["temperature"]), "top_k": int(params["top_k"]), "top_p": float(params["top_p"])}


def exp_or_infinity(loss: float) -> float:
    """exp(loss), or infinity if that overflows: the trial then counts as diverged."""
    return math.exp(loss) if loss < 700 else math.inf


@torch.no_grad()
def _losses(learner: Learner, split: Corpus) -> np.ndarray:
    """The network's loss on each word (of a pretrained model: token) of the split except the first, float64."""
    learner.model.eval()
    model: Any = learner.model
    with learner.device.autocast():
        losses = [model.losses(*pair) for pair in _windows(_stream(learner, split), learner.params["bptt"])]
    return torch.cat(losses).cpu().double().numpy()


def _windows(stream: torch.Tensor, length: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields inputs and targets (windows, length) of a stream in order; the last window may be shorter."""
    whole = (len(stream) - 1) // length * length
    inputs, targets = stream[:whole].view(-1, length), stream[1 : 1 + whole].view(-1, length)
    yield from zip(inputs.split(EVAL_BATCH), targets.split(EVAL_BATCH), strict=True)
    if whole < len(stream) - 1:
        yield stream[None, whole:-1], stream[None, whole + 1 :]


def _stream(learner: Learner, split: Corpus) -> torch.Tensor:
    """The split's words or tokens on the device, int64; copied once for each trial."""
    return learner.resident(
        split, lambda: torch.from_numpy(_ids(learner, split).astype(np.int64)).to(learner.device.torch_device)
    )


def _tokens(learner: Learner, split: Corpus) -> Tokens:
    """The split in the tokens of the pretrained model that is trained."""
    return split.encoded[learner.params[pretrained.KEY]]


def _ids(learner: Learner, split: Corpus) -> np.ndarray:
    """What the model reads and predicts: the split's words, or the tokens of the pretrained model."""
    return _tokens(learner, split).ids if isinstance(learner.model, Finetuned) else split.tokens


TASK = WikitextTask()
