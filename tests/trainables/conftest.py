import numpy as np
import pytest

from trainables.rnn import demo
from trainables.rnn.data import pack
from trainables.task import DataInfo, Splits


@pytest.fixture(scope="module")
def sequences() -> Splits:
    """300 + 100 + 100 short sequences of the rnn task's demo process."""
    made, _ = demo.make(train=400, test=100, shortest=4, longest=12, leak=0.9, noise=0.2, seed=0)
    train = pack(*made["train"])
    info = DataInfo("demo", "f", "t", {})
    return Splits(train.take(np.arange(300)), train.take(np.arange(300, 400)), pack(*made["test"]), info)
