"""The latency of a network: the time from one input to its prediction, on the device of the trial."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from trainables.base.task import Timed
from trainables.base.training import Learner, rng_state, set_rng_state

#: The first answers, which are not timed: libraries prepare themselves. Then answers are timed until there are `MOST`
#: of them, or `SECONDS` have passed.
FIRST, MOST, SECONDS = 3, 30, 1.0


def latency_ms(task: Timed, learner: Learner, split: Any) -> float:
    """The median time, in milliseconds, in which the network answers one input of `split`. No random state changes."""
    generators, was_training = rng_state(), learner.model.training
    learner.model.eval()
    times: list[float] = []
    with torch.no_grad(), learner.device.autocast():
        answer = task.answer(learner, split)
        for _ in range(FIRST):
            answer()
        while len(times) < MOST and sum(times) < SECONDS:
            learner.device.synchronize()
            began = time.perf_counter()
            answer()
            learner.device.synchronize()
            times.append(time.perf_counter() - began)
    learner.model.train(was_training)
    set_rng_state(generators)
    return 1000 * statistics.median(times)
