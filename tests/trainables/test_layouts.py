"""Real data laid out as others lay it out is the same data: its fingerprint is that of the layout in `../shared`."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from search.core.config import load_config
from tests.conftest import SHARED
from trainables import get_task


def fingerprint(name: str, source: Path, tmp_path: Path, **data) -> str:
    settings = load_config(name, profile="data").data | data
    return get_task(name).prepare(settings, source, tmp_path / "cache", lambda *_: None).info.fingerprint


def there(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"no {SHARED / name}")
    return SHARED / name


@pytest.fixture(scope="module")
def verse(tmp_path_factory) -> tuple[pd.DataFrame, str]:
    source = there("verse")
    # As lyrics reads them: a file a label, in alphabetical order.
    rows = [
        (line.strip(), path.stem)
        for path in sorted(source.glob("*.txt"))
        for line in path.read_text(encoding="utf-8-sig").splitlines()
        if line.strip()
    ]
    return pd.DataFrame(rows, columns=["text", "label"]), fingerprint(
        "lyrics", source, tmp_path_factory.mktemp("verse")
    )


@pytest.mark.parametrize(("file", "write"), [
    ("v.csv", lambda frame, path: frame.to_csv(path, index=False, sep=";")),
    ("v.tsv", lambda frame, path: frame.to_csv(path, index=False, header=False, sep="\t")),
    ("v.jsonl", lambda frame, path: frame.to_json(path, orient="records", lines=True)),
    ("v.json.gz", lambda frame, path: frame.to_json(path, orient="records")),
    ("v.parquet", lambda frame, path: frame.to_parquet(path)),
], ids=["semicolons", "no header", "jsonl", "json.gz", "parquet"])  # fmt: skip
def test_verse(verse, file, write, tmp_path):
    frame, expected = verse
    write(frame, tmp_path / file)
    assert fingerprint("lyrics", tmp_path / file, tmp_path) == expected


def test_wikitext(tmp_path):
    """As plain text files in a zip, and as the hub's rows of lines."""
    source = there("wikitext-2")
    expected = fingerprint("wikitext", source, tmp_path)
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for name in ("train", "valid", "test"):
            archive.writestr(f"wikitext/{name}.txt", (source / f"wiki.{name}.tokens").read_bytes())
    assert fingerprint("wikitext", tmp_path / "w.zip", tmp_path) == expected


@pytest.mark.parametrize("form", ["semicolons", "jsonl", "npz"])
def test_cmapss(form, tmp_path):
    source = there("cmapss")
    expected = fingerprint("rnn", source, tmp_path)
    for name in ("train", "test"):
        with zipfile.ZipFile(source / f"FD001_{name}.zip") as archive:
            arrays = {
                Path(member).stem: np.load(io.BytesIO(archive.read(member)), allow_pickle=True)
                for member in archive.namelist()
                if member.endswith(".npy")
            }
        if form == "npz":
            np.savez(tmp_path / f"{name}.npz", **arrays)
            continue
        rows = [
            {"sequence_id": i, "t": t, **{f"s{k}": float(v) for k, v in enumerate(step)}, "y": float(arrays["y"][i])}
            | ({"engine": int(arrays["engine"][i])} if "engine" in arrays else {})
            for i, sequence in enumerate(arrays["X"])
            for t, step in enumerate(sequence)
        ]
        frame = pd.DataFrame(rows)
        if form == "semicolons":
            frame.to_csv(tmp_path / f"{name}.csv", index=False, sep=";")
        else:
            frame.to_json(tmp_path / f"{name}.jsonl", orient="records", lines=True, double_precision=15)
    assert fingerprint("rnn", tmp_path, tmp_path) == expected


@pytest.mark.parametrize("form", ["zip", "table", "imagefolder"])
def test_trashnet(form, tmp_path):
    """A tenth of the pictures: in a zip, named by a table with a column `split`, and by metadata beside them."""
    source, folder = there("trashnet"), tmp_path / "trashnet"
    chosen = [p for split in ("train", "test") for p in sorted((source / split).glob("*/*.jpg"))[::10]]
    for path in chosen:
        (to := folder / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        to.symlink_to(path)
    expected = fingerprint("windows", folder, tmp_path)
    other = tmp_path / "other"
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
            for path in chosen:
                archive.write(path, f"trashnet-master/{path.relative_to(source)}")
        assert fingerprint("windows", tmp_path / "t.zip", tmp_path) == expected
        return
    rows = []
    for number, path in enumerate(chosen):
        split, label = path.relative_to(source).parts[:2]
        name = f"{split}/{number:04d}.jpg" if form == "imagefolder" else f"pictures/{number:04d}.jpg"
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_bytes(path.read_bytes())
        rows.append({"split": split, "label": label, "file_name": name})
    if form == "table":
        pd.DataFrame(rows).to_csv(other / "list.csv", index=False, sep=";")
    for split in ("train", "test") if form == "imagefolder" else ():
        lines = [{"file_name": Path(r["file_name"]).name, "label": r["label"]} for r in rows if r["split"] == split]
        (other / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert fingerprint("windows", other, tmp_path) == expected
