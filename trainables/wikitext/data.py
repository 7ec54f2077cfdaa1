"""Reads running text into one stream of words for each split."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables import Choices, InputError, Progress, Splits, array_digest
from trainables.base import tables
from trainables.base.files import Allowance, broken, read_files, split_of
from trainables.base.hub import place_of
from trainables.base.splitting import SPLITS, Splitter
from trainables.base.storage import cached_array
from trainables.text.tables import read_column
from trainables.wikitext import pretrained
from trainables.wikitext.pretrained import Pretrained, Tokens
from trainables.wikitext.tokenizer import END, START, UNKNOWN, basic_english, decode, encode, vocabulary

HUB = "Salesforce/wikitext"
FILES = {
    split: f"wikitext-2-v1/{name}-00000-of-00001.parquet"
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test"))
}
PLAIN = (".tokens", ".txt")
#: The key of `data` with the digests of the pretrained models.
PRETRAINED = "pretrained"
#: The number of words of a piece. A text with too few lines is cut into pieces before its end is cut off.
PIECE = 20


@dataclass(frozen=True, eq=False)
class Corpus:
    """A split.

    Attributes:
        tokens: (n,) int32, indices into `words`.
        lines: the text, until `encoded` has read it.
        encoded: the text in the tokens of each pretrained model, by name.
        models: the pretrained models by name.
    """

    tokens: np.ndarray
    words: tuple[str, ...]
    lines: tuple[str, ...] = field(default=(), repr=False)
    encoded: dict[str, Tokens] = field(default_factory=dict, repr=False)
    models: dict[str, Pretrained] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.tokens)


def prepare(data: dict[str, Any], source: Path | None) -> Splits:
    """Prepares the user's files, or the corpus that `data.corpus` names.

    Raises:
        InputError: a file or a setting cannot be used.
    """
    notes: list[str] = []
    # A search that is resumed has the digests of its pretrained models.
    chosen: dict[str, Any] = {key: data[key] for key in (PRETRAINED,) if data.get(key)}
    if source is not None:
        lines, name = _read(data, source, notes), str(source)
    else:
        corpus, note = choose(data["corpus"])
        chosen["corpus"], name = corpus, "demo" if corpus == "demo" else f"{HUB} wikitext-2-v1"
        notes.append(note)
        lines = demo(data["split_seed"]) if corpus == "demo" else _from_hub()
    return tokenized(lines, data, name, notes, chosen)


def tokenized(
    lines: dict[str, list[str]], data: dict[str, Any], name: str, notes: list[str], chosen: dict[str, Any]
) -> Splits:
    """Makes `Splits` of lines by split. The vocabulary is that of train.

    Raises:
        InputError: a split has too few words.
    """
    words = {split: _words(text, data["boundaries"]) for split, text in lines.items()}
    words_of_train = vocabulary(words["train"], data["min_frequency"], data["boundaries"])
    index = {word: position for position, word in enumerate(words_of_train)}
    parts = {
        split: Corpus(encode(stream, index), words_of_train, tuple(lines[split])) for split, stream in words.items()
    }
    length, batch = data["bptt"], data["batch"]
    for split, part in parts.items():
        least = batch * (length + 1) if split == "train" else 2
        if len(part) < least:
            raise InputError(
                f"{name}: {split} has {len(part)} words; with data.batch {batch} and data.bptt {length} at least "
                f"{least} are needed"
            )
    stream = batchify(torch.from_numpy(parts["train"].tokens.astype(np.int64)), batch)
    shown, target = get_batch(stream, 0, length)
    unknown = float((parts["test"].tokens == 0).mean())
    notes += [
        f"vocabulary: {len(words_of_train)} words of train; {unknown:.2%} of test's words are {UNKNOWN}",
        f"train as {tuple(stream.shape)}; a batch: data {tuple(shown.shape)}, target {tuple(target.shape)}",
        *(f"sample {k}: {decode(words_of_train[i] for i in shown[:, k].tolist())}" for k in range(min(2, batch))),
    ]

    def digest(corpora: list[Corpus]) -> str:
        return array_digest([*(corpus.tokens for corpus in corpora), "\0".join(words_of_train).encode()])

    parts = {split: parts[split] for split in SPLITS}
    return Splits.made(name, parts, digest, notes=tuple(notes), chosen=chosen)


def encoded(splits: Splits, choices: Choices, cache: Path, progress: Progress) -> Splits:
    """The splits in the tokens of each pretrained model of the space, with the models.

    Raises:
        InputError: a model cannot be used, it changed since the search began, or the text is too short for a batch.
    """
    names = choices.get(pretrained.KEY) or (None,)
    parts = {split: replace(getattr(splits, split), lines=()) for split in SPLITS}
    if names == (None,):
        return replace(splits, **parts)
    if None in names:
        raise InputError(f"{pretrained.KEY}: a search from nothing and one from a pretrained model are two searches")
    boundaries = splits.train.words[1:3] == (START, END)
    digests = dict(splits.info.chosen.get(PRETRAINED) or {})
    notes = []
    for number, name in enumerate(map(str, names)):
        progress(number, len(names), f"loading {name}")
        model = pretrained.load(name)
        tokenizer = model.tokenizer()
        pretrained.check_size(
            name, model.layers, model.context, choices.get("model.unfreeze") or (), choices.get("bptt") or ()
        )
        if digests.setdefault(name, model.digest) != model.digest:
            raise InputError(f"{pretrained.KEY}: {name!r} changed since the search began; put it back, or start anew")
        for split in SPLITS:
            lines = getattr(splits, split).lines
            part = array_digest([*model.files.values(), "\n".join(lines).encode(), bytes([boundaries])])

            def report(done: int, total: int, what: str = f"tokenizing the lines of {split} for {name}") -> None:
                progress(done, total, what)

            def make(lines: tuple[str, ...] = lines) -> np.ndarray:
                return pretrained.encode(tokenizer, lines, boundaries, report)  # noqa: B023 - called in this turn

            tokens = Tokens.of(cached_array(cache / f"tokens-{part}.npy", make))
            parts[split] = replace(
                parts[split],
                encoded={**parts[split].encoded, name: tokens}, models={**parts[split].models, name: model},
            )  # fmt: skip
            if len(tokens.ids) and (most := int(tokens.ids.max())) >= model.size:
                raise InputError(
                    f"{pretrained.KEY}: {name!r}: {split} has the token {most} of its tokenizer, and the model has "
                    f"{model.size}"
                )
            least = 2 * max(choices.get("batch_size") or (1,)) if split == "train" else 2
            if len(tokens.ids) < least:
                raise InputError(
                    f"{splits.info.source}: {split} has {len(tokens.ids)} tokens; at least {least} are needed"
                )
        own, count = parts["train"].encoded[name].ids, len(parts["train"])
        size = sum(array.size for array in model.weights.values())
        notes.append(
            f"{name}: {model.layers} blocks, {size / 1e6:.1f} million weights; train has {len(own)} of its tokens, "
            f"{len(own) / count:.2f} a word"
        )
    info = replace(splits.info, notes=(*splits.info.notes, *notes), chosen={**splits.info.chosen, PRETRAINED: digests})
    return replace(splits, **parts, info=info)


def _words(lines: list[str], boundaries: bool) -> list[str]:
    out: list[str] = []
    for line in lines:
        if words := basic_english(line):
            out += [START, *words, END] if boundaries else words
    return out


def batchify(stream: torch.Tensor, batch: int) -> torch.Tensor:
    """Cuts a stream into `batch` columns: (n,) -> (n // batch, batch). The rest is cut off."""
    length = len(stream) // batch
    return stream[: length * batch].view(batch, length).t().contiguous()


def get_batch(source: torch.Tensor, start: int, bptt: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The words (up to `bptt`, batch) from row `start` on, and the next word of each, flattened."""
    length = min(bptt, len(source) - 1 - start)
    return source[start : start + length], source[start + 1 : start + 1 + length].reshape(-1)


def _read(data: dict[str, Any], source: Path, notes: list[str]) -> dict[str, list[str]]:
    """The lines of each split: of text files, or, without text files, of tables with a column of texts."""
    parts: dict[str, list[str]] = {}
    allowance = Allowance(data["max_unpacked_gb"])
    files = [*read_files(source, (*PLAIN, *tables.TABLES), allowance)]
    plain = [(name, content) for name, content in files if name.suffix.lower() in PLAIN]
    alone = len(files) == 1 and source.is_file()  # a single file is train, whatever its name is
    for name, content in plain or files:
        place = str(source if alone else source / name)
        if plain:
            texts = [tables.decode(content, place)]
        else:
            texts = read_column(content, name, place, data.get("text"), allowance)
        part = parts.setdefault("train" if alone else split_of(name), [])
        part.extend(line for text in texts for line in text.splitlines())
    if "train" not in parts:
        raise InputError(f"{source}: there is a {' and a '.join(parts)} split but no train")

    def cut(split: str, lines: list[str], fraction: float) -> tuple[list[str], list[str]]:
        """Cuts off the last lines, because shuffled lines would be neighbours of training lines."""
        what = "lines"
        if not round(fraction * len(lines)):  # one line is much more than the fraction
            words = " ".join(lines).split()
            lines = [" ".join(words[start : start + PIECE]) for start in range(0, len(words), PIECE)]
            what = f"pieces of {PIECE} words"
        end = len(lines) - max(1, round(fraction * len(lines)))
        notes.append(f"{split}: the last {len(lines) - end} {what} of train")
        return lines[:end], lines[end:]

    Splitter.of(data).complete(parts, cut)
    return parts


def choose(corpus: str) -> tuple[str, str]:
    """Resolves `auto` to `hub` if the cache or the network has the corpus, else to `demo`.

    Returns:
        The corpus, and a sentence on its source.
    """
    if corpus not in ("auto", "hub", "demo"):
        raise InputError(f"data.corpus: {corpus!r}: allowed are auto, hub and demo")
    if corpus != "auto":
        return corpus, f"corpus: {corpus}"
    if place := place_of(HUB, FILES.values(), "dataset"):
        return "hub", f"corpus: {HUB}, from {place}"
    return "demo", f"corpus: the prose of Python's own documentation, as neither cache nor hub has {HUB}"


def _from_hub() -> dict[str, list[str]]:
    import pandas as pd
    from huggingface_hub import hf_hub_download

    with broken("data.corpus: hub", f"{HUB} cannot be loaded", "give --data, or demo"):
        paths = {split: hf_hub_download(HUB, file, repo_type="dataset") for split, file in FILES.items()}
        return {split: list(pd.read_parquet(path)["text"]) for split, path in paths.items()}


def demo(seed: int) -> dict[str, list[str]]:
    """The English prose of `pydoc_data.topics`, a module of Python.

    Topics with a tenth of the text are val, other topics with a tenth are test. A paragraph that occurs in several
    topics stays in the first.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    prose = []
    for name in sorted(topics):
        paragraphs = [p for p in _prose(topics[name]) if p not in seen]
        seen.update(paragraphs)
        if paragraphs:
            prose.append(paragraphs)
    parts: dict[str, list[int]] = {"val": [], "test": [], "train": []}
    tenth = sum(_size(paragraphs) for paragraphs in prose) / 10
    for topic in np.random.default_rng(seed).permutation(len(prose)).tolist():
        split = next((s for s in ("val", "test") if sum(_size(prose[i]) for i in parts[s]) < tenth), "train")
        parts[split].append(topic)
    return {split: [line for i in sorted(some) for line in prose[i]] for split, some in parts.items()}


def _size(paragraphs: list[str]) -> int:
    return sum(len(paragraph) for paragraph in paragraphs)


def _prose(text: str) -> list[str]:
    """The paragraphs of a topic that are prose, without code, grammar and headings."""
    out = []
    for block in re.split(r"\n\s*\n", text):
        paragraph = " ".join(line.strip() for line in block.splitlines())
        letters = sum(c.isalpha() or c in " ,.'" for c in paragraph)
        code = any(mark in paragraph for mark in (">>>", "::=", " = ", "==", "->", "):", "|", "def "))
        if not code and len(paragraph) > 60 and letters > 0.9 * len(paragraph):
            out.append(paragraph)
    return out
