"""Predictions of many inputs are written in batches, and a command that was cut off goes on."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest
from typer.testing import CliRunner

from search.cli.app import app
from search.core.store import Store
from search.tracking import predict
from trainables import InputError

FRAME = pd.DataFrame({"x": range(2500)}, index=[f"row {n}" for n in range(2500)])


class Doubles:
    """A model that counts what it is asked, and is killed after so many batches."""

    def __init__(self, run_id="r1", batches=99):
        self.metadata, self.asked, self.batches = SimpleNamespace(run_id=run_id), [], batches

    def predict(self, frame):
        if len(self.asked) == self.batches:
            raise KeyboardInterrupt
        self.asked.append(len(frame))
        return pd.DataFrame({"y": 2 * frame["x"], "name": ["é\nl" for _ in frame["x"]]}, index=frame.index)


@pytest.mark.parametrize(
    ("suffix", "read"),
    [(".csv", pd.read_csv), (".parquet", pd.read_parquet), (".json", pd.read_json),
     (".jsonl", lambda path: pd.read_json(path, lines=True))],
)  # fmt: skip
def test_what_was_written_is_not_predicted_again(tmp_path, suffix, read):
    output = tmp_path / f"out{suffix}"
    with pytest.raises(KeyboardInterrupt):
        predict.write_predictions(Doubles(batches=2), FRAME, output)
    part = tmp_path / f"out{suffix}.part"
    assert not output.exists() and len(part.read_text().splitlines()) == 2001
    part.write_text(part.read_text()[:-9])  # cut off within a row
    model = Doubles()
    predict.write_predictions(model, FRAME, output)
    assert model.asked == [501] and not part.exists()
    found = read(output)
    assert found["input"].tolist() == list(FRAME.index) and (found["y"] == 2 * FRAME["x"].to_numpy()).all()
    assert set(found["name"]) == {"é\nl"}


def test_what_another_model_or_other_inputs_left_is_begun_anew(tmp_path):
    output = tmp_path / "out.jsonl"
    for left, model, frame in ((FRAME, Doubles("r2"), FRAME), (FRAME * 3, Doubles(), FRAME)):
        with pytest.raises(KeyboardInterrupt):
            predict.write_predictions(Doubles(batches=1), left, output)
        predict.write_predictions(model, frame, output)
        assert sum(model.asked) == 2500
        assert json.loads(output.read_text().splitlines()[7])["y"] == 14


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"\0" * 200, b"7", b""])
def test_damaged_part_is_used_up_to_the_damage(tmp_path, damage):
    output = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        predict.write_predictions(Doubles(batches=2), FRAME, output)
    part = tmp_path / "out.jsonl.part"
    kept = part.read_bytes()
    middle = kept.index(b'"y":2000')  # in row 1000
    part.write_bytes(kept[:middle] + damage + kept[middle + max(1, len(damage)) :])
    model = Doubles()
    predict.write_predictions(model, FRAME, output)
    assert sum(model.asked) == 1500 and not part.exists()
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["y"] for row in rows] == [2 * number for number in range(2500)]


def test_output_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    output = tmp_path / "out.csv"
    output.write_text("the former predictions")

    def full(frame, path):
        path.write_text("input,y\nrow 0,")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setitem(predict.WRITERS, ".csv", full)
        with pytest.raises(InputError, match=r"out\.csv: cannot be written \(No space left on device\)"):
            predict.write_predictions(Doubles(), FRAME, output)
    assert output.read_text() == "the former predictions"
    model = Doubles()
    predict.write_predictions(model, FRAME, output)
    assert model.asked == [], "the rows were kept"
    assert len(pd.read_csv(output)) == 2500
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_output_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--output .*out\.txt: allowed are \.csv, \.jsonl, \.json, \.parquet files"):
        predict.predict_to_file(Store(tmp_path), "tweets", ["x"], tmp_path / "out.txt")
    with pytest.raises(InputError, match=r"cannot be written \(No such file or directory\)"):
        predict.write_predictions(Doubles(), FRAME, tmp_path / "nowhere" / "out.csv")


@pytest.mark.parametrize(("count", "line"), [(1, "1 prediction in "), (2, "2 predictions in ")])
def test_command_counts_predictions(count, line, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "predict_to_file", lambda *_: count)
    arguments = ["predict", "rnn", "x.csv", "--output", str(tmp_path / "o.csv"), "--store", str(tmp_path)]
    assert CliRunner().invoke(app, arguments).output.startswith(line)
