"""Forms of commands: flags, shells, config files, several patterns, programs that hold their output back."""

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch
import yaml

from trainables import InputError, seed_everything
from trainables.base import training
from trainables.base.device import Device
from trainables.loops.command import Command
from trainables.loops.errors import CommandFailed, TrainingError
from trainables.loops.reports import Epochs, reported
from trainables.loops.task import Code, LoopTask
from trainables.loops.template import fill_template
from trainables.loops.trial import Loop, Trial
from trainables.loops.words import Line

TASK = LoopTask("mine", "val_loss", "min")
#: Prints its words as a report's neighbour, and reports one epoch.
WORDS = """import json, sys; print(json.dumps(sys.argv[1:])); print('@search {"val_loss": 1}', flush=True)"""


def loop(command, epochs=1, folder=None, **params):
    seed_everything(0)
    trial = Trial(params, 0, epochs, torch.device("cpu"))
    trial.folder = folder
    return Loop(command, trial, Device(torch.device("cpu")), "val_loss")


def epochs_of(one, count):
    return [training.run_epoch(TASK, one, None, None) for _ in range(count)]


@pytest.fixture
def script(tmp_path):
    """Writes a program, and returns the words that start it."""

    def write(code, name="train.py"):
        (tmp_path / name).write_text(code)
        return f"{sys.executable} {tmp_path / name}"

    return write


def words_of(script, tmp_path, text, shell=False, **params):
    """The words that a program gets."""
    log = tmp_path / "trial" / "output.log"
    log.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    command = Command(f"{script(WORDS)} {text}", shell=shell)
    command.check(set(params), truths={name for name, value in params.items() if value in (True, False, None)})
    epochs_of(loop(command, folder=log.parent, **params), 1)
    return json.loads(log.read_text().splitlines()[0])


# Flags and missing values


