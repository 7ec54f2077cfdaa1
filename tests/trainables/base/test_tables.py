from pathlib import PurePosixPath

import pytest

from trainables.base.errors import InputError
from trainables.base.tables import read_frame


def read(text, name="t.csv", **options):
    return read_frame(text.encode(), PurePosixPath(name), name, **options)


def test_csv_with_a_long_field_is_read():
    text = "a" * 200_000
    frame = read_frame(f"text;label\n{text};1\n".encode(), PurePosixPath("t.csv"), "t.csv")
    assert frame["text"].tolist() == [text] and frame["label"].tolist() == ["1"]


def test_cells_beyond_the_header_are_refused_with_the_line():
    rows = "".join(f"lead{i}, text number {i},pos\n" for i in range(9))
    for text in ("text,label\n" + rows, 'text,label\n"one\nand two",pos\n' + rows, "text\n" + rows):
        line = 4 if "one" in text else 2
        with pytest.raises(
            InputError, match=rf"t\.csv: line {line}: 3 cells, but the first row has .*around a cell .*','"
        ):
            read(text)
    with pytest.raises(InputError, match=r"t\.tsv: line 3: 3 cells, .* holds a tab"):
        read("text\tlabel\na\tpos\nb\tc\tneg\n", "t.tsv")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("rows", ["a,pos,\nb,neg,\n", "a,pos\nb,neg,,\n", 'a,pos,\n"b",neg\n', "a,pos, \n\nb,neg, \n"])
def test_empty_cells_beyond_the_header_are_dropped(rows, separator):
    frame = read(("text,label\n" + rows).replace(",", separator))
    assert frame.to_dict("list") == {"text": ["a", "b"], "label": ["pos", "neg"]}


def test_numbers_with_a_separator_at_the_end_keep_their_columns():
    frame = read("id,t,x,y\n0,0,1.5,2,\n0,1,2.5,2,\n", numbers=True)
    assert frame.to_dict("list") == {"id": [0, 0], "t": [0, 1], "x": [1.5, 2.5], "y": [2, 2]}


def test_row_numbers_of_r_are_no_column():
    frame = read('"text","label"\n"1","a","pos"\n"2","b","neg"\n')
    assert frame.to_dict("list") == {"text": ["a", "b"], "label": ["pos", "neg"]}
