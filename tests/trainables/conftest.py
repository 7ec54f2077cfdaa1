import numpy as np
import pytest
import torch

from trainables.base import training
from trainables.base.latency import latency_ms
from trainables.base.task import DataInfo, Splits
from trainables.rnn import demo
from trainables.rnn.data import pack


@pytest.fixture(scope="module")
def sequences() -> Splits:
    """300 + 100 + 100 short sequences of the rnn task's demo process."""
    made, _ = demo.make(train=400, test=100, shortest=4, longest=12, leak=0.9, noise=0.2, seed=0)
    train = pack(*made["train"])
    info = DataInfo("demo", "f", "t", {})
    return Splits(train.take(np.arange(300)), train.take(np.arange(300, 400)), pack(*made["test"]), info)


def assert_is_timed(task, learner, split):
    """The latency of an untrained network is measured, and the training does not notice."""
    learner.model.train()
    before, state = training.rng_state(), {name: t.clone() for name, t in learner.model.state_dict().items()}
    assert 0 < latency_ms(task, learner, split) < 60_000
    assert learner.model.training
    for generator in ("numpy", "torch"):
        assert repr(training.rng_state()[generator]) == repr(before[generator])
    assert all(torch.equal(tensor, state[name]) for name, tensor in learner.model.state_dict().items())


def assert_units_add_up(task, learner, split):
    """The sums over all units give the objective as it is evaluated; over a few of them, one that is finite too."""
    units = task.units(learner, split)
    sums = np.stack([units[: len(units) // 3].sum(0), units.sum(0)])
    of_some, of_all = task.objective_of(sums)
    assert of_all == pytest.approx(task.evaluate(learner, split)[task.objective.metric], 1e-5)
    assert np.isfinite(of_some)
