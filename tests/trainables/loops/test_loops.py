"""Training functions and commands, advanced an epoch at a time, without Ray."""

import io
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from trainables import InputError, seed_everything
from trainables.base import training
from trainables.base.device import Device
from trainables.loops.command import Command
from trainables.loops.errors import CommandFailed
from trainables.loops.task import Code, LoopTask
from trainables.loops.trial import Loop, TrainingError, Trial

TASK = LoopTask("mine", "val_loss", "min")
CPU = Device(torch.device("cpu"))


def loop(function, epochs=4, folder=None, seed=0, **params):
    seed_everything(seed)
    trial = Trial(params, seed, epochs, torch.device("cpu"))
    trial.folder = folder
    return Loop(function, trial, CPU, "val_loss")


def curve(one, epochs):
    return [training.run_epoch(TASK, one, None, None)["val_loss"] for _ in range(epochs)]


def fit(trial):
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=trial.params.get("lr", 0.1))
    for _ in trial.epochs(model=model, optimizer=optimizer):
        x = torch.randn(16, 3)
        loss = (torch.nn.functional.dropout(model(x), 0.2) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield {"val_loss": loss, "width": 3}


def without_parts(trial):
    for _ in trial.epochs():
        yield {"val_loss": torch.rand(())}


def plain_loop(trial):
    for _ in range(trial.of):
        yield torch.rand(()).item()


@pytest.mark.parametrize("function", [fit, without_parts, plain_loop])
def test_training_that_is_saved_after_any_epoch_goes_on_to_the_same_bits(function):
    whole = curve(loop(function), 4)
    assert len(set(whole)) == 4
    for done in (1, 2, 3):
        one = loop(function)
        assert curve(one, done) == whole[:done]
        file = io.BytesIO()
        training.write(one, file)
        file.seek(0)
        again = loop(function)
        training.load(again, file)
        assert curve(again, 4 - done) == whole[done:]


def test_metrics_keep_their_names_and_the_objective_is_the_engines_too():
    metrics = training.run_epoch(LoopTask("mine", "loss", "min"), Loop(
        lambda trial: iter_of({"loss": 0.5, "accuracy": torch.tensor(0.25)}), Trial({}, 0, 3, torch.device("cpu")), CPU,
        "loss",
    ), None, None)  # fmt: skip
    assert metrics["loss"] == metrics["val_loss"] == 0.5
    assert metrics["accuracy"] == 0.25
    assert metrics["epoch_seconds"] > 0


def iter_of(*told):
    yield from told


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda trial: iter_of({"loss": 1.0}), "yielded loss, without the objective 'val_loss'"),
        (lambda trial: iter_of({"val_loss": "low"}), "the metric 'val_loss' is 'low': expected a number"),
        (lambda trial: iter_of([1.0]), r"yielded \[1.0\]: expected a dictionary"),
        (lambda trial: iter_of(), "ended after 0 epochs, but a trial has 4"),
        (lambda trial: {"val_loss": 1.0}, "a trial has 4 epochs: `yield` the metrics of each"),
        (lambda trial: iter_of(*trial.epochs(model=3)), r"trial.epochs\(model=...\): a int has no state_dict"),
    ],
)
def test_what_a_newcomer_gets_wrong_is_said_in_a_line(function, said):
    with pytest.raises(TrainingError, match=said) as caught:
        curve(loop(function), 1)
    assert "\n" not in str(caught.value)


class Odd:
    def state_dict(self):
        return {"lock": threading.Lock()}

    def load_state_dict(self, state): ...


def test_state_that_cannot_be_kept_is_named():
    def function(trial):
        for _ in trial.epochs(odd=Odd()):
            yield 1.0

    one = loop(function)
    curve(one, 1)
    with pytest.raises(TrainingError, match="the state of 'odd' cannot be kept"):
        training.write(one, io.BytesIO())


def test_parts_of_another_name_are_refused():
    one = loop(fit)
    curve(one, 1)
    file = io.BytesIO()
    training.write(one, file)
    file.seek(0)

    def renamed(trial):
        for _ in trial.epochs(net=torch.nn.Linear(3, 1)):
            yield 1.0

    again = loop(renamed)
    training.load(again, file)
    with pytest.raises(TrainingError, match="the checkpoint holds model, optimizer, the function gives net"):
        curve(again, 1)


def test_function_of_one_epoch_may_return():
    assert curve(loop(lambda trial: {"val_loss": 2.0}, epochs=1), 1) == [2.0]


@pytest.fixture
def script(tmp_path):
    def write(code):
        path = tmp_path / "train.py"
        path.write_text(code)
        return f"{sys.executable} {path} --lr {{lr}}"

    return write


