"""Trainings of one's own: a function of a script, a function of a notebook, a command."""

import sqlite3
import sys
from dataclasses import replace

import pandas as pd
import pytest

import search
from tests.outcomes import assert_logged_once, outcome_of, results
from trainables import InputError

SCRIPT = """
import sys
import time

import torch

import search


def train(trial):
    model = torch.nn.Sequential(torch.nn.Linear(2, trial.params["width"]), torch.nn.ReLU(), torch.nn.Dropout(0.1),
                                torch.nn.Linear(trial.params["width"], 1)).to(trial.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=trial.params["lr"])
    for epoch in trial.epochs(model=model, optimizer=optimizer):
        time.sleep(0.05)
        x = torch.randn(64, 2)
        loss = (model(x) - x.prod(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield {"val_loss": loss, "width": trial.params["width"]}


if __name__ == "__main__":
    found = search.run(
        train, space={"lr": search.loguniform(1e-3, 1e-1), "width": search.integer(4, 16, step=4)},
        objective="val_loss min", trials=6, epochs=8, concurrency=1, seed=1, name="s", scheduler="asha",
        settings={"startup_trials": 2}, resources={"dashboard": False},
    )
    print("best", found.best.number, found.best.value)
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "mine.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def uninterrupted(module_command, script):
    said = replace(module_command, program=(str(script),)).run()
    return outcome_of(module_command, "s"), said


@pytest.mark.slow
def test_function_killed_twice_and_resumed(command, script, uninterrupted):
    replace(command, program=(str(script),)).kill_when("s", lambda events: len(results(events)) >= 5)
    command.kill_when("s", lambda events: len(results(events)) >= 14, "resume", "s")
    assert "resumed: " in command.run("resume", "s")
    assert outcome_of(command, "s") == uninterrupted[0]
    assert_logged_once(command, "train", "s")


def test_result_equals_mlflow(module_command, uninterrupted):
    found = search.open("s", module_command.folder / "mlruns")
    assert found.status == "finished"
    table, curves = found.trials(), found.curves()
    assert len(table) == 6
    assert f"best {found.best.number} {found.best.value}" in uninterrupted[1]
    assert found.best.value == table["val_loss"].min() == curves["val_loss"].min()
    assert found.best.params == {name: table.loc[found.best.number, name] for name in ("lr", "width")}
    with sqlite3.connect(f"file:{module_command.folder}/mlruns/mlflow.db?mode=ro", uri=True) as database:
        logged = pd.read_sql_query(
            "SELECT t.value AS trial, m.step AS epoch, m.value AS val_loss FROM metrics m JOIN tags t USING (run_uuid) "
            "WHERE m.key = 'val_loss' AND t.key = 'trial'", database,
        )  # fmt: skip
    database.close()
    ours = curves[["trial", "epoch", "val_loss"]].sort_values(["trial", "epoch"]).reset_index(drop=True)
    theirs = logged.astype({"trial": int}).sort_values(["trial", "epoch"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)


@pytest.mark.slow
def test_function_compare_report_and_source(module_command, uninterrupted):
    compared = module_command.call("compare", "train")
    assert "asha" in compared
    assert "report.html" in module_command.call("report", "s")
    assert "def train(trial):" in (module_command.folder / "mlruns" / "functions" / "s" / "train.py").read_text()
    assert "nothing was tested: give search.run(..., test=test)" in module_command.call("retrain", "s")


def test_function_source_changed(module_command, uninterrupted):
    found = search.open("s", module_command.folder / "mlruns")

    def train(trial):
        yield {"val_loss": 0.0}

    with pytest.raises(InputError, match="the source of train changed since the search began"):
        found.resume(train)


HOSTILE = """
import argparse, sys
from pathlib import Path

import mlflow

import search
from helpers import bias

METRIC = "a+b & c=d? 100%, x"


def rnn(trial):
    import late

    rate = float(open("data/rate.txt").read())
    for epoch in trial.epochs():
        print("epoch", epoch, "of trial", trial.number)
        mlflow.log_metric("own", epoch)
        if trial.params["kind"] == "exits":
            argparse.ArgumentParser().parse_args(["--lr"])
        (trial.folder / "written.txt").write_text(str(Path.cwd()))
        yield {METRIC: rate * epoch + bias() + late.BIAS + trial.params["epochs"]}


if __name__ == "__main__":
    found = search.run(
        rnn, {"kind": search.choice(["trains", "exits"]), "epochs": 0.0}, METRIC + " min", epochs=4, concurrency=1,
        name="s", searcher="grid", scheduler="none", resources={"dashboard": False}, settings={"retrain_seeds": 1},
    )
    print(repr(found), found.trials().loc[0, "params_epochs"])
