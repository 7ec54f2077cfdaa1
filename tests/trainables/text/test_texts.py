import gzip
import io
import json
import subprocess
import sys
import zipfile
from pathlib import PurePosixPath

import datasets
import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT
from trainables import get_task
from trainables.base import storage
from trainables.base.errors import InputError
from trainables.text import tables, texts

DATA = {"test_fraction": 0.2, "val_fraction": 0.25, "split_seed": 0, "max_unpacked_gb": 1.0}


def read(content: bytes, name: str = "t.csv", text=None, label=None) -> pd.DataFrame:
    return tables.read_table(content, PurePosixPath(name), name, text, label)


def rows(count: int, start: int = 0) -> str:
    return "".join(f"text {i},{'yes' if i % 5 == 0 else 'no'}\n" for i in range(start, start + count))


def table_reader(text=None, label=None):
    return lambda content, name, place, allowance: tables.read_table(
        content, name, place, text, label, allowance=allowance
    )


def prepare(source, **changes):
    return texts.prepare(DATA | changes, source, table_reader())


def test_read_table_special_characters():
    tricky = ['say "hi", now', "tab\there", "two\nlines", "👩🏽‍⚕️ ok", "مرحبا بالعالم", "  spaced  ", "NA", "null", "12"]
    frame = pd.DataFrame({"text": tricky, "label": ["a", "b", "c"] * 3})
    for name, content in (
        ("t.csv", frame.to_csv(index=False).encode()),
        ("t.tsv", frame.to_csv(index=False, sep="\t").encode()),
        ("t.csv", b"\xef\xbb\xbf" + frame.to_csv(index=False).encode()),
    ):
        assert read(content, name).equals(frame), name
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    assert read(buffer.getvalue(), "t.parquet").equals(frame)


def test_splits_without_a_header_are_taken_by_position_and_told(tmp_path):
    def table(first: int, count: int) -> str:
        return "".join(
            f"{1000 + i}\ttext {i}, and more\t{'YES' if i % 3 else 'NO'}\n" for i in range(first, first + count)
        )

    (tmp_path / "train.tsv").write_text("Id\tText\tLabel\n" + table(0, 30))
    (tmp_path / "valid.tsv").write_text(table(100, 10))
    (tmp_path / "test.tsv").write_text(table(200, 12))
    splits = prepare(tmp_path)
    assert splits.info.sizes == {"train": 30, "val": 10, "test": 12}
    assert splits.info.classes == ("NO", "YES")
    for name in ("valid", "test"):
        told = f"{name}.tsv has no header: column 1 is the text, 2 the label (data.text, data.label)"
        assert told in splits.info.notes
    (tmp_path / "train.tsv").write_text("Id\tBody\tLabel\n" + table(0, 30))
    named = texts.prepare(DATA, tmp_path, table_reader(1, "Label"))
    assert named.info.fingerprint == splits.info.fingerprint


def test_header_that_is_not_recognised_is_not_taken_for_a_text():
    with pytest.raises(InputError, match=r"no text column is recognised among id, body, mood; .*data.text=NAME"):
        read(b"id,body,mood\n1,hello,good\n2,bye,bad\n3,well,good\n")


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_csv_file_may_have_another_separator(separator):
    frame = pd.DataFrame({"id": ["1", "2"], "text": ["well, yes", "no, and\nno"], "label": ["a", "b"]})
    content = frame.to_csv(index=False, sep=separator).encode()
    assert read(content).equals(frame[["text", "label"]])


def test_read_table_one_column_with_separators():
    with pytest.raises(InputError, match="no label column is recognised among text; "):
        read(b"text\none; two; three\nfour\n")


def test_json_lines_are_read_as_they_stand():
    content = '{"text": "NA, \\u00e9t\u00e9", "label": 1}\n{"label": 0, "text": "007"}\n'.encode()
    assert read(content, "t.jsonl").to_dict("records") == [
        {"text": "NA, \u00e9t\u00e9", "label": "1"},
        {"text": "007", "label": "0"},
    ]
    with pytest.raises(InputError, match=r"t.jsonl: line 2: not JSON"):
        read(b'{"text": "a", "label": 1}\n{"text": ', "t.jsonl")


@pytest.mark.parametrize("whole", ["[{0}, {1}]", '{{"version": 1,\n "data": [{0}, {1}]}}', "{0}\n{1}\n"])
def test_json_is_a_list_of_records_or_one_a_line(whole):
    content = whole.format('{"text": "one", "label": "a"}', '{"text": "two", "label": 2}').encode()
    assert read(content, "t.json").to_dict("records") == [{"text": "one", "label": "a"}, {"text": "two", "label": "2"}]
    with pytest.raises(InputError, match=r"t\.json: expected JSON objects, one a line or in a list"):
        read(b"[1, 2]", "t.json")


