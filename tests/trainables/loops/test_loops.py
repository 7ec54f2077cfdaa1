"""Training functions and commands, advanced an epoch at a time, without Ray."""

import io
import json
import math
import re
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
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
def test_loop_resumed_after_any_epoch_same_bits(function):
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


@pytest.mark.parametrize("name", ["epoch_seconds", "peak_memory_mib"])
def test_loop_metric_that_the_search_measures(name):
    learner = loop(lambda trial: iter_of({"val_loss": 0.5, name: 9.0}))
    with pytest.raises(TrainingError, match=f"the metrics hold '{name}', which the search measures itself"):
        training.run_epoch(TASK, learner, None, None)


def test_loop_metrics_names_and_objective():
    metrics = training.run_epoch(LoopTask("mine", "loss", "min"), Loop(
        lambda trial: iter_of({"loss": 0.5, "accuracy": torch.tensor(0.25)}), Trial({}, 0, 3, torch.device("cpu")), CPU,
        "loss",
    ), None, None)  # fmt: skip
    assert metrics["loss"] == metrics["val_loss"] == 0.5
    assert metrics["accuracy"] == 0.25
    assert metrics["epoch_seconds"] > 0


def test_metric_in_the_place_of_the_objective_is_refused():
    one = Loop(lambda trial: iter_of({"loss": 0.5, "val_loss": 0.7}), Trial({}, 0, 3, torch.device("cpu")), CPU, "loss")
    with pytest.raises(TrainingError, match=r"hold 'val_loss' and the objective 'loss'.*rename one"):
        training.run_epoch(LoopTask("mine", "loss", "min"), one, None, None)


def iter_of(*told):
    yield from told


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda trial: iter_of({"loss": 1.0}), "yielded loss, without the objective 'val_loss'"),
        (lambda trial: iter_of({"val_loss": "low"}), "the metric 'val_loss' is 'low': expected a number"),
        (lambda trial: iter_of([1.0]), r"yielded \[1.0\]: expected a dictionary"),
        (lambda trial: iter_of(), "ended before its first epoch"),
        (lambda trial: {"val_loss": 1.0}, "a trial has 4 epochs: `yield` the metrics of each"),
        (lambda trial: iter_of(*trial.epochs(model=3)), r"trial.epochs\(model=...\): a int has no state_dict"),
    ],
)
def test_what_a_newcomer_gets_wrong_is_said_in_a_line(function, said):
    with pytest.raises(TrainingError, match=said) as caught:
        curve(loop(function), 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (np.array([0.5]), 0.5),
        (np.array([[0.5]], dtype=np.float16), 0.5),
        (np.int64(3), 3.0),
        (np.array(True), 1.0),
        (pd.Series([0.5]), 0.5),
        (torch.tensor([[0.5]], requires_grad=True), 0.5),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (Fraction(1, 2), 0.5),
        (10**400, math.inf),
        (np.array([-(10**400)], dtype=object), -math.inf),
    ],
)
def test_loop_metric_numbers(value, number):
    metrics = training.run_epoch(TASK, loop(lambda trial: iter_of({"val_loss": value})), None, None)
    assert metrics["val_loss"] == number and type(metrics["val_loss"]) is float


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.complex64(1 + 2j), "np.complex64(1+2j)"),
        (np.array([1 + 2j]), "array([1.+2.j])"),
        (1j, "1j"),
        (torch.tensor(1 + 2j), "tensor(1.+2.j)"),
        (torch.tensor([1.0, 2.0]), "tensor([1., 2.])"),
        (torch.empty(1, device="meta"), "tensor(..., device='meta', size=(1,))"),
        (np.array("hello"), "array('hello', dtype='<U5')"),
        (np.array("1.5"), "array('1.5', dtype='<U3')"),
        (np.datetime64("2020-01-01", "ns"), "np.datetime64('2020-01-01T00:00:00.000000000')"),
        (np.timedelta64(3, "ns"), "np.timedelta64(3,'ns')"),
        (pd.Timestamp("2020-01-01"), "Timestamp('2020-01-01 00:00:00')"),
        (pd.Series(["a"]), "0 a dtype: "),
        (np.array([1.0, 2.0]), "array([1., 2.])"),
        (np.array([]), "array([], dtype=float64)"),
        (np.array([None]), "array([None], dtype=object)"),
        (np.zeros(1, dtype="i4,i4"), "array([(0, 0)], dtype=[('f0', '<i4'), ('f1', '<i4')])"),
    ],
)
def test_loop_metric_not_a_number(value, text):
    said = f"the metric 'accuracy' is {text}"
    with pytest.raises(
        TrainingError, match=f"^{re.escape(said)}.*: expected a number, or an array or tensor with one r"
    ):
        curve(loop(lambda trial: iter_of({"val_loss": 0.5, "accuracy": value})), 1)


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
    with pytest.raises(TrainingError, match="the state of 'odd' cannot be saved"):
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


