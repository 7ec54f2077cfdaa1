"""The files that PyTorch alone and onnxruntime alone load say what the network says, for sequences of any length."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from trainables import Device, Learner
from trainables.base import onnx_file
from trainables.rnn import data as reading
from trainables.rnn import portable
from trainables.rnn.model import SequenceRegressor
from trainables.rnn.ridge import Ridge
from trainables.rnn.task import predictions

LENGTHS = (4, 9, 6, 12, 1)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(("variant", "steps"), [
    ({"variant": "vanilla", "cell": "simple"}, None), ({"variant": "vanilla", "cell": "gru"}, None),
    ({"variant": "vanilla", "cell": "lstm"}, None), ({"variant": "truncated", "keep": "first"}, 5),
    ({"variant": "truncated", "keep": "last"}, 5), ({"variant": "padded", "align": "start"}, 10),
    ({"variant": "padded", "align": "end"}, 10),
], ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else "")  # fmt: skip
def test_scripted_network_predicts_the_same(variant, steps, activation, tmp_path):
    rng = np.random.default_rng(0)
    params = {"hidden": 5, "layers": 2, "dropout": 0.3, "activation": activation, "init": "xavier", **variant}
    model = SequenceRegressor(3, steps, params)
    model.fit_scaling(rng.normal(2, 3, size=(50, 3)), rng.normal(5, 2, size=9))
    sequences = [rng.normal(size=(length, 3)) for length in LENGTHS]
    learner = Learner(model, torch.optim.SGD(model.parameters(), lr=0.0), None, Device(torch.device("cpu")), params,
                      extra={"steps": steps})  # fmt: skip
    expected = predictions(model, learner, reading.pack(sequences, np.zeros(len(sequences))))
    portable.write(model, steps, params, None, tmp_path)
    padded = torch.full((len(LENGTHS), max(LENGTHS), 3), float("nan"))  # what the padding holds must not matter
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = torch.from_numpy(sequence)
    found = torch.jit.load(str(tmp_path / "model.ts"))(padded, torch.tensor(LENGTHS))
    assert found.numpy() == pytest.approx(expected, abs=1e-5)
    assert "float32 (length, 3)" in (tmp_path / "usage.py").read_text()
    by_onnx = onnx_file.run(tmp_path / "model.onnx", {"sequences": padded.numpy(), "lengths": np.array(LENGTHS)})
    assert by_onnx == pytest.approx(expected, abs=1e-5)
    alone = {"sequences": padded[1:2, :9].numpy(), "lengths": np.array([9])}
    assert onnx_file.run(tmp_path / "model.onnx", alone) == pytest.approx(expected[1:2], abs=1e-5)


@pytest.mark.parametrize("variant", [{"variant": "vanilla", "cell": "gru"}, {"variant": "padded", "align": "end"}])
def test_onnx_adds_ridge_and_its_program_runs_without_this_project(variant, tmp_path):
    rng = np.random.default_rng(0)
    params = {"hidden": 5, "layers": 1, "dropout": 0.0, "activation": "tanh", "init": "xavier", **variant}
    steps = 10 if variant["variant"] == "padded" else None
    model = SequenceRegressor(2, steps, params)
    ridge = Ridge(rng.normal(size=(4, 2)), 1.5, np.array([0.5, -1.0]), -4.0, 4.0)
    portable.write(model, steps, params, ridge, tmp_path)
    script = torch.jit.load(str(tmp_path / "model.ts"))
    for length in (1, 3, 4, 12):  # the regression reads 4 steps
        sequence = torch.from_numpy(rng.normal(size=(1, length, 2))).float()
        inputs = {"sequences": sequence.numpy(), "lengths": np.array([length])}
        expected = script(sequence, torch.tensor([length])).numpy()
        assert onnx_file.run(tmp_path / "model.onnx", inputs) == pytest.approx(expected, abs=1e-5)
    code = f"rows = {sequence[0].tolist()}\n" + (tmp_path / "usage_onnx.py").read_text()
    said = subprocess.run([sys.executable, "-I", "-c", code], check=True, cwd=tmp_path, capture_output=True, text=True)
    assert float(said.stdout.strip().strip("[]")) == pytest.approx(float(expected[0]), abs=1e-4)
