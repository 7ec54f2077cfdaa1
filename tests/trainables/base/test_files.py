from pathlib import PurePosixPath

import pytest

from trainables.base.files import split_of


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("wiki.valid.tokens", "val"),
        ("test-00000-of-00001.parquet", "test"),
        ("FD001_test/X.npy", "test"),
        ("Xtrain.npy", "train"),
        ("y_test.npy", "test"),
        ("testset.csv", "test"),
        ("dev/a.txt", "val"),
        ("test/train.csv", "train"),
        ("train_test_split/test.csv", "test"),
        ("train-test.csv", "train"),
        ("values.csv", "train"),
        ("latest.npz", "train"),
        ("interval/contest.csv", "train"),
        ("my_constraints.csv", "train"),
    ],
)
def test_split_is_what_a_word_of_a_name_says(name, split):
    assert split_of(PurePosixPath(name)) == split


def test_titles_may_hold_any_word():
    assert split_of(PurePosixPath("Last Train Home.txt"), whole=True) == "train"
    assert split_of(PurePosixPath("Test Icicles/Dev Song.txt"), whole=True) == "train"
    assert split_of(PurePosixPath("test/Last Train Home.txt"), whole=True) == "test"
