"""That the task learns, and that a training that was saved goes on as if it had not been."""

import torch
from mine.task import TASK

from trainables import choose_device, seed_everything

PARAMS = {
    "layers": 2, "width": 32, "dropout": 0.1, "optimizer": "adamw", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0,
    "schedule": "constant", "batch_size": 16,
}  # fmt: skip


def begun(tmp_path):
    splits = TASK.prepare({"split_seed": 0, "demo_size": 400}, None, tmp_path, lambda *_: None)
    seed_everything(0)
    return TASK.build(PARAMS, splits, 10, choose_device(cpus=1, gpus=0, precision="fp32")), splits


def test_it_learns(tmp_path):
    learner, splits = begun(tmp_path)
    before = TASK.evaluate(learner, splits.val)
    for _ in range(10):
        TASK.train_epoch(learner, splits.train)
    assert TASK.evaluate(learner, splits.val)["loss"] < 0.8 * before["loss"]


def test_a_training_that_was_saved_goes_on_to_the_same_weights(tmp_path):
    whole, splits = begun(tmp_path)
    TASK.train_epoch(whole, splits.train)
    torch.save(whole.state_dict(), tmp_path / "state.pt")
    TASK.train_epoch(whole, splits.train)
    resumed, _ = begun(tmp_path)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    TASK.train_epoch(resumed, splits.train)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
