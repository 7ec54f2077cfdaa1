import zipfile
from collections import Counter
from itertools import combinations

import pytest

from search.core.config import load_config
from trainables.base.errors import InputError
from trainables.lyrics import demo
from trainables.lyrics.task import TASK

DATA = load_config("lyrics", [], {}).data


def lines(singer: str, count: int = 20) -> str:
    return "".join(f"{singer} sings line {n}\n\n" for n in range(count))


def read(source):
    return TASK.read(DATA, source)


def test_lyrics_layouts_give_the_same_splits(tmp_path):
    files, folders, table = tmp_path / "files", tmp_path / "folders", tmp_path / "t.csv"
    files.mkdir()
    rows = ["lyric,artist"]
    for singer in ("Björk", "Adele"):
        (files / f"{singer}.txt").write_text(lines(singer))
        (folders / singer).mkdir(parents=True)
        (folders / singer / "a song.txt").write_text(lines(singer))
        rows += [f"{line},{singer}" for line in lines(singer).split("\n\n") if line]
    table.write_text("\n".join(rows))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for path in files.iterdir():
            archive.write(path, f"my lyrics/{path.name}")
    fingerprints = set()
    for source in (files, folders, tmp_path / "z.zip"):
        splits = read(source)
        assert splits.info.classes == ("Adele", "Björk")
        assert sum(splits.info.sizes.values()) == 40
        fingerprints.add(tuple(sorted(splits.test.texts)))
    assert read(table).info.classes == ("Adele", "Björk")
    assert len(fingerprints) == 1


def test_given_splits_are_kept(tmp_path):
    for split, start in (("train", 0), ("test", 30)):
        (tmp_path / split).mkdir()
        for singer in ("a", "b"):
            text = "".join(f"{singer} {n}\n" for n in range(start, start + 20))
            (tmp_path / split / f"{singer}.txt").write_text(text)
    splits = read(tmp_path)
    assert splits.info.classes == ("a", "b")
    assert splits.info.sizes == {"train": 32, "val": 8, "test": 40}


def test_case_and_punctuation_stay(tmp_path):
    (tmp_path / "a.txt").write_text("I'm HERE, now!\n" + lines("a"))
    (tmp_path / "b.txt").write_text(lines("b"))
    splits = read(tmp_path)
    everything = [t for part in (splits.train, splits.val, splits.test) for t in part.texts]
    assert "I'm HERE, now!" in everything


def test_one_artist_and_empty_files_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text(lines("a"))
    with pytest.raises(InputError, match="only one label, 'a'"):
        read(tmp_path)
    (tmp_path / "b.txt").write_text("\n\n")
    with pytest.raises(InputError, match=r"b.txt: no line in it"):
        read(tmp_path)


def test_demo_has_twice_the_lines_by_the_first_and_shared_words():
    frames = demo.make(size=4000, seed=0)
    counts = Counter(frames["train"]["label"])
    first, *others = demo.SUBJECTS
    assert all(counts[first] == pytest.approx(2 * counts[other], rel=0.1) for other in others)
    words = {
        singer: Counter(w for t in frame["text"] for w in t.lower().split())
        for singer, frame in frames["train"].groupby("label")
    }
    for one, other in combinations(words.values(), 2):
        shared = sum(n for w, n in one.items() if w in other) / one.total()
        assert shared > 0.7, "of the words that one sings, most are sung by the others"
