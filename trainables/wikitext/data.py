"""Reads running text as one stream of words for each split."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables import DataInfo, InputError, Splits, array_digest
from trainables.base import tables
from trainables.base.files import Allowance, broken, read_files, split_of
from trainables.base.splitting import Splitter
from trainables.text.tables import read_column
from trainables.wikitext.tokenizer import END, START, UNKNOWN, basic_english, decode, encode, vocabulary

HUB = "Salesforce/wikitext"
FILES = {
    split: f"wikitext-2-v1/{name}-00000-of-00001.parquet"
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test"))
}
PLAIN = (".tokens", ".txt")
#: Words of a piece, where a text has too few lines to cut some of them off.
PIECE = 20
#: Seconds that `auto` waits for the hub.
PATIENCE = 4.0


@dataclass(frozen=True, eq=False)
class Corpus:
    """`tokens` (n,) int32, indices into `words`."""

    tokens: np.ndarray
    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.tokens)


def prepare(data: dict[str, Any], source: Path | None) -> Splits:
    """Prepares the user's files, or the corpus that `data.corpus` names.

    Raises:
        InputError: naming the file, the line or the setting, and what is allowed.
    """
    notes: list[str] = []
    chosen: dict[str, Any] = {}
    if source is not None:
        lines, name = _read(data, source, notes), str(source)
    else:
        corpus, said = choose(data["corpus"])
        chosen, name = {"corpus": corpus}, "demo" if corpus == "demo" else f"{HUB} wikitext-2-v1"
        notes.append(said)
        lines = demo(data["split_seed"]) if corpus == "demo" else _from_hub()
    return tokenized(lines, data, name, notes, chosen)


def tokenized(
    lines: dict[str, list[str]], data: dict[str, Any], name: str, notes: list[str], chosen: dict[str, Any]
) -> Splits:
    """Makes `Splits` of lines by split; the vocabulary is that of train.

    Raises:
        InputError: a split has too few words.
    """
    words = {split: _words(some, data["boundaries"]) for split, some in lines.items()}
    known = vocabulary(words["train"], data["min_frequency"], data["boundaries"])
    index = {word: position for position, word in enumerate(known)}
    parts = {split: Corpus(encode(some, index), known) for split, some in words.items()}
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
        f"vocabulary: {len(known)} words of train; {unknown:.2%} of test's words are {UNKNOWN}",
        f"train as {tuple(stream.shape)}; a batch: data {tuple(shown.shape)}, target {tuple(target.shape)}",
        *(f"sample {k}: {decode(known[i] for i in shown[:, k].tolist())}" for k in range(min(2, batch))),
    ]
    tokens = {split: part.tokens for split, part in parts.items()}
    described = "\0".join(known).encode()
    info = DataInfo(
        source=name,
        fingerprint=array_digest([tokens["train"], tokens["val"], tokens["test"], described]),
        test_fingerprint=array_digest([tokens["test"], described]),
        sizes={split: len(part) for split, part in parts.items()},
        notes=tuple(notes),
        chosen=chosen,
    )
    return Splits(parts["train"], parts["val"], parts["test"], info)


def _words(lines: list[str], boundaries: bool) -> list[str]:
    out: list[str] = []
    for line in lines:
        if words := basic_english(line):
            out += [START, *words, END] if boundaries else words
    return out


def batchify(stream: torch.Tensor, batch: int) -> torch.Tensor:
    """Lays `batch` pieces of a stream side by side: (n,) -> (n // batch, batch). The rest is cut off."""
    length = len(stream) // batch
    return stream[: length * batch].view(batch, length).t().contiguous()


def get_batch(source: torch.Tensor, start: int, bptt: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The words (up to `bptt`, batch) from row `start` on, and the word after each, flattened."""
    length = min(bptt, len(source) - 1 - start)
    return source[start : start + length], source[start + 1 : start + 1 + length].reshape(-1)


def _read(data: dict[str, Any], source: Path, notes: list[str]) -> dict[str, list[str]]:
    """The lines of each split: of text files, or, where there are none, of tables with a column of texts."""
    found: dict[str, list[str]] = {}
    allowance = Allowance(data["max_unpacked_gb"])
    files = [*read_files(source, (*PLAIN, *tables.TABLES), allowance)]
    plain = [(name, content) for name, content in files if name.suffix.lower() in PLAIN]
    alone = len(files) == 1 and source.is_file()  # whatever it is called
    for name, content in plain or files:
        place = str(source if alone else source / name)
        read = (
            [tables.decode(content, place)] if plain else read_column(content, name, place, data.get("text"), allowance)
        )
        split = found.setdefault("train" if alone else split_of(name), [])
        split.extend(line for text in read for line in text.splitlines())
    if "train" not in found:
        raise InputError(f"{source}: there is a {' and a '.join(found)} split but no train")

    def cut(split: str, lines: list[str], fraction: float) -> tuple[list[str], list[str]]:
        """Cuts the last lines off: shuffled lines of one text would be neighbours of training lines."""
        what = "lines"
        if not round(fraction * len(lines)):  # one line is much more than the fraction
            words = " ".join(lines).split()
            lines = [" ".join(words[start : start + PIECE]) for start in range(0, len(words), PIECE)]
            what = f"pieces of {PIECE} words"
        end = len(lines) - max(1, round(fraction * len(lines)))
        notes.append(f"{split}: the last {len(lines) - end} {what} of train")
        return lines[:end], lines[end:]

    Splitter.of(data).complete(found, cut)
    return found


def choose(corpus: str) -> tuple[str, str]:
    """Resolves `auto` to `hub` where the cache or the network has the corpus, else to `demo`.

    Returns:
        The corpus, and a sentence that says where it comes from.
    """
    if corpus not in ("auto", "hub", "demo"):
        raise InputError(f"data.corpus: {corpus!r}: allowed are auto, hub and demo")
    if corpus != "auto":
        return corpus, f"corpus: {corpus}"
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    if all(isinstance(try_to_load_from_cache(HUB, f, repo_type="dataset"), str) for f in FILES.values()):
        return "hub", f"corpus: {HUB}, from the local Hugging Face cache"
    try:
        HfApi().dataset_info(HUB, timeout=PATIENCE)
    except (HTTPError, OfflineModeIsEnabled, OSError):
        return "demo", f"corpus: the prose of Python's own documentation, as neither cache nor hub has {HUB}"
    return "hub", f"corpus: {HUB}, from the Hugging Face hub"


def _from_hub() -> dict[str, list[str]]:
    import pandas as pd
    from huggingface_hub import hf_hub_download

    with broken("data.corpus: hub", f"{HUB} cannot be loaded", "give --data, or demo"):
        paths = {split: hf_hub_download(HUB, file, repo_type="dataset") for split, file in FILES.items()}
        return {split: list(pd.read_parquet(path)["text"]) for split, path in paths.items()}


def demo(seed: int) -> dict[str, list[str]]:
    """The English prose of `pydoc_data.topics`, which comes with every Python.

    Topics with a tenth of the text are val, others with a tenth test. A paragraph of several topics is kept in the
    first of them only.
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
    """The paragraphs of a topic that are prose: neither code nor grammar nor headings."""
    out = []
    for block in re.split(r"\n\s*\n", text):
        paragraph = " ".join(line.strip() for line in block.splitlines())
        letters = sum(c.isalpha() or c in " ,.'" for c in paragraph)
        code = any(mark in paragraph for mark in (">>>", "::=", " = ", "==", "->", "):", "|", "def "))
        if not code and len(paragraph) > 60 and letters > 0.9 * len(paragraph):
            out.append(paragraph)
    return out
