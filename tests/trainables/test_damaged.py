"""Files that are damaged, foreign or no files at all: each is read, passed over, or refused in one line."""

import codecs
import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from tests.conftest import ROOT
from trainables import get_task
from trainables.base.errors import InputError
from trainables.rnn import data as sequences
from trainables.text import tables, texts
from trainables.wikitext import data as running
from trainables.windows import data as pictures

SETTINGS = {
    name: OmegaConf.to_container(OmegaConf.load(ROOT / "configs" / f"{name}.yaml"))["data"] | {"max_unpacked_gb": 0.01}
    for name in ("windows", "rnn", "tweets", "wikitext")
}
SETTINGS["windows"] |= {"size": 8}
SETTINGS["wikitext"] |= {"batch": 2, "bptt": 2, "min_frequency": 1}


def read_texts(source, folder):
    return texts.prepare(
        SETTINGS["tweets"], source,
        lambda content, name, place, allowance: tables.read_table(
            content, name, place, None, None, allowance=allowance
        ),
    )  # fmt: skip


READERS = {
    "windows": lambda source, folder: pictures.prepare(SETTINGS["windows"], source, folder, lambda *_: None),
    "rnn": lambda source, folder: sequences.prepare(SETTINGS["rnn"], source),
    "tweets": read_texts,
    "wikitext": lambda source, folder: running.prepare(SETTINGS["wikitext"], source),
}
TEXTS = pd.DataFrame({"text": [f"some words {i}" for i in range(20)], "label": ["a", "b"] * 10})
STEPS = pd.DataFrame([(i, t, i + t / 7, i / 3) for i in range(8) for t in range(3)], columns=["id", "t", "x", "y"])


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def picture(seed: int, kind: str = "PNG") -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(seed).integers(0, 255, (9, 9, 3), dtype=np.uint8)), kind)


def zipped(members: dict[str, bytes], method=zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def written(frame: pd.DataFrame, method: str) -> bytes:
    buffer = io.BytesIO()
    getattr(frame, method)(buffer)
    return buffer.getvalue()


def pictures_in(kind: str) -> dict[str, bytes]:
    return {
        f"train/{label}/{i}.{kind.lower()}": picture(i + 10 * (label == "b"), kind) for label in "ab" for i in range(5)
    }


def real_files() -> list[tuple[str, str, bytes]]:
    """A reader's name, a file's name and its content."""
    found = []
    for task, frame in (("tweets", TEXTS), ("rnn", STEPS), ("wikitext", TEXTS)):
        table = frame.to_csv(index=False).encode()
        found += [
            (task, "t.csv", table),
            (task, "t.csv.gz", gzip.compress(table)),
            (task, "t.zip", zipped({"t.csv": table})),
            (task, "t.parquet", written(frame, "to_parquet")),
            (task, "t.arrow", written(frame, "to_feather")),
            (task, "t.jsonl", frame.to_json(orient="records", lines=True).encode()),
            (task, "t.json", frame.to_json(orient="records").encode()),
        ]
    found += [("windows", "t.zip", zipped(pictures_in(kind))) for kind in ("PNG", "JPEG", "WEBP")]
    held = pd.DataFrame({"image": [{"bytes": picture(i)} for i in range(10)], "label": ["a", "b"] * 5})
    return [*found, ("windows", "t.parquet", written(held, "to_parquet"))]


def test_damaged_file_of_each_kind_is_read_or_refused_in_a_line(tmp_path):
    damages = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=5)

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(st.sampled_from(real_files()), damages, st.floats(0, 1) | st.just(1.0))
    def check(file, changes, kept):
        task, name, content = file
        spoilt = bytearray(content[: round(kept * len(content))])
        for place, byte in changes if spoilt else ():
            spoilt[int(place * (len(spoilt) - 1))] = byte
        (tmp_path / name).write_bytes(spoilt)
        try:
            READERS[task](tmp_path / name, tmp_path / "cache")
        except InputError as error:
            first = str(error).split(" images cannot be read:\n")[0]  # then a line for each picture
            assert len(first.splitlines()) == 1 and len(first) < 1000, error

    check()


@pytest.mark.parametrize("mark", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-8"])
@pytest.mark.parametrize("task", ["tweets", "rnn", "wikitext"])
def test_encoding_that_a_file_names_by_its_mark_is_read(task, mark, tmp_path):
    marks = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE, "utf-32-le": codecs.BOM_UTF32_LE,
             "utf-32-be": codecs.BOM_UTF32_BE, "utf-8": codecs.BOM_UTF8}  # fmt: skip
    table = (STEPS if task == "rnn" else TEXTS).to_csv(index=False)
    (tmp_path / "plain.csv").write_text(table)
    (tmp_path / "marked.csv").write_bytes(marks[mark] + table.encode(mark))
    plain, marked = (READERS[task](tmp_path / name, tmp_path / "cache") for name in ("plain.csv", "marked.csv"))
    assert plain.info.fingerprint == marked.info.fingerprint


