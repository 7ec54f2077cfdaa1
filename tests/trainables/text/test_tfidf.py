import numpy as np
import pytest

from trainables.text import tfidf
from trainables.text.texts import TextSplit


def test_baseline_learns_words_and_nothing_from_the_test_labels():
    rng = np.random.default_rng(0)
    words = {0: ["red", "green", "blue"], 1: ["cat", "dog", "owl"]}
    labels = rng.integers(0, 2, 200)
    lines = np.array([f"{rng.choice(words[y])} and {rng.choice(words[y])}" for y in labels], dtype=object)
    split = TextSplit(lines, labels)

    assert (tfidf.baseline(split, lines) == labels).all()
    shuffled = TextSplit(lines, rng.permutation(labels))
    assert (tfidf.baseline(shuffled, lines) == labels).mean() < 0.7


@pytest.mark.parametrize("characters", [False, True])
def test_saved_features_are_the_same(tmp_path, characters):
    lines = ["red dog and cat", "red dog", "blue owl and cat", "blue owl"]
    fitted = tfidf.fit(lines, characters)
    tfidf.save(fitted, tmp_path / "tfidf.json")
    new = ["red owl", "and cat, and cat", "nothing known"]
    loaded = tfidf.load(tmp_path / "tfidf.json")
    assert len(loaded) == len(fitted) == fitted.transform(new).shape[1]
    assert (loaded.transform(new) != fitted.transform(new)).nnz == 0


def test_tfidf_pieces_of_new_words():
    verbs, nouns = ["walking", "talking", "singing"], ["darkness", "kindness", "sadness"]
    known = tfidf.fit([*verbs, *nouns], characters=True).transform(["running", "swimming", "goodness"]).toarray()
    assert known[0] @ known[1] > known[0] @ known[2] == 0


def test_tfidf_limit_of_pieces(monkeypatch):
    monkeypatch.setattr(tfidf, "MOST", 5)
    lines = ["aab", "aab", "aac", "aac", "aa"]
    pieces = tfidf.fit(lines, characters=True).vectorizers["characters"]
    assert list(pieces.vocabulary_) == [" a", " aa", "aa"], "the rest are in two texts each, and too many"


def test_tfidf_without_common_words():
    lines = np.array(["abcd", "abce", "xyzv", "xyzw"], dtype=object)
    assert "words" not in tfidf.fit(lines, characters=True).vectorizers
    assert not tfidf.fit(lines)
    assert tfidf.fit(lines).transform(lines).shape == (4, 0)
    split = TextSplit(lines, np.array([0, 1, 1, 1]))
    assert tfidf.baseline(split, lines).tolist() == [1, 1, 1, 1], "the most frequent class"