def test_command_resumed_ignores_known_epochs(script, tmp_path):
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
        (lambda: Command("x", "loss"), r"no named group, such as \(\?P<val_loss>"),
        (lambda: Command("x --lr {lr"), "x --lr|{lr: expected '}'.*literal braces are doubled"),
        (lambda: Command("x {}"), r"\{\} has no name; .*doubled"),
        (lambda: Command("x 'y"), "x 'y: no closing quotation"),
        (lambda: Command("""x '{"lr": {lr}}'""").check({"lr"}), "literal braces are doubled"),
        (lambda: Command("python x.py | tee log"), r"'\|' needs a shell: add --shell \(in Python: shell=True\)"),
        (lambda: Command("cd code && python x.py"), "'&&' needs a shell"),
        (lambda: Command("cd code"), "'cd' needs a shell"),
        (lambda: Command("x {model.depth}").check({"model.width"}), r"\{model.depth\}: no hyperparameter"),
        (
            lambda: Command("sh -c 'x --dropout {dropout}'").check({"dropout"}, {"dropout"}),
            r"\{dropout\} has no value if its `when` does not hold, and cannot be left out",
        ),
        (
            lambda: Command("x", r"loss (?P<val_los>.)").check((), (), "val_loss"),
            "has the groups val_los, without the ob",
        ),
        (lambda: Command("x", r"(?P<epoch>.)").check((), (), "val_loss"), r"objective 'val_loss'.*\(\?P<val_loss>"),
        (
            lambda: LoopTask("m", "loss", "min", Command("x", r"(?P<a>.)")).prepare({}, None, Path(), lambda *_: None),
            "has the groups a, without the objective 'loss'",
        ),
        (lambda: Command("x {epochs}").check({"epochs"}), r"\{epochs\}: is the number of epochs.*another name"),
        (lambda: Command("x -s={seed}").check({"seed", "lr"}), r"\{seed\}: is the seed of the trial"),
        (lambda: Command("x {lr:{epochs}}"), r"\{lr:\{epochs\}\}: a format cannot hold braces"),
        (lambda: Command("x {lr!z}"), r"\{lr!z\}: expected one of !r, !s and !a"),
        (lambda: Command("x {lr:.2q}"), r"\{lr:\.2q\}: no value has the format '.2q'"),
        (lambda: Command("x {lr!r:.2f}"), r"\{lr!r:\.2f\}: no value has the format"),
        (lambda: Command("x 2>/dev/null"), "'2>/dev/null' needs a shell"),
        (lambda: Command("x >out"), "'>out' needs a shell"),
        (lambda: Command("x a>{lr}"), "'a>{lr}' needs a shell"),
        (lambda: Command("ls; rm"), "'ls;' needs a shell"),
        (lambda: Command("x|y"), r"'x\|y' needs a shell"),
        (lambda: Command("x&&y"), "'x&&y' needs a shell"),
        (lambda: Command("x --lr {lr}&"), r"'\{lr\}&' needs a shell"),
        (lambda: Command("A=1 python x"), r"'A=\.\.\.' needs a shell: .* or write `env A="),
        (lambda: Command("x $HOME/data"), r"'\$HOME/data' needs a shell"),
        (lambda: Command("x ${{HOME}}"), "needs a shell"),
        (lambda: Command("x $(date)"), r"'\$\(date\)' needs a shell"),
        (lambda: Command("x `date`"), "'`date`' needs a shell"),
        (lambda: Command("x ~/data"), "'~/data' needs a shell"),
        (lambda: Command("x --lr {lr} --wd {decay}").check({"lr"}), r"\{decay\}: no hyperparameter of that name; .*lr"),
    ],
)
def test_command_that_cannot_be_meant_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


