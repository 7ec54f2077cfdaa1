"""Writes a text classifier as files that transformers, scikit-learn and PyTorch load without this project.

The encoder and its tokenizer are a checkpoint of transformers, TF-IDF is a vectorizer of scikit-learn. The head with
the TF-IDF weights is a program of torch.export. `usage.py` joins them.
"""

from __future__ import annotations

import copy
import runpy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainables.base.errors import first_line
from trainables.base.task import Params
from trainables.text.batches import TextEncoding
from trainables.text.encoders import mean_of
from trainables.text.models import TextNet, filled_to
from trainables.text.tfidf import COMMON, KINDS, Terms

#: The file of the head.
FILE = "head.pt2"
#: The largest difference of two probabilities that counts as equal.
TOLERANCE = 1e-4
USAGE = '''\
"""Classifies texts with the files of this folder. Needs torch, transformers{and_scikit}."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

folder = Path(__file__).parent
classes = {classes}
tokenizer = AutoTokenizer.from_pretrained(folder)
encoder = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
head = torch.export.load(folder / "head.pt2").module()
{terms}

def classify(texts):
    """Probabilities (texts, classes)."""
    tokens = tokenizer(list(texts), truncation=True, max_length={most}, padding={padding}, return_tensors="pt")
    ids, mask = tokens["input_ids"], {mask}
    with torch.no_grad():
        states = {states}
        return head(states, mask.bool(), {tfidf}).numpy()


if __name__ == "__main__":
    probabilities = classify(["a text", "another text"])
    print([classes[row] for row in {predicted}])
'''
TERMS = '''
import json

from sklearn.feature_extraction.text import TfidfVectorizer

KINDS = {kinds}
vectorizers = []
for kind, saved in json.loads((folder / "tfidf.json").read_text()).items():
    columns = {{term: column for column, term in enumerate(saved["terms"])}}
    vectorizers.append(TfidfVectorizer(vocabulary=columns, {common}, dtype=np.float32, **KINDS[kind]))
    vectorizers[-1].idf_ = np.array(saved["idf"])


def tfidf(texts):
    """TF-IDF features (texts, terms)."""
    features = [vectorizer.transform(texts).toarray() for vectorizer in vectorizers]
    return torch.from_numpy(np.concatenate(features, axis=1))

'''


class Head(nn.Module):
    """States (batch, tokens, width), mask (batch, tokens) and TF-IDF features (batch, terms) -> probabilities."""

    def __init__(self, net: TextNet) -> None:
        super().__init__()
        self.head, self.kind, self.pooling = copy.deepcopy(net.head).cpu(), net.kind, net.pooling
        terms = torch.zeros(0, 0) if net.terms is None else net.terms.detach().cpu().clone()
        self.register_buffer("terms", terms)

    def forward(self, states: torch.Tensor, mask: torch.Tensor, tfidf: torch.Tensor) -> torch.Tensor:
        if self.kind == "classifier":
            logits = self.head(states[:, 0] if self.pooling == "cls" else mean_of(states, mask))
        else:
            logits = self.head(states, mask)
        if len(self.terms):  # type: ignore[arg-type]
            logits = logits + tfidf @ self.terms  # type: ignore[operator]
        return logits.softmax(1)


def write(
    net: TextNet, encoding: TextEncoding, params: Params, predict: Callable[[list[str]], np.ndarray], folder: Path
) -> None:
    """Writes `head.pt2` and `usage.py` beside the checkpoint and `tfidf.json` of a folder.

    Classifies a few texts with both. If the results differ, or if torch.export does not take the head, `usage.py` says
    so and there is no `head.pt2`.

    Args:
        predict: the probabilities (texts, classes) of the exported model in this project.
    """
    usage = _usage(encoding, params)
    try:
        _export(Head(net).eval().requires_grad_(False), encoding, params, folder / FILE)
        (folder / "usage.py").write_text(usage, encoding="utf-8")
        _check(encoding.terms, predict, folder)
    except (RuntimeError, AssertionError, AttributeError, TypeError, ValueError, NotImplementedError, OSError) as error:
        (folder / FILE).unlink(missing_ok=True)
        usage = f"# this model needs the project that trained it: {first_line(error)}\n"
        (folder / "usage.py").write_text(usage, encoding="utf-8")


def _export(head: Head, encoding: TextEncoding, params: Params, path: Path) -> None:
    filled = filled_to(params, encoding.max_length)
    most, terms = encoding.max_length, len(encoding.terms or ())
    tokens = filled or 3
    width = encoding.encoder.words.shape[1] if head.kind == "cnn" else encoding.encoder.width
    example = (torch.randn(2, tokens, width), torch.ones(2, tokens, dtype=torch.bool), torch.zeros(2, terms))
    batch, steps = torch.export.Dim("batch"), None if filled or most < 4 else torch.export.Dim("tokens", max=most)
    shapes: Any = ({0: batch, 1: steps}, {0: batch, 1: steps}, {0: batch})
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(head, example, dynamic_shapes=shapes), path)


def _usage(encoding: TextEncoding, params: Params) -> str:
    terms, kind, filled = encoding.terms, params["model.head"], filled_to(params, encoding.max_length)
    common = ", ".join(f"{name}={value!r}" for name, value in COMMON.items() if name != "dtype")
    threshold, positive = params.get("threshold"), encoding.positive
    other = 1 - positive
    return USAGE.format(
        and_scikit=" and scikit-learn" if terms else "",
        classes=list(encoding.classes),
        terms=TERMS.format(kinds=KINDS, common=common) if terms else "",
        most=encoding.max_length,
        padding='"max_length"' if filled else "True",
        mask='torch.ones_like(tokens["input_ids"])' if filled else 'tokens["attention_mask"]',
        states="encoder.get_input_embeddings()(ids)"
        if kind == "cnn"
        else "encoder(input_ids=ids, attention_mask=mask).last_hidden_state",
        tfidf="tfidf(texts)" if terms else "torch.zeros(len(texts), 0)",
        predicted="probabilities.argmax(1)"
        if threshold is None
        else f"np.where(probabilities[:, {positive}] >= {threshold}, {positive}, {other})",
    )


def _check(terms: Terms | None, predict: Callable[[list[str]], np.ndarray], folder: Path) -> None:
    """Raises ValueError if `usage.py` and `predict` give different probabilities."""
    words = ["the", "of", "a"]
    for vectorizer in terms.vectorizers.values() if terms else ():
        words += vectorizer.get_feature_names_out()[:: max(1, len(vectorizer.vocabulary_) // 50)].tolist()
    texts = ["a text", " ".join(words[:7]), " ".join(words), "one. Two, THREE!"]
    classify = runpy.run_path(str(folder / "usage.py"))["classify"]
    for some in (texts, texts[:1]):
        difference = np.abs(classify(some) - predict(some)).max()
        if not difference <= TOLERANCE:
            raise ValueError(f"its probabilities differ by {difference:.2g} without it")