def test_what_datasets_saves_has_the_fingerprint_of_the_table(tmp_path):
    """`save_to_disk` writes Arrow files with class labels as numbers, and JSON files beside them."""
    rng = np.random.default_rng(0)
    rows = [{"text": f"line {n} {rng.random()}", "label": n % 2} for n in range(60)]
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"]))
    made = {"train": rows[:40], "validation": rows[40:50], "test": rows[50:]}
    for split, part in made.items():
        frame = pd.DataFrame(part).assign(label=[["no", "yes"][row["label"]] for row in part])
        (tmp_path / "csv").mkdir(exist_ok=True)
        frame.to_csv(tmp_path / "csv" / f"{split}.csv", index=False)
    whole = datasets.DatasetDict({k: datasets.Dataset.from_list(v, features=features) for k, v in made.items()})
    whole.save_to_disk(tmp_path / "saved")
    whole["train"].to_parquet(tmp_path / "parquet" / "train.parquet")
    for split, part in whole.items():
        part.to_parquet(tmp_path / "as the hub has it" / f"{split}-00000-of-00001.parquet")
    reader = table_reader()
    expected = texts.prepare(DATA, tmp_path / "csv", reader).info
    for other in ("saved", "as the hub has it"):
        assert texts.prepare(DATA, tmp_path / other, reader).info.fingerprint == expected.fingerprint
    assert texts.prepare(DATA, tmp_path / "parquet", reader).info.classes == ("no", "yes")


