"""TF-IDF features for networks, and the baseline of the text tasks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainables.text.texts import TextSplit

#: Terms of at least two texts; term frequency 1 + log(count); rows of L2 norm 1 (scikit-learn's default).
COMMON: dict[str, Any] = {"min_df": 2, "sublinear_tf": True, "dtype": np.float32}
#: Words and pairs of words; and pieces of words of two to five characters, which cover endings and misspellings.
KINDS: dict[str, dict[str, Any]] = {
    "words": {"ngram_range": (1, 2)},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 5)},
}
#: The largest number of pieces of words; the pieces that occur in most texts stay. Each piece has a weight for each
#: class, which every optimizer step updates.
MOST = 50_000
#: `C` and the largest number of steps of the baseline's logistic regression: a weak penalty, which is not tuned.
BASELINE: dict[str, Any] = {"C": 10.0, "max_iter": 1000}


@dataclass(frozen=True)
class Terms:
    """The terms of scikit-learn's vectorizers by kind (`KINDS`); their columns follow each other in this order."""

    vectorizers: dict[str, Any]

    def __len__(self) -> int:
        return sum(len(vectorizer.vocabulary_) for vectorizer in self.vectorizers.values())

    @property
    def words(self) -> Terms:
        """The words alone: the first columns."""
        return Terms({kind: vectorizer for kind, vectorizer in self.vectorizers.items() if kind == "words"})

    def transform(self, texts: Sequence[str] | np.ndarray) -> Any:
        """The TF-IDF features, a CSR matrix (texts, terms) of float32."""
        from scipy.sparse import csr_matrix, hstack

        empty = csr_matrix((len(texts), 0), dtype=np.float32)  # for `Terms` without a vectorizer
        return hstack([empty, *(v.transform(texts) for v in self.vectorizers.values())], format="csr")


def fit(texts: Iterable[str], characters: bool = False) -> Terms:
    """The words of texts, and with `characters` also the pieces of words. A kind without terms is left out."""
    fitted = {}
    for kind in KINDS if characters else ("words",):
        with suppress(ValueError):  # no term occurs in two texts
            fitted[kind] = _vectorizer(kind).fit(texts)
    pieces = fitted.get("characters")
    if pieces is not None and len(pieces.idf_) > MOST:
        # Pieces of equal frequency stay or go together, so that every machine keeps the same pieces.
        frequent = pieces.idf_ < np.partition(pieces.idf_, MOST)[MOST]
        fitted["characters"] = _vectorizer(
            "characters", pieces.get_feature_names_out()[frequent], pieces.idf_[frequent]
        )
    return Terms(fitted)


def save(terms: Terms, path: Path) -> None:
    """Writes JSON: by kind the terms in the order of their columns, and their inverse document frequencies."""
    by_kind = {
        kind: {"terms": vectorizer.get_feature_names_out().tolist(), "idf": vectorizer.idf_.astype(float).tolist()}
        for kind, vectorizer in terms.vectorizers.items()
    }
    path.write_text(json.dumps(by_kind))


def load(path: Path) -> Terms:
    """Reads the file of `save`."""
    by_kind = json.loads(path.read_text())
    return Terms({kind: _vectorizer(kind, saved["terms"], saved["idf"]) for kind, saved in by_kind.items()})


def _vectorizer(kind: str, terms: Iterable[str] | None = None, idf: Any = None) -> Any:
    """A vectorizer of `KINDS`; a fitted one if its terms and their inverse document frequencies are given."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if terms is None:
        return TfidfVectorizer(**COMMON, **KINDS[kind])
    vocabulary = {term: column for column, term in enumerate(terms)}
    vectorizer = TfidfVectorizer(**COMMON, **KINDS[kind], vocabulary=vocabulary)
    vectorizer.idf_ = np.array(idf)
    return vectorizer


def baseline(train: TextSplit, texts: np.ndarray) -> np.ndarray:
    """Predicts the classes of `texts`, (n,), by logistic regression on TF-IDF of words, with balanced classes."""
    from sklearn.linear_model import LogisticRegression

    terms = fit(train.texts)
    if not terms:
        return np.full(len(texts), np.bincount(train.labels).argmax())
    model = LogisticRegression(**BASELINE, class_weight="balanced")
    model.fit(terms.transform(train.texts), train.labels)
    return model.predict(terms.transform(texts))
