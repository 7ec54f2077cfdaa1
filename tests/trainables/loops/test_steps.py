"""Functions and commands that count in steps."""

import io
import sys

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from trainables import InputError, seed_everything
from trainables.base import training
from trainables.base.device import Device
from trainables.loops.command import Command
from trainables.loops.reports import Steps
from trainables.loops.task import LoopTask
from trainables.loops.trial import Loop, TrainingError, Trial

TASK = LoopTask("mine", "val_loss", "min")
CPU = Device(torch.device("cpu"))


def loop(function, reports=4, every=3, folder=None):
    seed_everything(0)
    trial = Trial({"lr": 0.1}, 0, reports, torch.device("cpu"), every)
    trial.folder = folder
    return Loop(function, trial, CPU, "val_loss")


def curve(one, reports):
    return [training.run_epoch(TASK, one, None, None)["val_loss"] for _ in range(reports)]


def with_loader(trial):
    x = torch.arange(20.0).reshape(10, 2)
    loader = DataLoader(TensorDataset(x), 2, shuffle=True)  # five batches, so reports of three steps cross its passes
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for step, (batch,) in trial.steps(loader, model=model, optimizer=optimizer):
        loss = torch.nn.functional.dropout(model(batch), 0.2).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % trial.report_every == 0:
            yield {"val_loss": loss}


def test_function_with_loader_resumed_after_any_report_same_bits():
    whole = curve(loop(with_loader), 4)
    assert len(set(whole)) == 4
    for done in (1, 2, 3):
        one = loop(with_loader)
        assert curve(one, done) == whole[:done]
        file = io.BytesIO()
        training.write(one, file)
        file.seek(0)
        again = loop(with_loader)
        training.load(again, file)
        assert curve(again, 4 - done) == whole[done:]


def test_function_without_parts_replays_its_reports():
    def train(trial):
        for step in trial.steps():
            if step % trial.report_every == 0:
                yield {"val_loss": float(step)}

    one = loop(train)
    assert curve(one, 2) == [3, 6]
    file = io.BytesIO()
    training.write(one, file)
    file.seek(0)
    again = loop(train)
    training.load(again, file)
    assert curve(again, 2) == [9, 12]


def test_reports_before_their_step_are_left_out():
    def train(trial):
        yield {"step": 0, "val_loss": 9.0}  # before the training
        for step in trial.steps():
            yield {"val_loss": float(step)}

    one = loop(train)
    assert curve(one, 4) == [3, 6, 9, 12]
    assert set(one.messages) == {"reports between multiples of 3 steps are left out; a smaller report_every uses them"}
    with pytest.raises(training.Ended):
        curve(one, 1)


@pytest.mark.parametrize("metrics", [
    lambda n: {"step": 100 * n}, lambda n: {"step": 100 * n - 1}, lambda n: {"tokens": 100 * n + 17},
    lambda n: {"samples": 100.0 * n}, lambda n: {},
], ids=["step", "from 0", "tokens", "samples", "counted"])  # fmt: skip
def test_own_position_of_a_report(metrics):
    def train(trial):
        for n in range(1, 4):
            yield {"val_loss": float(n), **metrics(n)}

    one = loop(train, reports=3, every=100)
    assert curve(one, 3) == [1, 2, 3]


def test_mistakes_name_the_step_that_is_due():
    def late(trial):
        yield {"val_loss": 1.0, "step": 7}

    with pytest.raises(TrainingError, match=r"reports step 7 where step 3 is due: report after each 3 steps"):
        curve(loop(late), 1)
    with pytest.raises(TrainingError, match=r"trial\.steps: the search counts in epochs"):
        curve(loop(with_loader, every=None), 1)

    def once(trial):
        for step, _ in trial.steps(iter([1, 2])):
            if step % 3 == 0:
                yield {"val_loss": 1.0}

    with pytest.raises(TrainingError, match=r"the batches are used up: give an object that can be iterated again"):
        curve(loop(once), 1)


def test_lines_of_a_command_become_reports_of_steps():
    steps = Steps("val_loss", 100)
    lines = [
        {"step": 0, "val_loss": 9}, {"step": 50, "loss": 3.0}, {"step": 50, "val_loss": 5}, {"step": 90, "loss": 2.0},
        {"step": 100, "epoch": 0.1, "val_loss": 4}, {"step": 150, "val_loss": 3.5}, {"step": 199, "val_loss": 3},
    ]  # fmt: skip
    found = [steps.add(dict(line)) for line in lines]
    assert found == [None, None, None, None, (1, {"loss": 2.0, "val_loss": 4}), None, (2, {"val_loss": 3})]
    assert steps.left_out


def test_command_gets_steps_and_reports_each_hundred(tmp_path):
    code = (
        "import os, sys; print(sys.argv[1:], os.environ['SEARCH_STEPS'], os.environ['SEARCH_STEP'])\n"
        'for s in range(0, int(sys.argv[1]) + 1, 50): print(\'@search {"step": %d, "val_loss": %d}\' % (s, s))'
    )
    (tmp_path / "p.py").write_text(code)
    command = Command(f"{sys.executable} p.py {{steps}} {{report_every}}", folder=str(tmp_path))
    command.check([], steps=True)
    one = loop(command, reports=3, every=100, folder=tmp_path)
    assert curve(one, 3) == [100, 200, 300]
    with pytest.raises(training.Ended):
        curve(one, 1)
    assert "['300', '100'] 300 0" in (tmp_path / "output.log").read_text()
    with pytest.raises(InputError, match=r"\{steps\}: no hyperparameter of that name"):
        command.check([])


def test_command_that_skips_a_report_is_told_its_step(tmp_path):
    (tmp_path / "p.py").write_text('print(\'@search {"step": 300, "val_loss": 1}\')')
    command = Command(f"{sys.executable} p.py", folder=str(tmp_path))
    with pytest.raises(TrainingError, match=r"reports step 300 where step 100 is due.*another --report-every"):
        curve(loop(command, every=100, folder=tmp_path), 1)
