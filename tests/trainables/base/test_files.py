import zipfile
from pathlib import PurePosixPath

import pytest

from trainables.base.files import UNLIMITED, files_below, read_files, split_of


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


HIDDEN = [".ipynb_checkpoints/a.csv", ".git/a.csv", "._a.csv", "b/.a.csv", "__MACOSX/a.csv", "__MACOSX/._a.csv"]
#: A file that no program hides: the title of a song.
SHOWN = ["...Baby One More Time.csv", "a.csv", "b/a.csv"]


def test_hidden_files_are_no_data(tmp_path):
    folder = tmp_path / ".cache" / "data"  # a hidden folder that the user names is read
    for name in [*HIDDEN, *SHOWN]:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(name)
    assert [str(path.relative_to(folder)) for path in files_below(folder)] == SHOWN
    assert [str(name) for name, _ in read_files(folder, [".csv"], UNLIMITED)] == SHOWN


def test_hidden_members_of_a_zip_are_no_data(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in [*HIDDEN, *SHOWN, "c\\._a.csv"]:
            archive.writestr(name, name)
    assert [str(name) for name, _ in read_files(tmp_path / "a.zip", [".csv"], UNLIMITED)] == [f"a/{n}" for n in SHOWN]