def test_text_in_latin_1_is_refused_with_line_byte_and_advice(tmp_path):
    (tmp_path / "t.csv").write_bytes("text,label\nplain,a\ncafé,b\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"t\.csv: line 3, byte 22: 0xe9 is not UTF-8; .*iconv -f LATIN1 -t UTF-8"):
        READERS["tweets"](tmp_path / "t.csv", tmp_path)


def test_latin_1_with_carriage_returns_is_refused_with_the_line(tmp_path):
    (tmp_path / "t.csv").write_bytes("text,label\rplain,a\rcafé,b\r".encode("latin-1"))
    with pytest.raises(InputError, match=r"t\.csv: line 3, byte 22"):
        READERS["tweets"](tmp_path / "t.csv", tmp_path)


@pytest.mark.parametrize("encoding", ["UTF-16LE", "UTF-16BE"])
@pytest.mark.parametrize("text", ["plain", "café", "кофе", "咖啡"])
def test_utf_16_without_a_mark_is_refused_with_advice(encoding, text, tmp_path):
    table = "text,label\n" + "".join(f"{text} {number},{'ab'[number % 2]}\n" for number in range(20))
    (tmp_path / "t.csv").write_bytes(table.encode(encoding))
    with pytest.raises(InputError, match=rf"t\.csv: the text is {encoding} without .*`iconv -f {encoding} -t UTF-8`"):
        READERS["tweets"](tmp_path / "t.csv", tmp_path)


@pytest.mark.parametrize("task", ["tweets", "rnn", "wikitext"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_carriage_returns_end_lines(task, suffix, tmp_path):
    table = STEPS if task == "rnn" else TEXTS
    whole = table.to_csv(index=False) if suffix == ".csv" else table.to_json(orient="records", lines=True)
    prints = set()
    for name, end in {"unix": "\n", "mac": "\r", "dos": "\r\n"}.items():
        (tmp_path / (name + suffix)).write_bytes(whole.replace("\n", end).encode())
        prints.add(READERS[task](tmp_path / (name + suffix), tmp_path / "cache").info.fingerprint)
    assert len(prints) == 1


def test_json_lines_may_hold_the_line_separators_of_unicode(tmp_path):
    rows = [{"text": f"one\u2028two {i}", "label": "ab"[i % 2]} for i in range(20)]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    assert READERS["tweets"](tmp_path / "t.jsonl", tmp_path).train.texts[0].startswith("one\u2028two")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.json", b"[" * 100_000, "JSON in too many levels"),
        ("t.jsonl", b'{"text": "a", "label": "b"}\n' + b"[" * 100_000, "line 2: JSON in too many levels"),
        ("t.csv", b'text,label\n"' + b"x" * 200_000 + b'",a\nz,b\n', ""),
        ("t.zip", b"PK\x03\x04 and nothing more", "not a zip file"),
        ("t.csv.gz", gzip.compress(b"text,label\n" * 99, mtime=0)[:-12], "not a gzip file"),
        ("t.parquet", b"PAR1" + b"\xff" * 40 + b"PAR1", "cannot be read as a table"),
        ("t.arrow", b"ARROW1" + b"\xff" * 40, "cannot be read as a table"),
    ],
)
def test_damage_is_named(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as refused:
        READERS["tweets"](tmp_path / name, tmp_path)
    assert name in str(refused.value) and said in str(refused.value) and "\n" not in str(refused.value)


def test_read_frame_arrow_offsets_outside_file(tmp_path):
    table = pa.table({"text": [f"word {i}" for i in range(9)], "label": ["a", "b", "c"] * 3})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    offsets = np.array([*range(0, 54, 6)], dtype="<i4").tobytes()
    spoilt = np.array([0, *[0x7F000000] * 8], dtype="<i4").tobytes()
    content = sink.getvalue()
    assert content.count(offsets) == 1
    (tmp_path / "t.arrow").write_bytes(content.replace(offsets, spoilt))
    code = (
        "import sys, pathlib; from trainables.base.tables import read_frame; p = pathlib.PurePosixPath(sys.argv[1]);"
        "print(read_frame(pathlib.Path(p).read_bytes(), p, 'P'))"
    )
    ran = subprocess.run([sys.executable, "-c", code, tmp_path / "t.arrow"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1 and "InputError: P: cannot be read as a table" in ran.stderr


def large_parquet(store_schema: bool) -> bytes:
    buffer = io.BytesIO()
    one = pa.array(["x" * 100_000, "y" * 100_000]).dictionary_encode()
    text = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 2000, pa.int32()), one.dictionary)
    pq.write_table(pa.table({"text": text, "label": ["a", "b"] * 2000}), buffer, store_schema=store_schema)
    return buffer.getvalue()


def large_arrow() -> bytes:
    buffer = io.BytesIO()
    table = pa.table({"text": ["x" * 20_000_000, "y"], "label": ["a", "b"]})
    with pa.ipc.new_file(buffer, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as file:
        file.write_table(table)
    return buffer.getvalue()


ROWS = b"text,label\n" + b"the same text over and over,a\n" * 400_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv.gz", gzip.compress(ROWS)),
        ("t.zip", zipped({"t.csv": ROWS})),
        ("t.parquet", large_parquet(store_schema=True)),
        ("t.parquet", large_parquet(store_schema=False)),
        ("t.arrow", large_arrow()),
    ],
)
def test_read_files_larger_than_allowance(name, content, tmp_path):
    assert len(content) < 2**20
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: larger unpacked than 0\.01 GiB; .*max_unpacked_gb"):
        READERS["tweets"](tmp_path / name, tmp_path)


def test_files_of_a_folder_are_counted_together(tmp_path):
    for part in range(4):
        (tmp_path / f"{part}.csv.gz").write_bytes(gzip.compress(ROWS[:4_000_000]))
    with pytest.raises(InputError, match="larger unpacked"):
        READERS["tweets"](tmp_path, tmp_path)


def real_folder(task: str, root: Path) -> None:
    files = {"windows": pictures_in("PNG")}.get(task) or {
        "t.csv": (STEPS if task == "rnn" else TEXTS).to_csv(index=False).encode()
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


@pytest.mark.parametrize("task", READERS)
def test_pipes_devices_and_links_to_nowhere_are_passed_over(task, tmp_path):
    root = tmp_path / "data"
    real_folder(task, root)
    below = root / "train" / "a" if task == "windows" else root
    suffix = ".png" if task == "windows" else ".csv"
    before = READERS[task](root, tmp_path / "cache").info.fingerprint
    os.mkfifo(below / f"pipe{suffix}")
    (below / f"null{suffix}").symlink_to("/dev/null")
    (below / f"nowhere{suffix}").symlink_to(tmp_path / "not there")
    (below / f"circle{suffix}").symlink_to(below / f"circle{suffix}")
    assert READERS[task](root, tmp_path / "cache").info.fingerprint == before


@pytest.mark.parametrize("task", READERS)
@pytest.mark.parametrize("kind", ["pipe", "circle", "device"])
def test_source_that_is_no_regular_file_is_refused(task, kind, tmp_path):
    source = tmp_path / "t.csv"
    if kind == "pipe":
        os.mkfifo(source)
    else:
        source.symlink_to(source if kind == "circle" else "/dev/zero")
    with pytest.raises(InputError, match=r"t\.csv: neither a regular file nor a folder"):
        READERS[task](source, tmp_path)


@pytest.mark.parametrize("task", ["windows", "rnn", "tweets"])
def test_inputs_of_predict_are_regular_files_alone(task, tmp_path):
    suffix = ".png" if task == "windows" else ".csv"
    os.mkfifo(tmp_path / f"pipe{suffix}")
    with pytest.raises(InputError, match=r"pipe|no JPEG"):
        get_task(task).inputs([str(tmp_path if task == "windows" else tmp_path / f"pipe{suffix}")])


def test_picture_of_too_many_pixels_is_refused_by_name(tmp_path):
    real_folder("windows", tmp_path / "data")
    (tmp_path / "data/train/a/large.png").write_bytes(encoded(Image.new("1", (30_000, 4_000)), "PNG"))
    with pytest.raises(InputError, match=r"train/a/large\.png: 30000 x 4000 pixels"):
        READERS["windows"](tmp_path / "data", tmp_path / "cache")


def test_picture_that_is_a_program_for_another_tool_is_refused(tmp_path):
    real_folder("windows", tmp_path / "data")
    (tmp_path / "data/train/a/script.png").write_bytes(encoded(Image.new("L", (8, 8)), "EPS"))
    with pytest.raises(InputError, match=r"train/a/script\.png: damaged, or not JPEG"):
        READERS["windows"](tmp_path / "data", tmp_path / "cache")