@pytest.mark.parametrize(
    "text",
    [
        "x '2>/dev/null' \">out\" 'ls; rm' 'x|y' '$HOME' \"~/x\"",
        r"x \| \$HOME a\;b", "x {lr:>10} {lr:<+8.2f} {lr!r:^9}",
        "x --url http://host/?a=1&b=2 cost$5 a$ ~model a~/b --name=A=1", "env A=1 python x",
        "sh -c \"echo $HOME; x > y\"",
        "x '{{\"lr\": {lr}}}' {lr:d} {lr:s} {lr:,} {lr:%}", "x 'it'\\''s; fine' # no comment", "x ''",
    ],
)  # fmt: skip
def test_command_words_that_need_no_shell(text):
    Command(text, r"epoch (?P<epoch>\d+) (?P<val_loss>\S+)").check({"lr", "seed"}, (), "val_loss")


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, "cut", "flipped"])
def test_damaged_file_of_a_function_is_named(tmp_path, content):
    path = tmp_path / "train.pkl"
    code = Code.of(lambda trial: [0.5])
    code.write(path)
    assert Code.read(path, code.folder).pickled == code.pickled
    whole = path.read_bytes()
    flipped = whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]
    damaged = {"cut": whole[:-30], "flipped": flipped}.get(content, content)
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"train\.pkl: is damaged"):
        Code.read(path, code.folder)


def finish(one):
    """Lets a training come to its own end after its last epoch."""
    with pytest.raises(training.Ended):
        training.run_epoch(TASK, one, None, None)


def reports(*epochs, pause=0.0):
    """A script that reports these epochs."""
    return f"""
import time
for epoch in {epochs}:
    print('@search {{"epoch": %d, "val_loss": %d}}' % (epoch, 10 * epoch), flush=True)
    time.sleep({pause})
"""


def test_command_complete_ends_by_itself(script, tmp_path):
    end = """
print("x" * 200_000, flush=True)  # more than a pipe holds
with open(__file__ + ".model", "w") as file:
    file.write("saved")
"""
    one = loop(Command(script(reports(1, 2) + end)), epochs=2, lr=1)
    assert curve(one, 2) == [10, 20]
    finish(one)
    assert (tmp_path / "train.py.model").read_text() == "saved"


def test_command_fails_after_last_epoch(script):
    one = loop(Command(script(reports(1, 2) + "print('no room'); raise SystemExit(3)")), epochs=2, lr=1)
    curve(one, 2)
    with pytest.raises(CommandFailed, match=r"(?s)code 3 after its last epoch; its last lines:.*no room"):
        training.run_epoch(TASK, one, None, None)


def test_command_code_0_before_last_epoch(script):
    one = loop(Command(script(reports(1, 2))), epochs=4, lr=1)
    assert curve(one, 2) == [10, 20]
    finish(one)


def test_command_that_a_signal_ends_has_failed(script):
    one = loop(Command(script(reports(1) + "import os; os.kill(os.getpid(), 9)")), epochs=4, lr=1)
    curve(one, 1)
    with pytest.raises(CommandFailed, match="was ended by SIGKILL before epoch 2"):
        curve(one, 1)


def test_command_that_a_signal_without_a_name_ends_has_failed(script):
    text = script("import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 3)")
    with pytest.raises(CommandFailed, match=r"was ended by signal \d+ before epoch 1"):
        curve(loop(Command(text), lr=1), 1)