def test_data_set_of_the_hub_is_written_once_with_labels_by_name(tmp_path, monkeypatch):
    """A folder of the name stands for the hub, which `load_dataset` reads in the same way."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tmp_path / "somebody" / "irony"
    folder.mkdir(parents=True)
    for split, count in (("train", 30), ("test", 10)):
        rows = [json.dumps({"text": f"{split} {n}", "label": "ab"[n % 2]}) for n in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(rows))
    found = storage.fetch("hf:somebody/irony", tmp_path / "store")
    assert {path.name for path in found.iterdir()} == {"train.parquet", "test.parquet"}
    info = texts.prepare(DATA, found, table_reader()).info
    assert info.classes == ("a", "b") and info.sizes["test"] == 10
    (folder / "train.jsonl").write_text("gone")
    assert storage.fetch("hf:somebody/irony", tmp_path / "store") == found, "a search goes on with what it began with"
    with pytest.raises(InputError, match="--data hf:nobody/nothing: "):
        storage.fetch("hf:nobody/nothing", tmp_path / "store")


def test_windows_line_ends_are_no_part_of_a_label():
    assert read(b"text,label\r\nhello,a\r\nworld,b\r\n")["label"].tolist() == ["a", "b"]


def test_latin_1_is_refused_with_the_line():
    with pytest.raises(InputError, match=r"t.csv: line 3, byte 21: 0xe9 is not UTF-8"):
        read("text,label\nfine,a\ncafé,b\n".encode("latin-1"))


def test_columns_are_detected_or_named():
    table = b"id,Tweet,sentiment,Class\n1,hello,good,a\n"
    assert read(table).to_dict("records") == [{"text": "hello", "label": "a"}]
    assert read(table, label="sentiment")["label"].tolist() == ["good"]
    with pytest.raises(InputError, match=r"data.text: no column 'body'; there are id, Tweet, sentiment, Class"):
        read(table, text="body")
    with pytest.raises(InputError, match=r"no label column is recognised among text, id; .*data.label=NAME"):
        read(b"text,id\nx,1\ny,2\n")
    with pytest.raises(InputError, match=r"both 'text'"):
        read(b"text,label\nx,a\n", label="text")


@pytest.mark.parametrize(
    "table",
    [
        "review,sentiment\nrather good,pos\nfairly bad,neg\nvery good,pos\n",
        "v1,v2,,\npos,rather good,,\nneg,fairly bad,,\npos,very good,,\n",
        ",mood,text\n0,pos,rather good\n1,neg,fairly bad\n2,pos,very good\n",
        "label,body\npos,rather good\nneg,fairly bad\npos,very good\n",
    ],
    ids=["no usual name", "empty columns", "row numbers", "a usual label"],
)
def test_of_two_columns_which_is_the_text_is_found_and_told(table):
    frame = read(table.encode())
    assert frame["text"].tolist() == ["rather good", "fairly bad", "very good"]
    assert frame["label"].tolist() == ["pos", "neg", "pos"]
    assert "is the text" in frame.attrs["notes"][0]


def test_labels_may_be_numbers_and_true_or_false():
    buffer = io.BytesIO()
    pd.DataFrame({"text": ["a", "b"], "label": [0, 1]}).to_parquet(buffer)
    assert read(buffer.getvalue(), "t.parquet")["label"].tolist() == ["0", "1"]


def test_whole_numbers_are_one_class_in_each_form():
    records = [{"text": "a", "label": 1}, {"text": "b", "label": 1.0}, {"text": "c", "label": 1.5}]
    assert read(json.dumps(records).encode(), "t.json")["label"].tolist() == ["1", "1", "1.5"]
    buffer = io.BytesIO()
    pd.DataFrame({"text": ["a", "b", "c"], "label": [0, None, 2]}).to_parquet(buffer)
    frame = tables.read_table(buffer.getvalue(), PurePosixPath("t.parquet"), "t", None, None, unlabelled="drop")
    assert frame["label"].tolist() == ["0", "2"]


def test_broken_table_is_refused():
    with pytest.raises(InputError, match="line 3: 4 cells, but the first row has 2"):
        read(b"text,label\na,x\nb,y,z,w\n")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read(b"not parquet", "t.parquet")


def test_splits_keep_the_classes_shares_and_are_seeded(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\n" + rows(500))
    splits = prepare(tmp_path / "t.csv")
    assert splits.info.classes == ("no", "yes")
    assert splits.info.sizes == {"train": 300, "val": 100, "test": 100}
    for part in (splits.train, splits.val, splits.test):
        assert np.mean(part.labels) == pytest.approx(0.2)
    everything = np.concatenate([part.texts for part in (splits.train, splits.val, splits.test)])
    assert len(set(everything)) == 500
    again = prepare(tmp_path / "t.csv")
    assert again.info == splits.info
    assert prepare(tmp_path / "t.csv", split_seed=1).info.fingerprint != splits.info.fingerprint


def test_splits_given_as_files_are_kept(tmp_path):
    for number, name in enumerate(("train", "validation", "test")):
        (tmp_path / f"{name}.csv").write_text("text,label\n" + rows(10 + number, start=100 * number))
    splits = prepare(tmp_path)
    assert splits.info.sizes == {"train": 10, "val": 11, "test": 12}
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        for name in ("train", "validation", "test"):
            archive.write(tmp_path / f"{name}.csv", f"data/{name}.csv")
    assert prepare(tmp_path / "t.zip").info.fingerprint == splits.info.fingerprint


def test_compressed_tables_are_read_up_to_a_size(tmp_path):
    plain = ("text,label\n" + rows(50)).encode()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "t.csv").write_bytes(plain)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(plain))
    packed = prepare(tmp_path / "t.csv.gz")
    assert packed.info.fingerprint == prepare(tmp_path / "plain").info.fingerprint
    with pytest.raises(InputError, match=r"t.csv.gz: larger unpacked than 1e-07 GiB"):
        prepare(tmp_path / "t.csv.gz", max_unpacked_gb=1e-7)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(plain)[:-20])
    with pytest.raises(InputError, match=r"t.csv.gz: not a gzip file"):
        prepare(tmp_path / "t.csv.gz")


def test_empty_and_repeated_texts_are_left_out_and_told(tmp_path):
    table = "text,label\n" + rows(50) + " ,yes\n,no\ntext 1,no\ntext 2,yes\n"
    (tmp_path / "t.csv").write_text(table)
    splits = prepare(tmp_path / "t.csv")
    assert sum(splits.info.sizes.values()) == 50
    assert "train: 2 empty texts left out" in splits.info.notes
    assert "2 of 52 texts of train repeat others and leave train; the first of each stays" in splits.info.notes
    (named,) = [note for note in splits.info.notes if "different labels" in note]
    assert named.startswith("1 of 50 different texts of train occurs with different labels, as 'text ")


def test_text_that_stands_in_two_splits_leaves_train_and_is_told(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n" + rows(20))
    (tmp_path / "val.csv").write_text("text,label\n" + rows(10, start=100) + rows(1, start=200))
    (tmp_path / "test.csv").write_text("text,label\n" + rows(10, start=200) + rows(2, start=10))
    splits = prepare(tmp_path)
    assert splits.info.sizes == {"train": 18, "val": 10, "test": 12}
    assert "2 of 20 texts of train are also in test and leave train" in splits.info.notes
    assert "1 of 11 texts of val is also in test and leaves val" in splits.info.notes


def test_text_with_another_label_in_test_is_named(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n" + rows(20) + "Late  Song,yes\n")
    (tmp_path / "test.csv").write_text("text,label\n" + rows(10, start=200) + "late song,no\n")
    splits = prepare(tmp_path)
    assert "1 of 21 texts of train is also in test and leaves train" in splits.info.notes
    named = "1 of 31 different texts occurs with different labels, as 'Late  Song' (yes) and 'late song' (no)"
    assert f"{named}: no model gets all of them right" in splits.info.notes


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"t.csv": "text,label\na,x\nb,x\n"}, "only one label, 'x'; at least two are needed"),
        ({"t.csv": "text,label\na,x\nb,x\nc,y\n"}, "label 'y' has 1 text left to split"),
        ({"test.csv": "text,label\na,x\nb,y\n"}, "there is a test split but no train"),
        (
            {"train.csv": "text,label\n" + rows(20), "test.csv": "text,label\nz,maybe\n"},
            "test: label 'maybe' is not in train",
        ),
        ({"t.txt": "hello"}, "no .arrow, .csv, .json, .jsonl, .parquet, .tsv, .zip file; those are allowed"),
    ],
)
def test_data_that_cannot_be_used_is_refused(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        prepare(tmp_path)


def test_source_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "t.doc").write_text("x")
    with pytest.raises(InputError, match=r"t\.doc: no \.arrow, \.csv, \.json, \.jsonl, \.parquet, \.tsv, \.zip file"):
        prepare(tmp_path / "t.doc")
    (tmp_path / "t.zip").write_text("x")
    with pytest.raises(InputError, match="not a zip file"):
        prepare(tmp_path / "t.zip")
    with pytest.raises(InputError, match="no such file or folder"):
        prepare(tmp_path / "absent")


def test_prepare_rare_classes(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\n" + rows(50) + "one,rare\ntwo,small\nthree,small\n")
    with pytest.raises(InputError, match=r"label 'rare' has 1 text left to split; .*data.rare=drop.*data.rare=train"):
        prepare(tmp_path / "t.csv")
    dropped = prepare(tmp_path / "t.csv", rare="drop")
    assert dropped.info.classes == ("no", "yes")
    assert "data.rare=drop: left out for too few texts: rare, small" in dropped.info.notes
    kept = prepare(tmp_path / "t.csv", rare="train")
    assert kept.info.classes == ("no", "rare", "small", "yes")
    assert 1 in kept.train.labels and 1 not in np.concatenate([kept.val.labels, kept.test.labels])
    with pytest.raises(InputError, match=r"data.rare: 'leave': must be drop, train or null"):
        prepare(tmp_path / "t.csv", rare="leave")


def test_rows_without_a_label_are_refused_or_left_out_on_demand():
    table = b"text,label\na,x\nb,\nc,y\nd, \n"
    with pytest.raises(InputError, match=r"t.csv: row 2: no label \(2 rows have none; --set data.unlabelled=drop"):
        read(table)
    frame = tables.read_table(table, PurePosixPath("t.csv"), "t.csv", None, None, "drop")
    assert frame.to_dict("records") == [{"text": "a", "label": "x"}, {"text": "c", "label": "y"}]
    assert frame.attrs["notes"] == ["data.unlabelled=drop: 2 rows of t.csv left out"]


@pytest.mark.slow
def test_read_table_memory_of_200000_rows(tmp_path):
    table = tmp_path / "t.csv"
    with table.open("w") as file:
        file.write("text,label\n")
        for number in range(200_000):
            file.write(f'"number {number} ' + "says a few more words, as tweets do, " * 2 + f'ok",{number % 5 == 0}\n')
    code = f"""
