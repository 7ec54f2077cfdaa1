"""Predictions of many inputs are written in batches, and a command that was cut off goes on."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest

from search.record.store import Store
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
        predict._write(Doubles(batches=2), FRAME, output)
    part = tmp_path / f"out{suffix}.part"
    assert not output.exists() and len(part.read_text().splitlines()) == 2001
    part.write_text(part.read_text()[:-9])  # cut off within a row
    model = Doubles()
    predict._write(model, FRAME, output)
    assert model.asked == [501] and not part.exists()
    found = read(output)
    assert found["input"].tolist() == list(FRAME.index) and (found["y"] == 2 * FRAME["x"].to_numpy()).all()
    assert set(found["name"]) == {"é\nl"}


def test_what_another_model_or_other_inputs_left_is_begun_anew(tmp_path):
    output = tmp_path / "out.jsonl"
    for left, model, frame in ((FRAME, Doubles("r2"), FRAME), (FRAME * 3, Doubles(), FRAME)):
        with pytest.raises(KeyboardInterrupt):
            predict._write(Doubles(batches=1), left, output)
        predict._write(model, frame, output)
        assert sum(model.asked) == 2500
        assert json.loads(output.read_text().splitlines()[7])["y"] == 14


def test_output_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--output .*out\.txt: allowed are \.csv, \.jsonl, \.json, \.parquet files"):
        predict.predict(Store(tmp_path), "tweets", ["x"], "table", tmp_path / "out.txt")
    with pytest.raises(InputError, match=r"cannot be written \(No such file or directory\)"):
        predict._write(Doubles(), FRAME, tmp_path / "nowhere" / "out.csv")
