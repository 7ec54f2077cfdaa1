"""Random tables are read, or refused in one line; nothing else ever happens."""

import gzip
import json
from pathlib import PurePosixPath

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainables.base.errors import InputError
from trainables.base.files import Allowance, read_files
from trainables.text import tables, texts

NAMES = st.sampled_from(["text", "label", "tweet", "Class", "id", "", "text", "\ufefftext", "a,b"])
CELLS = st.one_of(
    st.text(max_size=12), st.integers(-3, 3).map(str), st.sampled_from(["", "yes", "no", '"', "'", "a;b", "\t", "NaN"])
)
ROWS = st.lists(st.lists(CELLS, min_size=0, max_size=4), max_size=8)
CHOICE = st.one_of(st.none(), st.sampled_from(["text", "label", "0", "1", "9", "none"]))
DATA = {"test_fraction": 0.2, "val_fraction": 0.25, "split_seed": 0, "max_unpacked_gb": 0.01}


@st.composite
def files(draw):
    """A file's name and content: delimited text, JSON of some shape, or bytes that are none of it."""
    suffix = draw(st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow"]))
    kind = draw(st.sampled_from(["rows", "rows", "records", "json", "bytes"]))
    header, rows = draw(st.lists(NAMES, max_size=4)), draw(ROWS)
    if kind == "rows":
        separator, end = draw(st.sampled_from([",", ";", "\t", "|"])), draw(st.sampled_from(["\n", "\r\n", "\r"]))
        content = end.join(separator.join(row) for row in [header, *rows])
    elif kind == "records":
        content = "\n".join(json.dumps(dict(zip(header, row, strict=False))) for row in rows)
    elif kind == "json":
        leaves = st.none() | st.booleans() | st.floats() | CELLS
        plain = st.recursive(leaves, lambda i: st.lists(i, max_size=3) | st.dictionaries(NAMES, i, max_size=3))
        content = json.dumps(draw(plain))
    else:
        return f"t{suffix}", draw(st.binary(max_size=60))
    return f"t{suffix}", content.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-16"])), "surrogatepass")


def one_line(error: InputError) -> bool:
    return bool(str(error).strip()) and len(str(error).strip().splitlines()) == 1


@settings(max_examples=1000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    files(), CHOICE, CHOICE, st.sampled_from([None, "drop"]), st.sampled_from([None, "drop", "train"]), st.booleans()
)
def test_random_table_is_read_or_refused_in_a_line(tmp_path_factory, file, text, label, unlabelled, rare, packed):
    name, content = file
    path = tmp_path_factory.getbasetemp() / "fuzz" / (f"{name}.gz" if packed else name)
    path.parent.mkdir(exist_ok=True)
    for old in path.parent.iterdir():
        old.unlink()
    path.write_bytes(gzip.compress(content) if packed else content)

    def read(content: bytes, name: PurePosixPath, place: str, _: Allowance):
        return tables.read_table(content, name, place, text, label, unlabelled)

    try:
        assert len(list(read_files(path, tables.TABLES, Allowance(0.01)))) == 1
        splits = texts.prepare(DATA | {"rare": rare}, path, read)
    except InputError as error:
        assert one_line(error)
    else:
        assert len(splits.train) and len(splits.val) and len(splits.test) and len(splits.info.classes) > 1