def test_command_reports_by_marked_lines_and_finds_what_it_needs(script, tmp_path):
    text = script("""
import json, os, sys
print("hello", sys.argv[1:], flush=True)
params = json.loads(os.environ["SEARCH_PARAMS"])
assert sys.argv[1:] == ["--lr", str(params["lr"])] and os.environ["SEARCH_DEVICE"] == "cpu"
assert os.path.isdir(os.environ["SEARCH_FOLDER"]) and os.environ["SEARCH_SEED"] == "7"
for epoch in range(1, int(os.environ["SEARCH_EPOCHS"]) + 1):
    print("@search", json.dumps({"epoch": epoch, "val_loss": params["lr"] / epoch}), flush=True)
""")
    command = Command(text)
    assert command.__name__ == "train"
    command.check({"lr"})
    assert curve(loop(command, folder=tmp_path, seed=7, lr=0.6), 4) == pytest.approx([0.6, 0.3, 0.2, 0.15])
    assert (tmp_path / "output.log").read_text().startswith("hello ['--lr', '0.6']")


def test_command_reports_by_a_pattern(script):
    text = script("for e in (1, 2): print(f'Epoch {e}: loss={1 / e:.3f}', flush=True)")
    command = Command(text, r"Epoch (?P<epoch>\d+): loss=(?P<val_loss>\S+)")
    assert curve(loop(command, epochs=2, lr=1), 2) == [1.0, 0.5]


def test_resumed_command_is_told_where_it_was_and_what_it_trains_again_is_passed_over(script, tmp_path):
    text = script("""
import os
print("from", os.environ["SEARCH_EPOCH"], flush=True)
for epoch in range(1, 5):
    print('@search {"epoch": %d, "val_loss": %d}' % (epoch, 10 * epoch), flush=True)
""")
    one = loop(Command(text), folder=tmp_path, lr=1)
    assert curve(one, 2) == [10, 20]
    file = io.BytesIO()
    training.write(one, file)
    file.seek(0)
    again = loop(Command(text), folder=tmp_path, lr=1)
    training.load(again, file)
    assert curve(again, 2) == [30, 40]
    assert "from 2" in (tmp_path / "output.log").read_text()


def test_command_that_fails_shows_its_last_words(script):
    with pytest.raises(CommandFailed, match=r"(?s)code 3 before epoch 1; its last lines:.*no such column"):
        curve(loop(Command(script("print('no such column'); raise SystemExit(3)")), lr=1), 1)
    with pytest.raises(TrainingError, match=r"(?s)code 2 before epoch 1.*unrecognized arguments: --lr 1"):
        curve(loop(Command(script("import argparse; argparse.ArgumentParser().parse_args()") + " --lr {lr}"), lr=1), 1)
    with pytest.raises(TrainingError, match="expected metrics that are numbers"):
        curve(loop(Command(script("""print('@search {"val_loss": "low"}')""")), lr=1), 1)
    with pytest.raises(TrainingError, match="not JSON after @search"):
        curve(loop(Command(script("print('@search val_loss=3')")), lr=1), 1)
    with pytest.raises(TrainingError, match="reports epoch 5 where epoch 1 is due"):
        curve(loop(Command(script("""print('@search {"epoch": 5, "val_loss": 1}')""")), lr=1), 1)
    with pytest.raises(TrainingError, match="cannot be started: No such file"):
        curve(loop(Command("no-such-program {lr}"), lr=1), 1)


def test_command_that_is_dropped_ends_with_all_that_it_started(script, tmp_path):
    text = script("""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
print('@search {"val_loss": 1, "child": %d}' % child.pid, flush=True)
time.sleep(100)
""")
    one = loop(Command(text), lr=1)
    child = int(training.run_epoch(TASK, one, None, None)["child"])
    assert alive(child)
    begun = time.monotonic()
    del one
    assert time.monotonic() - begun < 5
    deadline = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Command(""), "empty"),
        (lambda: Command("x", "("), "no regular expression"),
        (lambda: Command("x --lr {lr} --wd {decay}").check({"lr"}), r"\{decay\}: no hyperparameter of that name; .*lr"),
    ],
)
def test_command_that_cannot_be_meant_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, "cut", "flipped", "cut, old"])
def test_damaged_file_of_a_function_is_named(tmp_path, content):
    path = tmp_path / "train.pkl"
    code = Code.of(lambda trial: [0.5])
    code.write(path)
    assert Code.read(path, code.folder).pickled == code.pickled
    whole = path.read_bytes()
    flipped = whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]
    damaged = {"cut": whole[:-30], "flipped": flipped, "cut, old": code.pickled[:-1]}.get(content, content)
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"train\.pkl: is damaged"):
        Code.read(path, code.folder)
    path.write_bytes(code.pickled)
    assert Code.read(path, code.folder).pickled == code.pickled, "as it was written before there were digests"
