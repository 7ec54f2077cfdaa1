from pathlib import PurePosixPath

from trainables.base.tables import read_frame


def test_csv_with_a_long_field_is_read():
    text = "a" * 200_000
    frame = read_frame(f"text;label\n{text};1\n".encode(), PurePosixPath("t.csv"), "t.csv")
    assert frame["text"].tolist() == [text] and frame["label"].tolist() == ["1"]
