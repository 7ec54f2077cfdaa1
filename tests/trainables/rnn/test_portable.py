"""The file that PyTorch alone loads says what the network says, for sequences of any length."""

import numpy as np
import pytest
import torch

from trainables import Device, Learner
from trainables.rnn import data as reading
from trainables.rnn import portable
from trainables.rnn.model import SequenceRegressor
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