def test_command_sigterm_only_if_stopped(script, tmp_path):
    code = """
import signal, sys
def note(*_):
    open(__file__ + ".stopped", "w").close()
    sys.exit(1)
signal.signal(signal.SIGTERM, note)
"""
    stopped = tmp_path / "train.py.stopped"
    one = loop(Command(script(code + reports(1, 2, pause=0.3))), epochs=2, lr=1)
    curve(one, 2)
    finish(one)
    assert not stopped.exists()
    one = loop(Command(script(code + reports(1, 2, pause=30))), epochs=2, lr=1)
    curve(one, 1)
    del one
    assert stopped.exists()


def test_command_with_more_epochs_than_a_trial_is_ended(script):
    one = loop(Command(script(reports(*range(1, 10), pause=1))), epochs=2, lr=1)
    curve(one, 2)
    finish(one)


def test_epochs_counted_from_0_are_the_same_epochs(script, tmp_path):
    text = script("""
import os
for epoch in range(int(os.environ["SEARCH_EPOCH"]), 4):
    print('@search {"epoch": %d, "val_loss": %d}' % (epoch, 10 * (epoch + 1)), flush=True)
""")
    one = loop(Command(text), lr=1)
    assert curve(one, 2) == [10, 20]
    file = io.BytesIO()
    training.write(one, file)
    assert curve(one, 2) == [30, 40]
    finish(one)
    file.seek(0)
    again = loop(Command(text), lr=1)
    training.load(again, file)
    assert curve(again, 2) == [30, 40], "the first line says epoch 2, which is the third"


def test_epochs_evaluation_at_epoch_0(script):
    one = loop(Command(script(reports(0, 1, 2, 3, 4))), lr=1)
    curve(one, 4)
    with pytest.raises(TrainingError, match="reports epochs 0 to 4, but a trial has 4 epochs: if epoch 0"):
        training.run_epoch(TASK, one, None, None)


def test_evaluations_by_step_are_counted_without_that_at_step_0(script):
    text = script("for s in (0, 250, 500): print(f'step {s}: train loss 1.9, val loss {s / 100}', flush=True)")
    pattern = r"(?P<step>\d+): train loss (?P<train_loss>\S+), val loss (?P<val_loss>\S+)"
    assert curve(loop(Command(text, pattern), epochs=2, lr=1), 2) == [2.5, 5.0]
    with pytest.raises(TrainingError, match=r"reports epoch 250 where epoch 1 is due: .*call them `step`"):
        curve(loop(Command(text, pattern.replace("step", "epoch")), epochs=2, lr=1), 2)


def test_mark_is_found_anywhere_in_a_line(script):
    text = script("""
import sys
sys.stderr.write("  0%|          | 0/3"); sys.stderr.flush()
print('@search {"epoch": 1, "val_loss": 1}', end="", flush=True)
sys.stderr.write("\\r 33%|###       | 1/3"); sys.stderr.flush()
print('@search {"epoch": 2, "val_loss": 2} and @search {"epoch": 3, "val_loss": 3}', flush=True)
""")
    assert curve(loop(Command(text), epochs=3, lr=1), 3) == [1, 2, 3]


@pytest.mark.parametrize(
    ("printed", "read"),
    [
        ("98.00%", 98.0), ("1,234.5", 1234.5), ("0.41,", 0.41), ("-1e-3;", -1e-3), ("3", 3.0), ("0.41}", 0.41),
        ("(0.41)", 0.41), ("0.41.", 0.41), ("\\x1b[32m0.41\\x1b[0m", 0.41),
    ],
)  # fmt: skip
def test_numbers_are_read_as_programs_print_them(script, printed, read):
    text = script(f"print('loss {printed} acc', flush=True)")
    assert curve(loop(Command(text, r"loss (?P<val_loss>\S+)( f1 (?P<f1>\S+))?"), epochs=1, lr=1), 1) == [read]


