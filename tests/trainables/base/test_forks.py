"""A training that starts from the checkpoint of another one: what it takes over, and what it keeps."""

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, StepLR

from trainables.base.forks import load_part


def trained(optimizer, schedule=None, steps: int = 2):
    """An optimizer and a schedule of one weight after some epochs of one step."""
    weight = torch.nn.Parameter(torch.ones(1))
    made = optimizer([weight])
    plan = schedule(made) if schedule else None
    for _ in range(steps):
        weight.grad = torch.ones(1)
        made.step()
        if plan is not None:
            plan.step()
    return made, plan


def sgd(lr: float):
    return lambda weights: torch.optim.SGD(weights, lr=lr, momentum=0.9)


def halved(optimizer):
    return LambdaLR(optimizer, lambda epoch: 0.5**epoch)


def test_optimizer_keeps_its_rate_and_takes_over_what_was_learned():
    old, _ = trained(sgd(0.1))
    new, _ = trained(sgd(0.01), steps=0)
    load_part(new, old.state_dict(), fork=True)
    assert new.param_groups[0]["lr"] == 0.01
    (state,) = new.state.values()
    assert state["momentum_buffer"].item() == pytest.approx(1.9)


def test_resumed_optimizer_has_the_rate_of_the_checkpoint():
    old, _ = trained(sgd(0.1))
    new, _ = trained(sgd(0.01), steps=0)
    load_part(new, old.state_dict(), fork=False)
    assert new.param_groups[0]["lr"] == 0.1


def test_schedule_goes_on_at_the_same_epoch_from_the_new_rate():
    old, plan = trained(sgd(0.1), halved)
    new, mine = trained(sgd(0.01), halved, steps=0)
    load_part(new, old.state_dict(), fork=True)
    load_part(mine, plan.state_dict(), fork=True)
    assert new.param_groups[0]["lr"] == pytest.approx(0.01 / 4) and mine.last_epoch == 2
    new.step()
    mine.step()
    assert new.param_groups[0]["lr"] == pytest.approx(0.01 / 8)


def test_optimizer_or_schedule_of_another_kind_starts_anew():
    old, plan = trained(sgd(0.1), halved)
    new, mine = trained(lambda weights: torch.optim.Adam(weights, lr=0.01), lambda made: StepLR(made, 1), steps=0)
    load_part(new, old.state_dict(), fork=True)
    load_part(mine, plan.state_dict(), fork=True)
    load_part(mine, None, fork=True)
    assert not new.state and mine.last_epoch == 0
