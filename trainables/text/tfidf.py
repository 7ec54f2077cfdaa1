"""TF-IDF features, for networks and for the baseline that every text network has to beat."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from trainables.text.texts import TextSplit

#: Words and pairs of words that occur in at least two texts; counts as 1 + log; rows of length one.
SETTINGS: dict[str, Any] = {"ngram_range": (1, 2), "min_df": 2, "sublinear_tf": True, "dtype": np.float32}


def fit(texts: Iterable[str]) -> Any:
    """Fits scikit-learn's `TfidfVectorizer` to texts; raises ValueError if no word occurs in two of them."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(**SETTINGS).fit(texts)


def save(vectorizer: Any, path: Path) -> None:
    """Writes JSON: the terms in the order of their columns, and the inverse document frequency of each."""
    terms = vectorizer.get_feature_names_out().tolist()
    path.write_text(json.dumps({"terms": terms, "idf": vectorizer.idf_.astype(float).tolist()}))


def load(path: Path) -> Any:
    """The vectorizer that `save` wrote."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    saved = json.loads(path.read_text())
    vectorizer = TfidfVectorizer(**SETTINGS, vocabulary={term: column for column, term in enumerate(saved["terms"])})
    vectorizer.idf_ = np.array(saved["idf"])
    return vectorizer


def baseline(train: TextSplit, texts: np.ndarray) -> np.ndarray:
    """Predicts the classes of `texts`, (n,), by logistic regression on TF-IDF features, with balanced classes."""
    from sklearn.linear_model import LogisticRegression

    vectorizer = fit(train.texts)
    model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000)
    model.fit(vectorizer.transform(train.texts), train.labels)
    predicted: np.ndarray = model.predict(vectorizer.transform(texts))
    return predicted
