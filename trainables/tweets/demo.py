"""The demo tweets, made by a seeded grammar.

Medical tweets describe symptoms, treatments and diagnoses, half of them without a medical word. The other tweets
describe daily life, half of them with medical words for other things. Each split has its own phrases: a classifier has
to learn the meaning of a tweet, not its phrases.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from trainables.text.demo import SHARES, shared_out
from trainables.tweets import phrases

LABELS = ("other", "medical")
#: The two kinds of phrases of each class.
KINDS = {"medical": (phrases.CLINICAL, phrases.BODILY), "other": (phrases.FIGURATIVE, phrases.DAILY)}
TRIMMINGS = {
    "mood": "lol|smh|omg|ugh|tbh|ngl|fr|haha|yikes|lmao|idk|bruh|welp|pls|wow",
    "tag": "#mondaymood|#blessed|#fail|#life|#tired|#help|#weekend|#nofilter|#mood|#sendhelp|#adulting",
    "at": "@jess_k|@the_real_tom|@nina22|@coachdave|@mel__|@bigmike|@cityfm|@latenightpod|@sara_w",
    "emoji": "😷|😂|🤒|😭|🙏|🔥|💀|😩|🤢|🥴|🎉|❤️|😴",
}
_SLOT = re.compile(r"\{(\w+)\}")


def make(*, size: int, positives: float, label_noise: float, seed: int) -> dict[str, pd.DataFrame]:
    """Makes `size` different tweets by split, as frames with `text` and `label`.

    Args:
        positives: the share of medical tweets.
        label_noise: the share of labels that are then changed to the other class.
    """
    rng = np.random.default_rng(seed)
    parts: dict[str, dict[str, list[list[str]]]] = {split: {label: [] for label in LABELS} for split in SHARES}
    for label, kinds in KINDS.items():
        for kind in kinds:
            shuffled = rng.permutation([p for line in kind.strip().splitlines() for p in line.split("|")])
            for split, some in shared_out(shuffled).items():
                parts[split][label].append([str(p) for p in some])
    seen: set[str] = set()
    frames = {}
    for split, share in SHARES.items():
        count = round(share * size)
        labels = np.where(np.arange(count) < round(positives * count), "medical", "other")
        rng.shuffle(labels)
        texts = []
        for label in labels:
            kinds_of = parts[split][label]
            text = _tweet(kinds_of[int(rng.random() < 0.5)], rng)
            while text in seen:
                text = _tweet(kinds_of[int(rng.random() < 0.5)], rng)
            seen.add(text)
            texts.append(text)
        for index in rng.permutation(count)[: round(label_noise * count)]:
            labels[index] = LABELS[1 - LABELS.index(labels[index])]
        frames[split] = pd.DataFrame({"text": texts, "label": labels})
    return frames


def _tweet(some: list[str], rng: np.random.Generator) -> str:
    text = _SLOT.sub(lambda slot: _pick(phrases.SLOTS[slot[1]], rng), str(rng.choice(some)))
    for kind, chance, front in (("at", 0.25, True), ("mood", 0.35, True), ("mood", 0.15, False), ("tag", 0.3, False)):
        if rng.random() < chance:
            text = f"{_pick(TRIMMINGS[kind], rng)} {text}" if front else f"{text} {_pick(TRIMMINGS[kind], rng)}"
    if rng.random() < 0.3:
        text += " " + _pick(TRIMMINGS["emoji"], rng)
    return _slang(text, rng)


def _pick(values: str, rng: np.random.Generator) -> str:
    return str(rng.choice(values.split("|")))


def _slang(text: str, rng: np.random.Generator) -> str:
    """Adds shortened words, stretched vowels, typing errors and upper case."""
    for long, short in (("you", "u"), ("because", "cuz"), ("can't", "cant"), ("going to", "gonna"), ("and", "n")):
        if rng.random() < 0.3:
            text = re.sub(rf"\b{long}\b", short, text)
    if rng.random() < 0.12:
        words = text.split(" ")
        at = int(rng.integers(len(words)))
        words[at] = re.sub(r"([aeiou])(?!.*[aeiou])", lambda m: m[1] * 4, words[at])
        text = " ".join(words)
    if rng.random() < 0.15:
        at = int(rng.integers(1, len(text) - 1))
        text = text[:at] + text[at + 1 :]
    return text.upper() if rng.random() < 0.05 else text
