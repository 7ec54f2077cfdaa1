"""What the sequences train: a task of 57 weights on 32 samples, and a function that yields.

`PLAN` says what goes wrong in them. Both read it while they train, as they run in the process of the test.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from toy_task import ToyTask

from trainables import Learner, Objective, Splits


@dataclass
class Plan:
    """What a training measures beside its objective, and what goes wrong in it."""

    #: The values of each further metric, by name: of epoch 1, epoch 2 and so on, over and over.
    metrics: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    #: By the hyperparameter `case` and the epoch: raise, diverge, nan or memory.
    faults: dict[tuple[int, int], str] = field(default_factory=dict)
    #: Whether the function keeps its state in checkpoints.
    keeps: bool = True
    #: The objective of the function.
    objective: str = "loss"
    #: Called as an epoch of a trial begins.
    strike: Callable[[], None] = lambda: None

    def begin(self, case: int, epoch: int) -> str | None:
        """Begins an epoch of a trial; returns the fault that its configuration has there."""
        self.strike()
        fault = self.faults.get((case, epoch))
        if fault == "raise":
            raise RuntimeError(f"case {case} raises in epoch {epoch}")
        return fault

    def measured(self, epoch: int) -> dict[str, Any]:
        """The further metrics of an epoch."""
        return {name: values[(epoch - 1) % len(values)] for name, values in self.metrics.items()}


PLAN = Plan()


class Tiny(ToyTask):
    """Linear regression by a small network with dropout, so that its training draws random numbers."""

    name = "tiny"
    objective = Objective("score", "max")

    def prepare(self, data: Any, source: Any, cache: Any, progress: Any) -> Splits:
        return super().prepare({**data, "pause": 0.0, "fault": "none", "once": ""}, source, cache, progress)

    def build(self, params: Any, splits: Splits, epochs: int, device: Any) -> Learner:
        model = _network(params)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02 + 0.01 * params["case"], momentum=0.9)
        return Learner(model, optimizer, None, device, params, extra={"final": splits.val is None})

    def train_epoch(self, learner: Learner, split: Any) -> dict[str, float]:
        fault = None if learner.extra["final"] else PLAN.begin(learner.params["case"], learner.epoch)
        x, y = torch.tensor(split[0]), torch.tensor(split[1])
        if fault == "memory" and learner.micro_batches == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate too much")
        learner.model.train()
        order = torch.randperm(len(x))
        total = 0.0
        for batch in order.chunk(2):
            learner.optimizer.zero_grad()
            loss = (learner.model(x[batch]).squeeze(1) - y[batch]).square().mean()
            loss.backward()
            learner.optimizer.step()
            total += loss.item()
        return {"loss": float("nan") if fault == "diverge" else total / 2}

    @torch.no_grad()
    def evaluate(self, learner: Learner, split: Any) -> dict[str, Any]:
        learner.model.eval()
        loss = (learner.model(torch.tensor(split[0])).squeeze(1) - torch.tensor(split[1])).square().mean().item()
        fault = PLAN.faults.get((learner.params["case"], learner.epoch))
        spoilt = fault == "nan" and not learner.extra["final"]
        return {"score": float("nan") if spoilt else -loss, "loss": loss, **PLAN.measured(learner.epoch)}

    def answer(self, learner: Learner, split: Any) -> Callable[[], object]:
        return lambda: learner.model(torch.tensor(split[0][:1]))

    def load(self, folder: Any) -> nn.Module:
        model = _network(json.loads((Path(folder) / "params.json").read_text()))
        model.load_state_dict(torch.load(Path(folder) / "weights.pt", weights_only=True))
        return model.eval()


def _network(params: Any) -> nn.Sequential:
    width = params.get("width", 8)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 1))


TASK = Tiny()


class Walk:
    """The state of the function: a number that random steps move."""

    def __init__(self, start: float) -> None:
        self.place = start

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


def train(trial: Any) -> Any:
    """A training function as a user writes one."""
    from tests.fuzz.tiny import PLAN, Walk  # by name, as the function travels without its module

    walk = Walk(float(trial.params["case"]))
    for epoch in trial.epochs(**({"walk": walk} if PLAN.keeps else {})):
        fault = PLAN.begin(trial.params["case"], epoch)
        walk.place += float(np.random.normal()) + torch.rand(()).item()
        value = float("nan") if fault in ("diverge", "nan") else walk.place
        figures = {"latency_ms": trial.params["size"]} if "size" in trial.params else {}
        yield {PLAN.objective: value, **figures, **PLAN.measured(epoch)}


def test(trial: Any, walk: Any = None) -> dict[str, Any]:
    """Tests the final model; the figure depends on all that the training drew."""
    from tests.fuzz.tiny import PLAN

    place = float(trial.seed % 100) if walk is None else walk.place
    return {PLAN.objective: place + np.arange(20.0)}


def export(trial: Any, folder: Any, walk: Any = None) -> None:
    """Writes the final model."""
    (folder / "place.txt").write_text("none" if walk is None else repr(walk.place))


#: A command that counts its epochs in its folder. With the argument `test` it tests its model and leaves it there.
SHELL = r"""sh -c 'epoch=$SEARCH_EPOCH; while [ $epoch -lt {epochs} ]; do epoch=$((epoch + 1));
echo "@search {{\"epoch\": $epoch, \"loss\": $(({case} + 10 - epoch))}}"; done;
if [ "$0" = test ]; then echo {case} > $SEARCH_FOLDER/model;
echo "@search {{\"test_loss\": $(({case} + epoch))}}"; fi'"""
