"""What validation and test share with train is found, under whatever name, and what only looks alike is not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from search.core.config import load_config
from tests.conftest import SHARED
from trainables import Splits, get_task
from trainables.base.task import DataInfo
from trainables.rnn.data import pack


def prepared(name: str, source: Path, tmp_path: Path, **data) -> Splits:
    settings = load_config(name, profile="data").data | data
    return get_task(name).prepare(settings, source, tmp_path / "cache", lambda *_: None)


def photograph(seed: int) -> Image.Image:
    """Random shapes with some detail: no two alike."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((200, 160), Image.Resampling.BICUBIC)


def test_same_pictures_resized_and_compressed(tmp_path):
    for split, label, seeds in (("train", "a", range(8)), ("train", "b", range(8, 16)), ("test", "a", range(20, 24)),
                                ("test", "b", range(24, 28))):  # fmt: skip
        (folder := tmp_path / "photos" / split / label).mkdir(parents=True)
        for seed in seeds:
            photograph(seed).save(folder / f"{seed}.png")
    photograph(3).resize((90, 70)).save(tmp_path / "photos/test/b/renamed.jpg", quality=60)
    splits = prepared("windows", tmp_path / "photos", tmp_path)
    found = [one for one in get_task("windows").leaks(splits) if "test" in one.title]
    assert len(found) == 1
    row = found[0].table.iloc[0]
    assert len(found[0].table) == 1
    assert (row["picture of test"], row["picture of train"]) in [
        ("test/b/renamed.jpg", f"train/{c}/3.png") for c in "ab"
    ]
    assert "1 of them have another class" in found[0].warning
    assert found[0].picture.startswith(b"\x89PNG")


def test_near_duplicates_two_letters(tmp_path):
    words = [
        "river",
        "stone",
        "lantern",
        "window",
        "garden",
        "thunder",
        "copper",
        "silence",
        "morning",
        "harbour",
        "candle",
        "meadow",
    ]
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.permutation(words)[:9]) for _ in range(120)]
    frame = pd.DataFrame({"text": lines, "label": ["x", "y"] * 60})
    frame.to_csv(tmp_path / "train.csv", index=False)
    other = pd.DataFrame({
        "text": [lines[7].replace("o", "u", 1).upper(), " ".join(rng.permutation(words)), "nothing like it at all"],
        "label": ["x", "y", "x"],
    })  # fmt: skip
    other.to_csv(tmp_path / "test.csv", index=False)
    splits = prepared("tweets", tmp_path, tmp_path)
    found = [one for one in get_task("tweets").leaks(splits) if "test" in one.title]
    assert [len(one.table) for one in found] == [1]
    assert found[0].table.iloc[0]["text of test"] == other["text"][0]
    assert "1 of 3 texts of test" in found[0].warning
    assert "1 of them with another label" in found[0].warning


def recordings(values, cuts: int) -> Splits:
    """Five cuts of each recording, dealt to train and test."""
    cut = [one[at : at + 20] for one in values for at in range(0, 5 * cuts, cuts)]
    train, test = cut[::2], cut[1::2]
    own = pack([np.random.default_rng(99).normal(size=(20, 3))], np.zeros(1))
    return Splits(pack(train, np.zeros(len(train))), own, pack(test, np.zeros(len(test))), DataInfo("d", "f", "t", {}))


def test_cuts_of_one_recording_in_two_splits_are_told_of():
    values = np.random.default_rng(0).normal(size=(6, 60, 3))
    (found,) = get_task("rnn").leaks(recordings(values, 3))
    assert "15 of 15 sequences of test" in found.warning
    assert "data.group" in found.warning


@pytest.mark.parametrize("values", [
    pytest.param(np.random.default_rng(0).normal(size=(6, 200, 3)), id="cuts without a common step"),
    pytest.param(np.random.default_rng(0).integers(0, 2, (6, 60, 1)).astype(float), id="coins"),
])  # fmt: skip
def test_steps_that_are_equal_by_chance_are_no_leak(values):
    found = get_task("rnn").leaks(recordings(values, 25 if values.shape[1] == 200 else 3))
    # Where equal values mean nothing, the page says that nothing was compared, and not that nothing is shared.
    assert [one.title for one in found] in ([], ["Parts of train cannot be recognised"])
    assert not any(one.warning for one in found)


def test_paragraph_of_train_in_test_is_found_word_for_word(tmp_path):
    rng = np.random.default_rng(0)
    text = [" ".join(rng.choice([f"w{i}" for i in range(300)], 40)) + " ." for _ in range(200)]
    (tmp_path / "train.txt").write_text("\n".join(text[:150]))
    (tmp_path / "val.txt").write_text("\n".join(text[150:175]))
    (tmp_path / "test.txt").write_text("\n".join([*text[175:], text[3]]))
    (found,) = get_task("wikitext").leaks(prepared("wikitext", tmp_path, tmp_path, min_frequency=1))
    assert found.title == "Words of test in train"
    assert found.table["words"].max() >= 40
    assert "its figures flatter" in found.warning


def test_engines_of_cmapss_share_no_step(tmp_path):
    if not (SHARED / "cmapss").exists():
        pytest.skip(f"no {SHARED / 'cmapss'}")
    assert not get_task("rnn").leaks(prepared("rnn", SHARED / "cmapss", tmp_path))


def test_trashnet_has_pictures_twice(tmp_path):
    """Of 402 test pictures eight are nearly in train, one with another label; others are at least 66 bits apart.

    A ninth, and one of validation, are the same to the pixel: their copies have left train.
    """
    if not (SHARED / "trashnet").exists():
        pytest.skip(f"no {SHARED / 'trashnet'}")
    found = get_task("windows").leaks(prepared("windows", SHARED / "trashnet", tmp_path))
    assert [len(one.table) for one in found] == [5, 8]
    assert found[1].table["bits apart"].tolist() == [24, 10, 14, 32, 10, 18, 12, 28]
