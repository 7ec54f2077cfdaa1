"""Ridge regression as a baseline, and as what a network starts from."""

import copy
import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Reference
from sklearn.preprocessing import StandardScaler

from tests.trainables.rnn.test_model import PARAMS
from trainables import DataInfo, Splits, choose_device, seed_everything
from trainables.base.training import run_epoch
from trainables.rnn.data import pack
from trainables.rnn.ridge import STRENGTHS, Ridge, fit_ridge, last_steps
from trainables.rnn.task import TASK


def linear(count, noise, seed=0, groups=None):
    """Sequences of 5 to 8 steps whose target is a weighted sum of their last two, and noise."""
    rng = np.random.default_rng(seed)
    sequences = [rng.normal(size=(length, 2)) for length in rng.integers(5, 9, count)]
    targets = [3 * s[-1, 0] - 2 * s[-2, 1] + 10 + noise * rng.normal() for s in sequences]
    return pack(sequences, np.array(targets), groups)


def test_fit_ridge_equals_scikit_learn():
    train = linear(80, 0.5)
    ridge, _ = fit_ridge(train)
    assert ridge.weights.shape == (5, 2)
    x = last_steps(train, 5, ridge.fill)
    assert np.array_equal(x[3].reshape(5, 2), train.sequence(3)[-5:].astype(float))
    scaler = StandardScaler().fit(x)
    references = [Reference(alpha=strength).fit(scaler.transform(x), train.targets) for strength in STRENGTHS]
    test = linear(30, 0.5, seed=1)
    seen = scaler.transform(last_steps(test, 5, ridge.fill))
    assert any(np.allclose(ridge(test), reference.predict(seen), atol=1e-4) for reference in references)


def test_ridge_fills_short_sequences():
    train = linear(80, 0.5)
    ridge, _ = fit_ridge(train)
    short = np.array([[1.0, 2.0], [0.5, -1.0]])
    filled = np.concatenate([np.tile(ridge.fill, (3, 1)), short])
    assert ridge(pack([short], np.zeros(1))) == pytest.approx(ridge(pack([filled], np.zeros(1))), abs=1e-6)


def test_left_out_predictions_know_nothing_of_the_groups_targets():
    """Two sequences of a group are nearly one, and their target is noise: either tells the other's."""
    rng = np.random.default_rng(0)
    pairs = [base + 0.01 * rng.normal(size=(10, 3)) for base in rng.normal(size=(40, 10, 3)) for _ in range(2)]
    targets, groups = np.repeat(rng.normal(size=40), 2), np.repeat(np.arange(40), 2)
    together, apart = (fit_ridge(pack(pairs, targets, g))[1] for g in (groups, None))
    assert np.mean((together - targets) ** 2) > 0.75 * targets.var()
    assert np.mean((apart - targets) ** 2) < 0.5 * targets.var(), "else the test shows nothing"


def test_ridge_clips_predictions():
    train = linear(80, 0.5)
    ridge, left_out = fit_ridge(train)
    lowest, highest = train.targets.min(), train.targets.max()
    wild = ridge(pack([np.full((5, 2), 1e6), np.full((5, 2), [-1e6, 1e6])], np.zeros(2)))
    assert (wild >= 2 * lowest - highest - 1e-3).all() and (wild <= 2 * highest - lowest + 1e-3).all()
    assert np.isfinite(left_out).all()


@pytest.mark.parametrize("split", [linear(1, 0.0), linear(2, 0.0), linear(20, 0.0, groups=np.zeros(20))])
def test_the_smallest_data_have_one_too(split):
    ridge, left_out = fit_ridge(split)
    assert np.isfinite(ridge(split)).all() and left_out.shape == (len(split),)


@pytest.mark.parametrize("variant", [{"variant": "vanilla", "cell": "gru"}, {"variant": "padded", "align": "end"}])
def test_network_starts_from_ridge(variant, tmp_path):
    train, val, test = (linear(count, 0.1, seed) for seed, count in enumerate((150, 50, 50)))
    splits = Splits(train, val, test, DataInfo("s", "f", "t", {}))
    params = {**PARAMS, "cell": "simple", "dropout": 0.0, **variant, "ridge": True, "lr": 1e-3}

    def learner():
        seed_everything(0)
        return TASK.build(params, splits, 4, choose_device(1, 0, "fp32"))

    whole = learner()
    first = run_epoch(TASK, whole, train, val)["val_mse"]
    assert first < 0.1 * val.targets.var(), "after an epoch it is nearly as good as ridge regression"
    saved = copy.deepcopy(whole.state_dict())
    second = run_epoch(TASK, whole, train, val)["val_mse"]
    resumed = learner()
    resumed.load_state_dict(saved)
    assert run_epoch(TASK, resumed, train, val)["val_mse"] == second

    TASK.export(whole, splits.info, tmp_path)
    loaded = TASK.load(tmp_path)
    assert TASK.evaluate(loaded, test) == TASK.evaluate(whole, test)
    described = json.loads((tmp_path / "model.json").read_text())["ridge"]
    assert np.array_equal(Ridge.from_description(described)(test), whole.extra["ridge"](test))
    frame = TASK.example(test, splits.info)
    script = torch.jit.load(str(tmp_path / "model.ts"))
    for sequence, expected in zip(frame["sequence"], TASK.predict(loaded, frame)["prediction"], strict=True):
        rows = torch.tensor(sequence, dtype=torch.float32)
        assert script(rows[None], torch.tensor([len(rows)])).item() == pytest.approx(expected, abs=1e-4)
    short = torch.zeros(1, 2, 2)  # shorter than any in training
    assert torch.isfinite(script(short, torch.tensor([2])))