def test_number_that_nobody_can_read_is_named(script):
    for printed in ("0,41", "0,412", "-0,412"):
        with pytest.raises(TrainingError, match=f"loss {printed}: expected metrics that are numbers"):
            curve(loop(Command(script(f"print('loss {printed}')"), r"loss (?P<val_loss>\S+)"), epochs=1, lr=1), 1)
    for epoch in ("1e400", "1.5", "-1", "NaN"):
        with pytest.raises(TrainingError, match="expected a whole number, 0 or more"):
            curve(loop(Command(script(f"""print('@search {{"epoch": {epoch}, "val_loss": 1}}')""")), lr=1), 1)


@pytest.mark.parametrize("value", ["'9' * 400", "'9' * 5000", "'[' * 100_000"], ids=["large", "long", "deep"])
def test_report_that_cannot_be_read_is_named(script, value):
    text = script(f"""print('@search {{"epoch": 1, "val_loss": ' + {value} + '}}')""")
    with pytest.raises(TrainingError, match=r'^@search \{"epoch": 1, "val_loss": '):
        curve(loop(Command(text), lr=1), 1)


def test_report_without_an_epoch_after_the_last_one_is_no_epoch(script):
    text = script(reports(1, 2) + """print('@search {"val_loss": 0.001, "best_epoch": 2}', flush=True)""")
    one = loop(Command(text), lr=1)
    curve(one, 2)
    finish(one)


def test_epochs_objective_without_epoch(script, tmp_path):
    text = script("""
import os
for epoch in range(1 + int(os.environ["SEARCH_EPOCH"]), 5):
    print(f"epoch {epoch} begins")
    print(f"val_loss {10 * epoch}", flush=True)
""")
    one = loop(Command(text, r"epoch (?P<epoch>\d+)|val_loss (?P<val_loss>\S+)"), lr=1)
    assert curve(one, 2) == [10, 20]
    file = io.BytesIO()
    training.write(one, file)
    file.seek(0)
    again = loop(Command(text, r"epoch (?P<epoch>\d+)|val_loss (?P<val_loss>\S+)"), lr=1)
    training.load(again, file)
    assert curve(again, 2) == [30, 40]


def test_lines_on_training_and_validation_make_one_epoch(script):
    text = script("""
for epoch in (1, 2):
    print(f"[train] epoch {epoch} loss {epoch / 10}")
    print(f"[valid] epoch {epoch} val_loss {epoch}", flush=True)
""")
    pattern = r"epoch (?P<epoch>\d+) (loss (?P<train_loss>\S+)|val_loss (?P<val_loss>\S+))"
    one = loop(Command(text, pattern), epochs=2, lr=1)
    told = [training.run_epoch(TASK, one, None, None) for _ in range(2)]
    assert [(one["train_loss"], one["val_loss"]) for one in told] == [(0.1, 1), (0.2, 2)]


def test_epochs_two_objectives_of_one_epoch(script):
    text = script("""
for epoch in (1, 2):
    print(f"[train] epoch {epoch} loss {epoch / 10}")
    print(f"[valid] epoch {epoch} loss {epoch}", flush=True)
""")
    pattern = r"epoch (?P<epoch>\d+) loss (?P<val_loss>\S+)"
    with pytest.raises(TrainingError, match=r"reports epoch 1 twice, with val_loss 0.1 and 1: match the lines of"):
        curve(loop(Command(text, pattern), epochs=2, lr=1), 2)
    best = script("for e in (1, 2, 2): print(f'epoch {e} loss {e}', flush=True)  # the best epoch once more")
    assert curve(loop(Command(best, pattern), epochs=2, lr=1), 2) == [1, 2]


def test_epoch_without_the_objective_says_what_to_do(script):
    code = """
for epoch in (1, 2):
    print('@search {"epoch": %d, "train_loss": 1}' % epoch)
print('@search {"epoch": 2, "val_loss": 1}')
"""
    said = "reports epoch 1 with train_loss, without the objective 'val_loss': .*its last value"
    with pytest.raises(TrainingError, match=said):
        curve(loop(Command(script(code)), lr=1), 1)
    with pytest.raises(TrainingError, match="reports metrics with loss, without the objective 'val_loss'"):
        curve(loop(Command(script("""print('@search {"loss": 1}')""")), lr=1), 1)