@pytest.mark.parametrize("shell", [False, True])
@pytest.mark.parametrize(
    ("text", "params", "found"),
    [
        ("{amp:flag} --lr {lr}", {"amp": True, "lr": 1}, ["--amp", "--lr", "1"]),
        ("{amp:flag} --lr {lr}", {"amp": False, "lr": 1}, ["--lr", "1"]),
        ("{amp:flag} --lr {lr}", {"amp": None, "lr": 1}, ["--lr", "1"]),
        ("--use-amp{amp:flag} -v{loud:flag}", {"amp": True, "loud": False}, ["--use-amp"]),
        ("{model.deep:flag} --model.width {model.width}", {"model.deep": True, "model.width": 8},
         ["--model.deep", "--model.width", "8"]),
        ("--dropout {dropout} --lr={lr}", {"dropout": None, "lr": 1}, ["--lr=1"]),
        ("--fast {amp:flag} {lr}", {"amp": False, "lr": 1}, ["--fast", "1"]),
        ("--name {name} x{lr}y", {"name": "it's a; $HOME `b` \"c\" \\ *", "lr": 1e-5},
         ["--name", "it's a; $HOME `b` \"c\" \\ *", "x1e-05y"]),
        ("--out={name}/x {empty} '{{}}'", {"name": "a b", "empty": ""}, ["--out=a b/x", "{}"]),
    ],
)  # fmt: skip
def test_words_of_a_command(script, tmp_path, shell, text, params, found):
    assert words_of(script, tmp_path, text, shell, **params) == found


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: Command("x {lr:flag}").check({"lr"}, truths=set()),
            r"\{lr:flag\}: a flag is true or false: write lr: ",
        ),
        (lambda: Command("x {lr!r:flag}"), "a flag has no conversion"),
        (lambda: Command("sh -c 'x {amp:flag}'"), r"\{amp:flag\} cannot be left out of 'x \{amp:flag\}'.*--shell"),
    ],
)
def test_flag_that_cannot_be_meant(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_flag_with_a_value_that_is_no_truth(script):
    with pytest.raises(TrainingError, match=r"\{amp:flag\}: amp is 0.5: a flag is true or false"):
        epochs_of(loop(Command(f"{script(WORDS)} {{amp:flag}}"), amp=0.5), 1)


# Shells


def test_shell_pipes_changes_folder_and_knows_variables(script, tmp_path):
    (tmp_path / "code").mkdir()
    script("print('from data', flush=True)", "code/data.py")
    script(
        """import sys; print(sys.stdin.read().strip(), sys.argv[1]); print('@search {"val_loss": 2}')""", "code/t.py"
    )
    text = f"cd {tmp_path}/code && {sys.executable} data.py | {sys.executable} t.py $KIND-{{name}} | tee copy.txt"
    command = Command(text, shell=True, environment={"KIND": "a"})
    assert epochs_of(loop(command, name="b c"), 1)[0]["val_loss"] == 2
    assert (tmp_path / "code" / "copy.txt").read_text().splitlines()[0] == "from data a-b c"


def test_shell_pipeline_fails_with_its_first_program(script):
    text = script("print('no room'); raise SystemExit(3)")
    with pytest.raises(CommandFailed, match=r"(?s)code 3 before epoch 1.*no room"):
        epochs_of(loop(Command(f"{text} | cat", shell=True)), 1)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_shell_stop_ends_the_whole_pipeline(script):
    text = script("""
import os, time
print('@search {"val_loss": 1, "pid": %d, "shell": %d}' % (os.getpid(), os.getppid()), flush=True)
time.sleep(100)
""")
    one = loop(Command(f"{text} | cat", shell=True), epochs=3)
    (metrics,) = epochs_of(one, 1)
    pids = [int(metrics[name]) for name in ("pid", "shell")]
    assert all(map(alive, pids))
    del one
    deadline = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("python x '{lr}'", r"'\{lr\}': write \{lr\} outside of the quotes"),
        ('python x "a {lr}"', r"write \{lr\} outside of the quotes"),
        ('x "$(echo "{lr}")"', "outside of the quotes"),
        ("x `echo {lr}`", "outside of the quotes"),
        ("x 'open", "no closing quotation"),
        ("x <<END\n{lr}\nEND", "a here-document cannot be used"),
        ("x | {lrr}", r"\{lrr\}: no hyperparameter of that name"),
        ("awk '{print}' {lr}", r"\{print\} outside of the quotes|\{print\}"),
        ("x {lr", "literal braces are doubled"),
        ("| ; &&", "it is empty"),
    ],
)
def test_shell_line_that_cannot_be_meant(text, said):
    with pytest.raises(InputError, match=said):
        Command(text, shell=True).check({"lr"})


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("awk '{{print $1}}' {a} # it's {a}\necho {b}", "awk '{print $1}' 'x y' # it's {a}\necho '$z'"),
        ("echo \\'{a}\\' ${{HOME}} {a:>5}&&{b}", "echo \\''x y'\\' ${HOME} '  x y'&&'$z'"),
        ("x --a {none}|y --b={none} > {a}", "x  |y  > 'x y'"),
        ("x --a | {none}", "x --a | "),
        ("n=$(cat {a}); x <<< {b}", "n=$(cat 'x y'); x <<< '$z'"),
    ],
)
def test_shell_line_filled(text, filled):
    values = {"a": "x y", "b": "$z", "none": None}
    assert Line(text, shell=True).filled(values, values)[-1] == filled


# Several patterns

#: What a program prints in two epochs: the objective is not in the last line of an epoch.
LINES = [line for epoch in (1, 2) for line in (
    f"[train] epoch {epoch} loss {epoch / 10}", f"[valid] epoch {epoch} loss {epoch}", f"[valid] accuracy {90 + epoch}",
)]  # fmt: skip
PATTERNS = [
    r"\[train\] epoch (?P<epoch>\d+) loss (?P<train_loss>\S+)",
    r"\[valid\] epoch (?P<epoch>\d+) loss (?P<val_loss>\S+)",
    r"\[valid\] accuracy (?P<accuracy>\S+)",
]


def test_patterns_of_several_lines_form_one_report(script):
    text = script(f"print({chr(10).join(LINES)!r})")
    found = epochs_of(loop(Command(text, PATTERNS, report_at="accuracy"), epochs=2), 2)
    keys = ("train_loss", "val_loss", "accuracy")
    assert [[one[key] for key in keys] for one in found] == [[0.1, 1, 91], [0.2, 2, 92]]


def test_patterns_that_match_one_line_form_one_report():
    patterns = [r"epoch (?P<epoch>\d+)", r"val (?P<val_loss>\S+)", r"none (?P<none>\S+)"]
    assert list(reported("epoch 3: train 0.1, val 0.2", patterns)) == [{"epoch": 3, "val_loss": 0.2}]
    assert list(reported("nothing", patterns)) == []


