"""A group of two processes, directed from this process without a search."""

import io
import os
import signal
import time

import psutil
import pytest
import ray
import torch
from torch import distributed

from search.core.failures import cause
from trainables import DataInfo, Splits
from trainables.base import training
from trainables.base.device import choose_device
from trainables.loops import ranks
from trainables.loops.task import Code, LoopTask
from trainables.loops.trial import TrainingError

pytestmark = pytest.mark.slow
TASK = LoopTask("mine", "val_loss", "min")


@pytest.fixture(scope="module", autouse=True)
def here():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ranks._actors = None
    ray.shutdown()


def group(function, epochs=4, **params):
    """The training of a function in two processes."""
    training.seed_everything(5)
    splits = Splits(Code.of(function), None, None, DataInfo("mine", "", "", {}))
    return TASK.build(params, splits, epochs, choose_device(1, 0, "fp32", processes=2))


def advance(learner):
    return training.run_epoch(TASK, learner, None, None)


def fit(trial):
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 1))
    own = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(own.weight, trial.rank)
    torch.manual_seed(trial.seed + trial.rank)
    for _ in trial.epochs(model=model, own=own):
        loss = model(torch.randn(8, 3)).square().mean()
        loss.backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= 0.1 * weight.grad
            own.weight += loss
        model.zero_grad()
        yield {"val_loss": loss, "pid": os.getpid(), "weight": own.weight[0, 0]} if trial.rank == 0 else None


def test_group_resumed_has_the_state_of_each_rank():
    whole = group(fit)
    losses = [advance(whole)["val_loss"] for _ in range(4)]
    cut = group(fit)
    assert [advance(cut)["val_loss"] for _ in range(2)] == losses[:2]
    file = io.BytesIO()
    training.write(cut, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert set(state["parts"]) == {"model"}, "saved once, as it is the same in both"
    assert [set(own["parts"]) for own in state["ranks"]] == [{"own"}, {"own"}]
    again = group(fit)
    file.seek(0)
    training.load(again, file)
    assert [advance(again)["val_loss"] for _ in range(2)] == losses[2:]
    assert again.epoch == 4


def raising(trial):
    for epoch in trial.epochs():
        if epoch == 2 and trial.rank == 1:
            raise ValueError("rank one has a mistake")
        distributed.barrier()
        yield {"val_loss": 1.0, "pid": os.getpid()}


def dying(trial):
    for epoch in trial.epochs():
        if epoch == 2 and trial.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        distributed.barrier()
        yield {"val_loss": 1.0, "pid": os.getpid()}


@pytest.mark.parametrize(
    ("function", "message", "why"),
    [(raising, "ValueError: rank one has a mistake", "error"), (dying, "rank 1 died", "lost")],
)
def test_error_of_one_rank_ends_the_other_in_its_barrier(function, message, why):
    learner = group(function)
    pid = int(advance(learner)["pid"])
    with pytest.raises(Exception, match=message) as caught:
        advance(learner)
    assert cause(f"Traceback\n{type(caught.value).__name__}: {caught.value}") == why
    wait_for_end(pid)


def wait_for_end(pid):
    deadline = time.monotonic() + 60
    while psutil.pid_exists(pid):
        assert time.monotonic() < deadline, "the process goes on"
        time.sleep(0.1)


def silent(trial):
    for _ in trial.epochs():
        if trial.rank == 0:
            yield {"val_loss": 1.0}


def behind(trial):
    for epoch in range(1, 4):
        if epoch == 1 or trial.rank == 0:
            trial.report({"val_loss": 1.0})
        else:
            time.sleep(1000)


def shorter(trial):
    for _ in range(2 if trial.rank else 4):
        yield {"val_loss": 1.0}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (silent, "rank 1 ended epoch 1 without metrics: every rank yields where rank 0 does"),
        (behind, "rank 1 did not come to the end of epoch 2 within 2 s after rank 0"),
        (shorter, "rank 1 ended before epoch 3, and rank 0 did not"),
    ],
)
def test_ranks_that_train_different_epochs_are_named(monkeypatch, function, message):
    monkeypatch.setattr(ranks, "BEHIND", 2.0)
    learner = group(function)
    with pytest.raises((TrainingError, ray.exceptions.RayTaskError), match=message) as caught:
        for _ in range(4):
            advance(learner)
    assert cause(f"{type(caught.value).__name__}: {caught.value}") == "mistake"


def test_checkpoint_of_another_number_of_processes_is_refused():
    with pytest.raises(TrainingError, match="the checkpoint is of 1 processes, and the trial has 2"):
        group(fit).load_state_dict({"parts": {}, "epoch": 1, "notes": {}, "rng": {}})
