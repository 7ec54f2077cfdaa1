"""TF-IDF features: beside a network, and as the baseline that every text network has to beat."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from trainables.texts import TextSplit

#: Words and pairs of words that stand in at least two texts; 1 + log of a count; rows of length one.
SETTINGS: dict[str, Any] = {"ngram_range": (1, 2), "min_df": 2, "sublinear_tf": True, "dtype": np.float32}


def fit(texts: Iterable[str]) -> Any:
    """A scikit-learn `TfidfVectorizer` fitted to these texts.

    Raises:
        ValueError: no word stands in two of them.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(**SETTINGS).fit(texts)


def save(vectorizer: Any, path: Path) -> None:
    """As JSON: terms in the order of their columns, and each one's inverse document frequency."""
    terms = vectorizer.get_feature_names_out().tolist()
    path.write_text(json.dumps({"terms": terms, "idf": vectorizer.idf_.astype(float).tolist()}))


def load(path: Path) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    saved = json.loads(path.read_text())
    vectorizer = TfidfVectorizer(**SETTINGS, vocabulary={term: column for column, term in enumerate(saved["terms"])})
    vectorizer.idf_ = np.array(saved["idf"])
    return vectorizer


def baseline(train: TextSplit, texts: np.ndarray) -> np.ndarray:
    """Classes (n,) of texts (n,), as logistic regression on TF-IDF features tells them, its classes balanced."""
    from sklearn.linear_model import LogisticRegression

    vectorizer = fit(train.texts)
    model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000)
    model.fit(vectorizer.transform(train.texts), train.labels)
    predicted: np.ndarray = model.predict(vectorizer.transform(texts))
    return predicted