def test_report_at_without_the_objective_before_it():
    epochs = Epochs("val_loss", "accuracy")
    assert epochs.add({"epoch": 0, "train_loss": 1}) is None
    with pytest.raises(TrainingError, match="epoch 0 with train_loss, accuracy, without the objective 'val_loss'"):
        epochs.add({"epoch": 0, "accuracy": 1})
    epochs = Epochs("val_loss", "accuracy")
    assert epochs.add({"epoch": 1, "val_loss": 1}) is None
    with pytest.raises(TrainingError, match="epoch 1 with val_loss, without the metric of report_at 'accuracy'"):
        epochs.add({"epoch": 2, "val_loss": 1})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Command("x", ["(?P<a>.)", "("]), r"pattern: '\(': no regular expression"),
        (lambda: Command("x", ["(?P<a>.)", "b"]), "pattern: 'b': has no named group"),
        (lambda: Command("x", [1]), "pattern: 1: expected a text, or a list of texts"),
        (
            lambda: Command("x", ["(?P<a>.)", "(?P<b>.)"]).check_objective("c"),
            "has the groups a, b, without the object",
        ),
        (lambda: Command("x", "(?P<a>.)", report_at="b").check_objective("a"), "report_at: 'b': no pattern has this g"),
    ],
)
def test_patterns_that_cannot_be_meant(make, said):
    with pytest.raises(InputError, match=said):
        make()


@pytest.mark.parametrize(
    ("printed", "read"),
    [("98.0%", 98), ("1,234.5", 1234.5), ("1e-3,", 1e-3), ("1,234,567", 1234567), ("-1.5E+2;", -150)],
)
def test_values_as_printed(printed, read):
    assert list(reported(f"val_loss: {printed} then", [r"val_loss: (?P<val_loss>\S+)"])) == [{"val_loss": read}]


# Config files

VALUES = {"lr": 1e-5, "width": 8, "amp": True, "opt": "adam", "model.depth": 2, "gone": None, "drop": 0.5}


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        (
            "cfg.yaml",
            "# {{lr}}\nlr: {{lr}}\nmodel: {width: {{width}}, depth: {{ model.depth }}}\namp: {{amp}}\nopt: {{opt}}\n"
            "gone: {{gone}}\nchat: \"{{ message }} {% if x %}{y}\"\nref: ${lr}\n",
            {"lr": 1e-5, "model": {"width": 8, "depth": 2}, "amp": True, "opt": "adam",
             "chat": "{{ message }} {% if x %}{y}", "ref": "${lr}"},
        ),
        (
            "cfg.json",
            '{"lr": {{lr}}, "amp": {{amp}}, "opt": "{{opt}}-{{width}}", "gone": {{gone}}, "a": {"b": {"c": {{drop}}}}}',
            {"lr": 1e-5, "amp": True, "opt": "adam-8", "gone": None, "a": {"b": {"c": 0.5}}},
        ),
        (
            "cfg.toml",
            'lr = {{lr}}\namp = {{amp}}\nopt = "{{opt}}"\ngone = {{gone}}\nnested = {a = {b = {{width}}}}\n',
            {"lr": 1e-5, "amp": True, "opt": "adam", "nested": {"a": {"b": 8}}},
        ),
    ],
)  # fmt: skip
def test_template_filled(tmp_path, name, text, read):
    (tmp_path / name).write_text(text)
    fill_template(tmp_path / name, tmp_path / "filled", VALUES)
    filled = (tmp_path / "filled").read_text()
    parse = {"cfg.yaml": yaml.safe_load, "cfg.json": json.loads, "cfg.toml": tomllib.loads}[name]
    assert parse(filled) == read


@pytest.mark.parametrize("folder", [True, False])
def test_command_with_a_template(script, tmp_path, folder):
    (tmp_path / "cfg.yaml").write_text("lr: {{lr}}\nepochs: {{epochs}}\n")
    text = script("""
import sys
from pathlib import Path
lr, epochs = [float(line.split()[1]) for line in Path(sys.argv[1]).read_text().splitlines()]
print(sys.argv[1])
print('@search {"val_loss": %s, "epochs": %s}' % (lr, epochs))
""")
    command = Command(text + " {template}", template="cfg.yaml", folder=str(tmp_path))
    assert command.check({"lr"}) == []
    trial = tmp_path / "trial"
    trial.mkdir()
    (metrics,) = epochs_of(loop(command, folder=trial if folder else None, epochs=1, lr=1e-5), 1)
    assert (metrics["val_loss"], metrics["epochs"]) == (1e-5, 1)
    assert (trial / "cfg.yaml").exists() == folder
    before = command.fingerprint()
    (tmp_path / "cfg.yaml").write_text("lr: {{lr}}\nepochs: 3\n")
    assert command.changed(before) == ["cfg.yaml"]
    (tmp_path / "cfg.yaml").unlink()
    assert command.changed(before) == ["cfg.yaml"]
    with pytest.raises(TrainingError, match=r"template: .*cfg.yaml: cannot be read: No such file"):
        epochs_of(loop(command, lr=1), 1)