import resource
from pathlib import Path
from search.core.config import load_config
from trainables.tweets.task import TASK
data = load_config("tweets", ["data.encoder=packaged"]).data
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
splits = TASK.read(data, Path({str(table)!r}))
print(sum(splits.info.sizes.values()), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    rows, mebibytes = (int(word) for word in done.stdout.split())
    assert rows == 200_000
    assert mebibytes < 512


@pytest.mark.parametrize(("name", "content"), [
    ("t.csv.gz", gzip.compress(b"id;text\n1;one two\n2;three\n")),
    ("t.tsv", b"1\tone two\tyes\n2\tthree\tno\n3\tthree\tyes\n"),
    ("t.csv", b"one two\nthree\n"),
], ids=["gzipped", "no header", "lines"])  # fmt: skip
def test_inputs_gzip_and_no_header(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    frame = get_task("tweets").inputs([str(tmp_path / name)])
    assert frame["text"].tolist()[:2] == ["one two", "three"]
    assert frame.index[0] == f"{tmp_path / name}:1"


def test_table_to_predict_whose_header_names_no_text_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("id,body\n1,one two\n2,three\n")
    with pytest.raises(InputError, match="no text column is recognised among id, body"):
        get_task("tweets").inputs([str(tmp_path / "t.csv")])


def test_half_of_an_emoji_in_json_is_a_replacement_character(tmp_path):
    lines = [f'{{"text": "cut \\ud83d {i} \\ud83d\\ude00", "label": "{"ab"[i % 2]}"}}' for i in range(20)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    splits = prepare(tmp_path / "t.jsonl")
    assert {text[:6] + text[-1] for text in splits.train.texts} == {"cut \ufffd \U0001f600"}
