"""TF-IDF features, for networks and for the baseline that every text network has to beat."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainables.text.texts import TextSplit

#: What occurs in at least two texts; counts as 1 + log; rows of length one.
COMMON: dict[str, Any] = {"min_df": 2, "sublinear_tf": True, "dtype": np.float32}
#: Words and pairs of words; and pieces of words of two to five characters, in which endings and spellings show.
KINDS: dict[str, dict[str, Any]] = {
    "words": {"ngram_range": (1, 2)},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 5)},
}
#: Pieces that are kept at most, those of the most texts: each has a weight a class in every step.
MOST = 50_000


@dataclass(frozen=True)
class Terms:
    """The features of texts: those of scikit-learn's vectorizers of some of `KINDS`, side by side in their order."""

    vectorizers: dict[str, Any]

    def __len__(self) -> int:
        return sum(len(one.vocabulary_) for one in self.vectorizers.values())

    @property
    def words(self) -> Terms:
        """The words alone, whose columns are the first."""
        return Terms({kind: one for kind, one in self.vectorizers.items() if kind == "words"})

    def transform(self, texts: Sequence[str] | np.ndarray) -> Any:
        """A sparse matrix in rows, (texts, terms) float32."""
        from scipy.sparse import csr_matrix, hstack

        none = csr_matrix((len(texts), 0), dtype=np.float32)  # where no term is in two texts
        return hstack([none, *(one.transform(texts) for one in self.vectorizers.values())], format="csr")


def fit(texts: Iterable[str], characters: bool = False) -> Terms:
    """The words of texts, and with `characters` the pieces of words too. None of either may be in two texts."""
    fitted = {}
    for kind in KINDS if characters else ("words",):
        with suppress(ValueError):  # none is in two texts
            fitted[kind] = _vectorizer(kind).fit(texts)
    pieces = fitted.get("characters")
    if pieces is not None and len(pieces.idf_) > MOST:
        # Equally frequent ones stay or go together, so that every machine keeps the same.
        kept = pieces.idf_ < np.partition(pieces.idf_, MOST)[MOST]
        fitted["characters"] = _vectorizer("characters", pieces.get_feature_names_out()[kept], pieces.idf_[kept])
    return Terms(fitted)


def save(terms: Terms, path: Path) -> None:
    """Writes JSON: of words and of pieces the terms in the order of their columns, and the inverse document frequency
    of each."""
    of_each = {
        kind: {"terms": one.get_feature_names_out().tolist(), "idf": one.idf_.astype(float).tolist()}
        for kind, one in terms.vectorizers.items()
    }
    path.write_text(json.dumps(of_each))


def load(path: Path) -> Terms:
    """What `save` wrote."""
    saved = json.loads(path.read_text())
    if "terms" in saved:  # of words alone, as it was written once
        saved = {"words": saved}
    return Terms({kind: _vectorizer(kind, one["terms"], one["idf"]) for kind, one in saved.items()})


def _vectorizer(kind: str, terms: Iterable[str] | None = None, idf: Any = None) -> Any:
    """One of `KINDS`; fitted where its terms and their inverse document frequencies are given."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if terms is None:
        return TfidfVectorizer(**COMMON, **KINDS[kind])
    made = TfidfVectorizer(**COMMON, **KINDS[kind], vocabulary={term: column for column, term in enumerate(terms)})
    made.idf_ = np.array(idf)
    return made


def baseline(train: TextSplit, texts: np.ndarray) -> np.ndarray:
    """Predicts the classes of `texts`, (n,), by logistic regression on TF-IDF of words, with balanced classes."""
    from sklearn.linear_model import LogisticRegression

    terms = fit(train.texts)
    if not terms:
        return np.full(len(texts), np.bincount(train.labels).argmax())
    model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000)
    model.fit(terms.transform(train.texts), train.labels)
    predicted: np.ndarray = model.predict(terms.transform(texts))
    return predicted