def test_template_hyperparameter_that_no_text_holds(tmp_path):
    (tmp_path / "cfg.yaml").write_text("lr: {{lr}}\nwidth: {{widht}}\n")
    command = Command("x {template} --wd {decay}", template="cfg.yaml", folder=str(tmp_path))
    (note,) = command.check(["lr", "width", "decay"])
    assert note.startswith("note: width: is not in the command and not in cfg.yaml")
    (tmp_path / "cfg.yaml").write_text("lr: {{lr}}\nepochs: {{epochs}}\n")
    with pytest.raises(InputError, match=r"\{epochs\}: is the number of epochs and also a hyperparameter"):
        Command("x {template}", template=Path("cfg.yaml"), folder=str(tmp_path)).check(["lr", "epochs"])


@pytest.mark.parametrize(
    ("text", "content", "said"),
    [
        ("x {template}", None, r"template: .*cfg.yaml: cannot be read: No such file"),
        ("x {template}", b"\xff", "cfg.yaml: is no UTF-8 text"),
        ("x --config cfg.yaml", b"{{lr}}", r"the command does not get it: add \{template\}"),
        ("x {template}", b"lr: {lr}", r"holds no name in doubled braces; there are .*lr"),
        (
            "x {template}",
            b"a: 1\nb: [{{lr}}, {{drop}}]",
            r"line 2: \{\{drop\}\} has no value if its `when`.*lines of th",
        ),
    ],
)
def test_template_that_cannot_be_meant(tmp_path, text, content, said):
    if content is not None:
        (tmp_path / "cfg.yaml").write_bytes(content)
    with pytest.raises(InputError, match=said):
        Command(text, template="cfg.yaml", folder=str(tmp_path)).check({"lr", "drop"}, {"drop"})
    with pytest.raises(InputError, match="give the file with --template"):
        Command("x {template}").check({"lr"})


# Output and old searches


@pytest.mark.skipif(not (shutil.which("cc") and shutil.which("stdbuf")), reason="needs a C compiler and stdbuf")
def test_c_program_that_does_not_flush_reports_at_once(tmp_path):
    source = tmp_path / "train.c"
    source.write_text("""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
    for (int epoch = 1; epoch <= 2; epoch++) { printf("epoch %d loss %g\\n", epoch, atof(argv[1]) / epoch); sleep(60); }
}
""")
    subprocess.run(["cc", "-o", tmp_path / "train", source], check=True)
    pattern = r"epoch (?P<epoch>\d+) loss (?P<val_loss>\S+)"
    begun = time.monotonic()
    one = loop(Command(f"{tmp_path}/train {{lr}}", pattern), epochs=2, lr=3)
    assert epochs_of(one, 1)[0]["val_loss"] == 3
    del one
    assert time.monotonic() - begun < 60, "the first epoch came before the second one began"


def test_command_of_an_earlier_version(tmp_path):
    command = Command("x --lr {lr}", "(?P<val_loss>.)", folder=str(tmp_path))
    before = f"Command(text='x --lr {{lr}}', pattern='(?P<val_loss>.)', environment={{}}, folder={str(tmp_path)!r})\n"
    assert (
        command.fingerprint() == before == Command(command.text, [command.pattern], folder=command.folder).fingerprint()
    )
    for name in ("report_at", "template", "shell"):
        vars(command).pop(name)  # as in a pickle of an earlier version
    assert Code.of(command).command.changed(before) == []
    shell = Command("x | y", ["(?P<a>.)", "(?P<b>.)"], folder=str(tmp_path), shell=True, report_at="b")
    assert shell.fingerprint().strip().endswith("report_at='b', shell=True)") and shell.changed(before) == [
        "the command"
    ]
    assert os.fspath(shell.folder) == str(tmp_path)