def test_process_child_keeps_pipe_open(script, tmp_path):
    text = script("""
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(60); open({__file__!r} + '.waited', 'w')"])
print("about to die", flush=True)
os._exit(3)
""")
    with pytest.raises(CommandFailed, match=r"(?s)code 3 before epoch 1.*about to die"):
        curve(loop(Command(text), lr=1), 1)
    assert not (tmp_path / "train.py.waited").exists(), "its child is not waited for"


def test_pattern_that_does_not_come_to_an_end_is_named(script, monkeypatch):
    monkeypatch.setattr("trainables.loops.reports.MATCH_SECONDS", 0.2)
    command = Command(script("print('1' * 5000 + 'y', flush=True)"), r"^(?P<val_loss>(\d+)+)$")
    with pytest.raises(TrainingError, match=r"pattern .* gave no answer within 0.2 s on the line '1111"):
        curve(loop(command, lr=1), 1)


def test_pattern_that_no_line_matches_is_named_with_the_lines(script):
    with pytest.raises(TrainingError, match=r"(?s)no line of its output has the pattern 'loss=.*hello"):
        curve(loop(Command(script("print('hello')"), r"loss=(?P<val_loss>\S+)"), lr=1), 1)
    with pytest.raises(TrainingError, match=r"no line of its output has @search \{...\}"):
        curve(loop(Command(script("print('hello')")), lr=1), 1)


def test_process_long_line_and_log_limit(script, tmp_path, monkeypatch):
    monkeypatch.setattr("trainables.loops.process.LOG_BYTES", 400_000)
    text = script("print('x' * 3_000_000, flush=True); print('the end', flush=True); raise SystemExit(3)")
    with pytest.raises(CommandFailed, match=r"x{100}\.\.\.\nthe end") as caught:
        curve(loop(Command(text), folder=tmp_path, lr=1), 1)
    assert len(str(caught.value)) < 1000
    logs = list(tmp_path.glob("output.log*"))
    assert sum(log.stat().st_size for log in logs) < 600_000
    assert (tmp_path / "output.log").read_text().endswith("the end\n")


def test_report_after_a_long_line_is_found(script):
    text = script("print('x' * 3_000_000); " + """print('@search {"val_loss": 3}', flush=True)""")
    assert curve(loop(Command(text), epochs=1, lr=1), 1) == [3]


def arguments_of(text, script, **params):
    """What a script finds in `sys.argv`."""
    code = "import json, sys; open(__file__ + '.args', 'w').write(json.dumps(sys.argv[1:])); "
    path = script(code + """print('@search {"val_loss": 1}')""").split()[1]
    command = Command(f"{sys.executable} {path} {text}")
    command.check(set(params))
    curve(loop(command, epochs=1, **params), 1)
    return json.loads(Path(f"{path}.args").read_text())


@pytest.mark.parametrize(
    ("text", "params", "found"),
    [
        ("lr={optimizer.lr} {model.width}", {"optimizer.lr": 0.1, "model.width": 8}, ["lr=0.1", "8"]),
        ("--dropout {dropout} --lr {lr}", {"dropout": None, "lr": 1}, ["--lr", "1"]),
        ("--dropout={dropout} dropout={dropout} --lr {lr}", {"dropout": None, "lr": 1}, ["--lr", "1"]),
        ("--fast {dropout} {lr}", {"dropout": "", "lr": 1}, ["--fast", "1"]),
        ("{amp} --lr {lr}", {"amp": "--amp", "lr": 1}, ["--amp", "--lr", "1"]),
        ("--lr {lr:.2e} '{{\"a\": {lr}}}'", {"lr": 0.5}, ["--lr", "5.00e-01", '{"a": 0.5}']),
        ("--out '{folder}'", {}, ["--out", ""]),
        ("'|' --lr {lr}", {"lr": 1}, ["|", "--lr", "1"]),
    ],
)  # fmt: skip
def test_words_of_a_command(script, text, params, found):
    assert arguments_of(text, script, **params) == found


