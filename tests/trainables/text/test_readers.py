"""Whatever lies in a user's folder, a reader makes splits of it or says in one line what is wrong."""

import io
import string
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from search.core.config import load_config
from trainables import get_task
from trainables.base.errors import InputError
from trainables.base.task import Splits

SUFFIXES = {
    "windows": (".png", ".jpg"),
    "rnn": (".csv", ".npz", ".npy", ".parquet", ".pkl"),
    "tweets": (".csv", ".tsv", ".parquet", ".jsonl"),
    "lyrics": (".txt", ".csv"),
    "wikitext": (".txt", ".tokens"),
}  # fmt: skip


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def archive(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("train/a.csv", content)
        file.writestr("../../outside.txt", content)
    return buffer.getvalue()


#: Anything at all; text that looks like a table; pictures; a good file cut off.
texts = st.text(max_size=200)
cells = st.one_of(st.sampled_from(["", "1", "-2.5", "nan", "1e999", '"a', "x\ty", "é\x00"]), st.text(max_size=5))
tables = st.lists(st.lists(cells, min_size=1, max_size=4), min_size=1, max_size=12).map(
    lambda rows: "\n".join(",".join(row) for row in [["text", "label", "sequence_id", "y"], *rows])
)
contents = st.one_of(
    st.binary(max_size=200),
    texts.map(lambda text: text.encode("utf-8", "surrogatepass")),
    tables.map(str.encode),
    st.tuples(st.integers(0, 9), st.integers(1, 200)).map(lambda pair: picture(pair[0])[: pair[1]]),
    st.integers(0, 99).map(picture),
    st.binary(max_size=50).map(archive),
)
names = st.text(string.ascii_letters + " .-_é", min_size=1, max_size=12).filter(lambda name: name.strip(". "))


@pytest.mark.parametrize("name", SUFFIXES)
def test_no_folder_makes_a_traceback(name):
    task, config = get_task(name), load_config(name)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        suffixes = st.sampled_from([*SUFFIXES[name], ".zip", ""])
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "data"
            for _ in range(data.draw(st.integers(1, 5))):
                parts = data.draw(st.lists(st.sampled_from(["train", "test", "a", "b"]), max_size=2))
                path = source.joinpath(*parts, data.draw(names) + data.draw(suffixes))
                if path.exists() or any(p.is_file() for p in path.parents):
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data.draw(contents))
            one = data.draw(st.sampled_from([source, *source.rglob("*"), Path(folder) / "missing"]))
            try:
                splits = task.prepare(config.data, one, Path(folder) / "cache", lambda *_: None)
            except InputError as error:
                assert str(error).strip()
            else:
                assert isinstance(splits, Splits) and len(splits.train) > 0
            assert not (Path(folder).parent / "outside.txt").exists()

    check()


def test_table_without_a_row_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n")
    with pytest.raises(InputError, match="train: no texts are left of it"):
        get_task("tweets").prepare(load_config("tweets").data, tmp_path, tmp_path / "cache", lambda *_: None)
