"""One policy for samples that several splits hold: pictures, texts and sequences."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from search.core.config import load_config
from trainables import InputError, Splits, get_task
from trainables.base.leakage import without_copies

WHAT = {"windows": "pictures", "tweets": "texts", "lyrics": "texts", "rnn": "sequences"}
#: The fingerprints of `with_copies` before notes had counts: a search of that time resumes.
FINGERPRINTS = {
    "windows": "56acb29a182d16a3637abd8f",
    "tweets": "6d71593798aafb2a86c9fcce",
    "lyrics": "6d71593798aafb2a86c9fcce",
    "rnn": "a41c062c36f2ae157558af5e",
}
#: The samples of each split by number: train holds 2 of test, 1 of val, and 1 of both; val holds 3 of test.
SAMPLES = {"train": [*range(40), 62, 63, 42, 44], "val": [*range(40, 54), 60, 61], "test": [*range(60, 74), 44]}


def with_copies(task: str, root: Path) -> Path:
    """A data set of two classes whose splits share samples."""
    for split, numbers in SAMPLES.items():
        (root / split).mkdir(parents=True)
        drawn = [np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8) for number in numbers]
        if task == "windows":
            for position, (number, pixels) in enumerate(zip(numbers, drawn, strict=True)):
                (folder := root / split / "ab"[number % 2]).mkdir(exist_ok=True)
                Image.fromarray(pixels).save(folder / f"{position:02d}.png")
        elif task == "rnn":
            x = np.empty(len(numbers), dtype=object)
            x[:] = [pixels[: 5 + number % 7, 0].astype(float) for number, pixels in zip(numbers, drawn, strict=True)]
            np.savez(root / f"{split}.npz", X=x, y=np.array(numbers, dtype=float))
        else:
            texts = [f"text number {number} of {number * 7}" for number in numbers]
            frame = pd.DataFrame({"text": texts, "label": ["yn"[number % 2] for number in numbers]})
            frame.to_csv(root / f"{split}.csv", index=False)
    return root


def prepared(task: str, source: Path, cache: Path) -> Splits:
    return get_task(task).prepare(load_config(task, profile="data").data, source, cache, lambda *_: None)


@pytest.mark.parametrize("task", WHAT)
def test_samples_of_test_leave_train_and_validation_in_each_task(task, tmp_path):
    splits = prepared(task, with_copies(task, tmp_path / "data"), tmp_path / "cache")
    assert splits.info.sizes == {"train": 40, "val": 13, "test": 15}
    for note in (
        f"3 of 44 {WHAT[task]} of train are also in test and leave train",
        f"1 of 44 {WHAT[task]} of train is also in val and leaves train",
        f"3 of 16 {WHAT[task]} of val are also in test and leave val",
    ):
        assert note in splits.info.notes
    assert splits.info.fingerprint == FINGERPRINTS[task]


class _Numbers(list):
    def take(self, indices):
        return _Numbers(self[i] for i in indices)


def test_train_without_a_sample_of_its_own_is_refused():
    parts = {"train": _Numbers([1, 2]), "test": _Numbers([2, 1, 3])}
    with pytest.raises(InputError, match="train: all 2 things are in val or test too"):
        without_copies(parts, parts, "things", "data", [])


def test_few_near_copies_are_a_note_with_an_example(tmp_path):
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(200)]
    texts = [" ".join(rng.choice(words, 12)) for _ in range(600)]
    frame = pd.DataFrame({"text": texts, "label": ["x", "y"] * 300})
    frame[:300].to_csv(tmp_path / "train.csv", index=False)
    held_out = frame[300:].copy()
    held_out.iloc[0, 0] = texts[5] + "!"
    held_out.to_csv(tmp_path / "test.csv", index=False)
    (found,) = get_task("tweets").leaks(prepared("tweets", tmp_path, tmp_path / "cache"))
    assert not found.warning and found.line == found.note
    assert found.note.startswith("1 of 300 texts of test have a near-duplicate in train")
    assert found.note.count(texts[5][:60]) == 2 and found.note.endswith("they stay")
