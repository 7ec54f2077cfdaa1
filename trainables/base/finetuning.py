"""The two phases of a training that starts from a pretrained network.

The first epoch trains the head alone, on features that the search computed once. It takes about a second. The later
epochs fine-tune the open blocks together with the head. The first rung of early stopping therefore compares heads. Only
the best trials train the expensive epochs, and each starts with its own head. Kumar et al. 2022 (arXiv:2202.10054) call
this linear probing, then fine-tuning.
"""

from __future__ import annotations

import math

from trainables.base.training import Learner

#: The value of `model.unfreeze` that trains the whole network.
ALL = "all"
#: The number of first epochs that train the head alone.
HEAD_EPOCHS = 1
#: The share of fine-tuning in which the learning rate rises, and the share of the rate at its end.
WARM_UP, LAST_SHARE = 0.2, 0.01


def trains_head(learner: Learner) -> bool:
    """Whether this epoch trains the head alone."""
    return learner.epoch <= HEAD_EPOCHS or learner.params["model.unfreeze"] == 0


class Rates:
    """Sets the learning rates before each step of a fine-tuning: they rise, then fall as a cosine.

    Fine-tuning has few epochs, so the rates change with each step. `learner.extra["epochs"]` is the number of epochs.
    """

    def __init__(self, learner: Learner, samples: int, head_epochs: int = HEAD_EPOCHS) -> None:
        """
        Args:
            samples: of an epoch.
            head_epochs: the number of first epochs that train the head alone.
        """
        self._optimizer = learner.optimizer
        self._done = (learner.epoch - head_epochs - 1) * samples
        self._total = max(1, learner.extra["epochs"] - head_epochs) * samples
        for group in self._optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def advance(self, samples: int) -> None:
        """Sets the rates for the next `samples` samples."""
        share = min(1.0, (self._done + samples / 2) / self._total)
        if share < WARM_UP:
            factor = share / WARM_UP
        else:
            cosine = math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP))
            factor = LAST_SHARE + (1 - LAST_SHARE) * (1 + cosine) / 2
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self._done += samples
