"""A member of a fused group gets what it gets alone."""

import copy

import numpy as np
import pytest
import torch

from tests.trainables.rnn.test_model import PARAMS, VARIANTS
from trainables.base import fused, training
from trainables.base.device import choose_device
from trainables.base.training import Diverged
from trainables.rnn.task import TASK

EPOCHS = 3


def member(sequences, seed, **params):
    training.seed_everything(seed)
    learner = TASK.build({**PARAMS, **params}, sequences, EPOCHS, choose_device(1, 0, "fp32"))
    return fused.Member(learner, training.rng_state())


def members(sequences, **shape):
    """Four that differ in all that they may differ in."""
    return [
        member(
            sequences, seed, **shape, lr=0.002 * (seed + 1), weight_decay=10.0**-seed,
            init=["xavier", "uniform"][seed % 2], clip_norm=[0.3, 5.0][seed % 2],
            schedule=["cosine", "step"][seed // 2], input_noise=[0.0, 0.3, 0.1, 0.2][seed],
        )
        for seed in range(4)
    ]  # fmt: skip


def alone(one, sequences, epochs=EPOCHS):
    training.set_rng_state(one.rng)
    return [training.run_epoch(TASK, one.learner, sequences.train, sequences.val) for _ in range(epochs)]


def assert_close(together, apart):
    for key in ("train_loss", "train_mse", "val_mse", "val_mae", "gradient_norm", "learning_rate"):
        assert together[key] == pytest.approx(apart[key], rel=2e-4), key


@pytest.mark.parametrize("variant", [*VARIANTS, {"variant": "vanilla", "ridge": True}])
@pytest.mark.parametrize(
    "shape", [{"optimizer": "adam"}, {"optimizer": "adamw", "activation": "relu", "layers": 1}, {"optimizer": "sgd"}]
)
def test_each_member_gets_the_result_that_it_gets_alone(sequences, variant, shape):
    shape = {**shape, **variant, "momentum": 0.9}
    expected = [alone(one, sequences) for one in members(sequences, **shape)]
    group = members(sequences, **shape)
    for epoch in range(EPOCHS):
        for got, curve in zip(fused.run_epoch(TASK, group, sequences.train, sequences.val), expected, strict=True):
            assert_close(got, curve[epoch])
            assert got["fused_with"] == 4


def test_stack_member_removed(sequences):
    expected = [alone(one, sequences) for one in members(sequences)]
    group = members(sequences)
    fused.run_epoch(TASK, group, sequences.train, sequences.val)
    del group[1], expected[1]
    fused.run_epoch(TASK, group, sequences.train, sequences.val)
    for got, curve in zip(fused.run_epoch(TASK, group, sequences.train, sequences.val), expected, strict=True):
        assert_close(got, curve[2])


def test_member_goes_on_alone_from_what_the_group_saved(sequences, tmp_path):
    expected = [alone(one, sequences) for one in members(sequences)]
    group = members(sequences)
    for _ in range(2):
        fused.run_epoch(TASK, group, sequences.train, sequences.val)
    training.set_rng_state(group[3].rng)
    training.save(group[3].learner, tmp_path / "3.pt")
    assert (tmp_path / "3.pt").stat().st_size < 40_000, "its own tensors, not the group's"
    fresh = members(sequences)[3]
    training.load(fresh.learner, tmp_path / "3.pt")
    fresh.rng = training.rng_state()
    assert_close(alone(fresh, sequences, 1)[0], expected[3][2])


def test_member_that_diverges_disturbs_no_other(sequences):
    group = members(sequences)
    expected = [alone(one, sequences) for one in members(sequences)]
    with torch.no_grad():
        next(group[2].learner.model.parameters()).fill_(float("nan"))
    results = fused.run_epoch(TASK, group, sequences.train, sequences.val)
    assert isinstance(results[2], Diverged)
    assert "training loss is nan" in str(results[2])
    for number in (0, 1, 3):
        assert_close(results[number], expected[number][0])


def test_learners_that_cannot_stack_are_refused(sequences):
    one, other = member(sequences, 0).learner, member(sequences, 1, optimizer="sgd", momentum=0.9).learner
    with pytest.raises(ValueError, match="one kind with one parameter group"):
        fused.Stack([one, other])


def test_stacking_leaves_the_learners_as_they_were(sequences):
    learner = member(sequences, 0).learner
    before = copy.deepcopy(learner.model.state_dict())
    stack = fused.Stack([learner, learner])
    stack.weights.zero_()
    assert all(torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())
    assert np.all(stack.weights.numpy() == 0)
