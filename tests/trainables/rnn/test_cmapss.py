"""Real data: the remaining life of NASA's turbofan engines (C-MAPSS FD001), capped at 125 cycles."""

from dataclasses import replace

import pytest

from search.core.config import load_config
from tests.conftest import SHARED
from trainables.base.device import choose_device
from trainables.base.training import run_epoch, seed_everything
from trainables.rnn.task import TASK

#: Found by the search of benchmarks/tasks.md.
PARAMS = {
    "variant": "vanilla", "keep": None, "align": None, "hidden": 48, "layers": 3, "activation": "tanh",
    "init": "orthogonal", "optimizer": "adamw", "lr": 0.00112, "weight_decay": 2.53, "schedule": "cosine",
    "clip_norm": 0.5, "batch_size": 32, "input_noise": 0.52,
}  # fmt: skip


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    if not (SHARED / "cmapss").is_dir():
        pytest.skip(f"the C-MAPSS data is not at {SHARED / 'cmapss'}")
    config = load_config("rnn", ["data.group=engine"])
    return TASK.prepare(config.data, SHARED / "cmapss", tmp_path_factory.mktemp("cache"), lambda *_: None)


@pytest.mark.slow
def test_vanilla_network_beats_ridge(engines):
    """17.3 cycles: ridge regression on the last 31 steps of all 100 engines."""
    seed_everything(2)
    everything = TASK.merge(engines)
    learner = TASK.build(PARAMS, replace(engines, train=everything), 60, choose_device(1, 0, "fp32"))
    for _ in range(52):
        run_epoch(TASK, learner, everything, None)
    assert TASK.evaluate(learner, engines.test)["rmse"] < 17.3