"""


@pytest.mark.slow
def test_function_with_habits_of_people(command):
    """It is called like a task, exits, prints, writes files, logs to MLflow and imports late."""
    folder = command.folder / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "rate.txt").write_text("2")
    (folder / "rnn.py").write_text(HOSTILE)
    (folder / "helpers.py").write_text("def bias():\n    return 0.25\n")
    (folder / "late.py").write_text("BIAS = 0.5\n")
    ran = replace(command, folder=folder, program=("rnn.py",))
    said = ran.run(MLFLOW_TRACKING_URI="")
    assert "task project.rnn, " in said and "search s: finished, 2 trials, best a+b & c=d? 100%, x 2.75" in said
    assert said.rstrip().splitlines()[-1].endswith(" 0.0")
    found = search.open("s", folder / "mlruns")
    curves = found.curves()
    assert list(curves[curves["trial"] == 0]["a+b & c=d? 100%, x"]) == [2.75, 4.75, 6.75, 8.75]
    failed = [event for event in ran.events("s") if event["event"] in ("failed", "retry")]
    assert [event["why"] for event in failed] == ["mistake"], "once, and no lost worker"
    assert "sys.exit with code 2" in said and "unrecognized arguments: --lr" in failed[0]["traceback"]
    trials = folder / "mlruns" / "searches" / "s" / "trials"
    assert "epoch 4 of trial 0" in (trials / "0000" / "output.log").read_text()
    assert (trials / "0000" / "written.txt").read_text() == str(folder)
    with sqlite3.connect(f"file:{folder}/mlruns/mlflow.db?mode=ro", uri=True) as database:
        rows = database.execute("SELECT run_uuid, value FROM metrics WHERE key = 'own'").fetchall()
    database.close()
    assert sorted(value for _, value in rows) == [1, 1, 2, 3, 4]
    assert len({run for run, _ in rows}) == 2, "a run for each trial"
    (folder / "late.py").write_text("BIAS = 5\n")
    refused = replace(command, folder=folder).run("resume", "s", "--epochs", "+1", code=2)
    assert "late.py changed since the search began" in refused


@pytest.mark.slow
def test_ray_started_by_the_user(command):
    code = (
        "import ray, search\n"
        "ray.init(address='local', num_cpus=1, include_dashboard=False, log_to_driver=False)\n"
        "def train(trial):\n    yield 1.0\n"
        "try:\n    search.run(train, {'x': 1}, 'loss min', trials=1, epochs=1)\n"
        "except search.InputError as error:\n    print('said:', error, ray.is_initialized())\n"
    )
    said = replace(command, program=("-c", code)).run(RAY_ADDRESS="")
    assert "said: Ray runs in this process already, by a ray.init() of yours: call ray.shutdown()" in said
    assert said.rstrip().endswith("True"), "it is left as it was"


SHELL = r"""
epoch=$SEARCH_EPOCH
while [ $epoch -lt $1 ]; do
  epoch=$((epoch + 1)); sleep 0.05
  echo "epoch $epoch"
  value=$(python3 -S -c "print(($2 - 0.01) ** 2 + 1 / $epoch)")
  echo "@search {\"epoch\": $epoch, \"val_loss\": $value}"
done
"""


@pytest.mark.slow
def test_command_killed_twice_and_resumed(command):
    (command.folder / "train.sh").write_text(SHELL)
    (command.folder / "space.yaml").write_text("lr: {loguniform: [1e-3, 1e-1]}\n")
    arguments = (
        "--command", f"sh {command.folder / 'train.sh'} {{epochs}} {{lr}}", "--space", "space.yaml", "--objective",
        "val_loss min", "--trials", "5", "--epochs", "8", "--concurrency", "1", "--set", "resources.dashboard=false",
    )  # fmt: skip
    command.run("run", *arguments, "--name", "whole")
    command.kill_when("cut", lambda events: len(results(events)) >= 5, "run", *arguments, "--name", "cut")
    command.kill_when("cut", lambda events: len(results(events)) >= 12, "resume", "cut")
    said = command.run("resume", "cut")
    assert "best: trial" in said and "next:" in said and "predict" not in said
    assert outcome_of(command, "cut") == outcome_of(command, "whole")
    assert_logged_once(command, "train", "cut")
    logs = sorted((command.folder / "mlruns" / "searches" / "cut" / "trials").glob("*/output.log"))
    assert len(logs) == 5 and "@search" in logs[0].read_text()


@pytest.mark.slow
def test_command_script_changed(command):
    (command.folder / "train.sh").write_text(SHELL)
    (command.folder / "space.yaml").write_text("lr: {loguniform: [1e-3, 1e-1]}\n")
    command.run(
        "run", "--command", "sh train.sh {epochs} {lr}", "--space", "space.yaml", "--objective", "val_loss min",
        "--trials", "1", "--epochs", "1", "--name", "s", "--set", "resources.dashboard=false",
    )  # fmt: skip
    (command.folder / "train.sh").write_text(SHELL.replace("0.05", "0.01"))
    said = command.call("resume", "s", "--trials", "+1", code=2)
    assert "s: train.sh changed since the search began" in said and "resume(changed_code=True)" in said
    go_on = "import search; search.open('s').resume(changed_code=True, trials='2')"
    replace(command, program=("-c", go_on)).run()
    trials = [event["number"] for event in command.events("s") if event["event"] == "completed"]
    assert trials == [0, 1]
    assert "is finished" in command.call("resume", "s"), "the new script is the search's from then on"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "run: what? a TASK"),
        (("--command", "x {lr}"), "give its --space FILE and its --objective"),
        (("rnn", "--command", "x"), "a task or a command, not both"),
        (("--command", "x", "--space", "none.yaml", "--objective", "a min"), "--space none.yaml: cannot be read"),
        (("--command", "x {lr", "--space", "space.yaml", "--objective", "a min"), "command: {lr: expected '}'"),
    ],
)
def test_command_options_mistakes(command, arguments, said):
    output = command.call("run", *arguments, code=2)
    assert said in output and "Traceback" not in output


def test_command_unknown_argument_of_script(command):
    """The search ends and shows the script's own message."""
    (command.folder / "train.py").write_text("import argparse\n\nargparse.ArgumentParser().parse_args()\n")
    (command.folder / "space.yaml").write_text("lr: {loguniform: [1e-3, 1e-1]}\n")
    text = f"{sys.executable} {command.folder / 'train.py'} --lr {{lr}}"
    given = ("--command", text, "--space", "space.yaml", "--objective", "val_loss min", "--name", "s")
    output = command.run("run", *given, code=1)
    assert "error: unrecognized arguments: --lr" in output and "Traceback" not in output
    assert len([event for event in command.events("s") if event["event"] == "failed"]) <= 2, "those that ran"
