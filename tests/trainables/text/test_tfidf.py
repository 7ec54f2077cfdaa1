import numpy as np

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


def test_saved_features_are_the_same(tmp_path):
    lines = ["red dog and cat", "red dog", "blue owl and cat", "blue owl"]
    fitted = tfidf.fit(lines)
    tfidf.save(fitted, tmp_path / "tfidf.json")
    new = ["red owl", "and cat, and cat", "nothing known"]
    assert (tfidf.load(tmp_path / "tfidf.json").transform(new) != fitted.transform(new)).nnz == 0