def test_truth_value_for_a_flag_gets_a_hint(script):
    code = "import argparse; p = argparse.ArgumentParser(); p.add_argument('--lr'); p.add_argument('--amp', action="
    text = script(code + "'store_true'); p.parse_args()") + " --amp {amp}"
    with pytest.raises(TrainingError, match=r"a flag without a value is `\{amp:flag\}`"):
        curve(loop(Command(text), lr=1, amp=True), 1)


def test_output_that_comes_only_at_the_end_is_told(script, monkeypatch):
    monkeypatch.setattr("trainables.loops.command.BUFFERED", 0.2)
    code = "import os, time; time.sleep(0.4)\n"
    held = loop(Command(script(code + reports(1, 2) + "os._exit(0)")), epochs=2, lr=1)
    curve(held, 1)
    assert ["flush it after each line" in line for line in held.messages] == [True]
    flushed = loop(Command(script(code + reports(1, 2, pause=0.4))), epochs=2, lr=1)
    curve(flushed, 2)
    assert flushed.messages == []


def test_command_that_begins_anew_after_a_kill_is_told(script):
    one = loop(Command(script(reports(1, 2, 3))), epochs=3, lr=1)
    curve(one, 2)
    file = io.BytesIO()
    training.write(one, file)
    file.seek(0)
    again = loop(Command(script(reports(1, 2, 3))), epochs=3, lr=1)
    training.load(again, file)
    assert curve(again, 1) == [30]
    assert ["began with epoch 1" in line for line in again.messages] == [True]


def test_command_resumed_without_epoch_numbers(script):
    text = script("""
import os
for epoch in range(int(os.environ["SEARCH_EPOCH"]), 4):
    print('@search {"val_loss": %d}' % epoch, flush=True)
""")
    one = loop(Command(text), lr=1)
    curve(one, 1)
    file = io.BytesIO()
    training.write(one, file)
    file.seek(0)
    again = loop(Command(text), lr=1)
    training.load(again, file)
    curve(again, 2)
    with pytest.raises(TrainingError, match=r"started again after epoch 1 .* has to report `epoch`"):
        curve(again, 1)


def test_command_fingerprint_programs_without_data(tmp_path):
    for name in ("train.py", "data.csv", "tool", "package/__main__.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    (tmp_path / "tool").chmod(0o755)
    command = Command(
        f"sh -c './tool --lr {{lr}}; {sys.executable} train.py data.csv -m package'", folder=str(tmp_path)
    )
    before = command.fingerprint()
    assert command.changed(before) == []
    (tmp_path / "data.csv").write_text("more")
    assert command.changed(before) == []
    for name in ("train.py", "tool", "package/__main__.py"):
        (tmp_path / name).write_text("changed")
    assert command.changed(before) == ["./tool", "package/__main__.py", "train.py"]
    assert Command("x", folder=str(tmp_path)).changed(before) == ["the command"]


def test_program_that_changed_since_the_search_began_is_refused(tmp_path):
    (tmp_path / "train.py").write_text("print('old')")
    command = Command("python train.py --lr {lr}", folder=str(tmp_path))
    Code.of(command).write(tmp_path / "store" / "functions" / "s" / "train.pkl")

    def go_on():
        data = {"function": "functions/s/train.pkl"}
        return TASK.prepare(data, None, tmp_path / "store" / "cache" / "train", lambda *_: None)

    before = go_on().info.fingerprint
    assert before == Code.of(command).digest
    (tmp_path / "train.py").write_text("print('new')")
    with pytest.raises(InputError, match=r"s: train.py changed since the search began; .*resume\(changed_code=True\)"):
        go_on()
    assert Code.of(command).digest != before


@pytest.mark.parametrize("end", ["stopped", "complete"])
@pytest.mark.parametrize("folder", [True, False])
def test_command_ends_processes_that_left_its_session(script, tmp_path, end, folder):
    text = script(
        """
import subprocess, time
inner = "import os, time; os.setsid(); print(os.getpid(), flush=True); os.close(1); time.sleep(78)"
started = subprocess.run(
    ["sh", "-c", '"$0" -c "$1" & wait_for=$!', __import__("sys").executable, inner], stdout=subprocess.PIPE, text=True
)
print('@search {"val_loss": 1, "child": %d}' % int(started.stdout), flush=True)
time.sleep(0 if START_ENDS else 100)
""".replace("START_ENDS", str(end == "complete"))
    )
    one = loop(Command(text), folder=tmp_path if folder else None, lr=1)
    child = int(training.run_epoch(TASK, one, None, None)["child"])
    assert alive(child) or end == "complete"
    if end == "complete":
        finish(one)
    del one
    deadline = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


SECRET = "sk-5f1d9a77c0ffee"


def test_command_keeps_secrets_of_its_environment_private(tmp_path):
    command = Command("python train.py --lr {lr}", environment={"WANDB_API_KEY": SECRET}, folder=str(tmp_path))
    code, path = Code.of(command), tmp_path / "functions" / "s" / "train.pkl"
    code.write(path)
    assert SECRET not in repr(command) + code.source and "'WANDB_API_KEY': '***'" in code.source
    assert [file.stat().st_mode & 0o777 for file in path.parent.iterdir()] == [0o600] * 3
    read = Code.read(path, code.folder)
    assert read.command == command and read.digest == code.digest and command.changed(code.source) == []
    other = Command(command.text, environment={"WANDB_API_KEY": "other"}, folder=str(tmp_path))
    assert other.changed(code.source) == ["the environment"] and Code.of(other).digest != code.digest


def test_command_unchanged_since_a_search_that_stored_its_environment(tmp_path):
    def old(value):
        return (
            f"Command(text='x --lr {{lr}}', pattern=None, environment={{'KEY': {value!r}}}, folder={str(tmp_path)!r})\n"
        )

    command = Command("x --lr {lr}", environment={"KEY": SECRET}, folder=str(tmp_path))
    assert command.changed(old(SECRET)) == [] and command.changed(old("other")) == ["the command"]
    plain = Command("x --lr {lr}", folder=str(tmp_path))
    assert plain.fingerprint() == old("").replace("{'KEY': ''}", "{}")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Command("x \0"), r"^command: 'x \\x00': no program can receive this text"),
        (lambda: Command("x \ud800"), r"^command: 'x \\ud800': no program"),
        (lambda: Command("x", environment={"KEY": f"{SECRET}\0"}), "^environment: the value of 'KEY': no program"),
        (lambda: Command("x", environment={"KEY": f"{SECRET}\ud800"}), "^environment: the value of 'KEY': no program"),
        (lambda: Command("x", environment={"KEY": 1}), "^environment: the value of 'KEY': expected a text$"),
        (lambda: Command("x", environment={"A=B": SECRET}), "^environment: 'A=B': a name is a text without `=`"),
        (lambda: Command("x", environment={"": SECRET}), "^environment: '': a name is"),
        (lambda: Command("x", environment={"A\0": SECRET}), r"^environment: 'A\\x00': a name is"),
        (lambda: Command("x", environment={1: SECRET}), "^environment: 1: a name is"),
        (lambda: Command("x", folder="/\0"), r"^folder: '/\\x00': no program"),
    ],
)
def test_command_texts_that_no_process_can_have(make, said):
    with pytest.raises(InputError, match=said) as refused:
        make()
    assert SECRET not in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["a\0b", "a\ud800b"])
def test_command_value_that_no_process_can_have(value):
    with pytest.raises(TrainingError, match="cannot be started: ") as refused:
        curve(loop(Command("x --lr {lr}"), lr=value), 1)
    str(refused.value).encode()
    assert "\n" not in str(refused.value) and "\0" not in str(refused.value)


def test_command_bytes_of_any_file_name(script):
    path = script("import os, sys; print('@search {\"val_loss\": %d}' % os.fsencode(sys.argv[2])[0])")
    assert curve(loop(Command(path), lr="\udcff", epochs=1), 1) == [255]
