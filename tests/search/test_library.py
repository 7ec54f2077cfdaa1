"""The library returns objects and never prints; the command line is one program that uses it."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import search
from search.cli.app import app
from search.cli.commands import exit_code
from search.core.config import load_config
from search.core.store import Store
from search.live.outcome import print_outcome
from search.observer import Observer
from search.resume import resume
from search.runs import RunOptions, run
from tests.conftest import ROOT, outside
from tests.search.test_reading import kept
from trainables import InputError

#: Runs a task, and asks for everything that the Python API gives of it. Ray is replaced by tests/ray_here.py.
PROGRAM = """
import sys
import pandas as pd
import search
from tests.ray_here import ray_here


class Lines(search.Observer):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


observer, events = Lines(), []
small = {"data.demo.train": 100, "data.demo.test": 20, "data.demo.longest": 10, "variant": "vanilla",
         "search.compare_seeds": 0, "search.balance": None}
with ray_here():
    found = search.run(
        "rnn", name="s", trials=1, epochs=1, scheduler="none", set=small, resources={"gpus": 0, "dashboard": False},
        observer=observer, callbacks=[lambda event, state: events.append(event["event"])], start=[{"lr": 0.005}],
    )
    again = found.resume(trials="+1", observer=observer)
assert found.status == again.status == "finished" and (len(found.trials()), len(again.trials())) == (1, 2)
assert found.trials()["lr"].tolist() == [0.005]
assert found.test["mse"] > 0 and found.best.epoch == 1
assert observer.lines[0].startswith("search s: task rnn, 1 trial of up to 1 epoch,"), observer.lines
assert events[:2] == ["session", "trial"] and events[-1] == "ended", events
assert found.report().name == "report.html" and any("proposed" in line for line in again.why(0))
assert search.compare("rnn").searches["search"].tolist() == ["s"]
pd.DataFrame([[0.1 * k] * 10 for k in range(5)], columns=[f"x{i}" for i in range(10)]).to_csv("new.csv", index=False)
predictions = search.predict("rnn", ["new.csv"])
assert len(predictions) == 1 and predictions["prediction"].notna().all()
assert "is the champion by hand" in search.promote("rnn", 1)
assert not [name for name in sys.modules if name.startswith("search.cli")]
"""


#: Searches a function and a command from starting configurations, at once and in two sessions.
STARTING = r"""
import search
from tests.ray_here import ray_here


def train(trial):
    yield {"loss": trial.params["x"] + trial.params["width"] / 100}


command = search.Command("echo loss {x} width {width}", pattern=r"loss (?P<loss>\S+)")
given = dict(space={"x": search.uniform(0, 1), "width": search.integer(1, 9)}, objective="loss min", epochs=1,
             searcher="tpe", scheduler="none", start=[{"x": 0.5, "width": 3}, {"x": 0.25}], observer=search.Observer(),
             resources={"gpus": 0, "dashboard": False})
with ray_here():
    for program in (train, command):
        name = getattr(program, "__name__", "command")
        whole = search.run(program, **given, trials=4, name=f"whole-{name}").trials()
        begun = search.run(program, **given, trials=2, name=f"begun-{name}")
        begun = begun.resume(trials=4, observer=search.Observer())
        hyperparameters = ["x", "width", "loss"]
        assert whole["x"].tolist()[:2] == [0.5, 0.25] and whole["width"][0] == 3
        assert begun.trials()[hyperparameters].equals(whole[hyperparameters]), (begun.trials(), whole)
        assert begun.why(0)[0] == "proposed: starting configuration 0"
"""


def test_function_and_command_begin_with_the_starting_configurations_and_resume_to_the_same_bits(tmp_path, empty_store):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mlflow.db").write_bytes(empty_store.read_bytes())
    environment = outside() | {"PYTHONPATH": str(ROOT), "SEARCH_STORE": str(tmp_path / "store")}
    (tmp_path / "program.py").write_text(STARTING)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_task_runs_predicts_reports_and_compares_without_the_command_line(tmp_path, empty_store):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mlflow.db").write_bytes(empty_store.read_bytes())
    environment = outside() | {"PYTHONPATH": str(ROOT), "SEARCH_STORE": str(tmp_path / "store")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == ""


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    kept(store, "s", load_config("rnn", ["search.epochs=1", "search.trials=1"]))
    return store


def test_finished_search_is_returned_and_printed_by_the_command_line_alone(store, monkeypatch, capsys):
    monkeypatch.setattr("search.tracking.results.has_whole", lambda *given: True)
    outcome = resume(store, "s", {}, Observer())
    assert (outcome.state.status, outcome.trained, outcome.note) == ("finished", False, "search s is finished")
    assert capsys.readouterr() == ("", "")
    print_outcome(Console(width=200), outcome)
    printed = capsys.readouterr().out
    assert printed.startswith("search s is finished\nbest: trial 0, val") and "python -m search report s" in printed
    assert exit_code(outcome) == 0


def test_refused_run_prints_nothing(store, capsys):
    with pytest.raises(InputError, match="a search of that name exists"):
        run(store, load_config("rnn"), RunOptions(name="s"), Observer())
    assert capsys.readouterr() == ("", "")


def test_result_reads_its_journal_once(store, monkeypatch):
    found = search.open("s", store.root)
    monkeypatch.setattr("search.core.replay.read_events", None)
    assert (found.status, found.best.value, len(found.trials()), len(found.curves())) == ("finished", 0.5, 1, 1)
    assert found.test is None and found.best.number == 0 and repr(found)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": "rmn"}, r"task 'rmn': unknown; there are .*did you mean 'rnn'\?"),
        ({"train": "rnn", "objective": "mse max"}, "objective='mse max': the task rnn has the objective mse min"),
        ({"train": "rnn", "set": {"variant": "vannila"}}, r"variant='vannila': .*vanilla, truncated, padded"),
        ({"train": "rnn", "set": {"search.trails": 3}}, "trails=3: search.trails: unknown key"),
        ({"train": "rnn", "space": {"lr": {"uniform": [2, 1]}}}, "lr"),
        ({"train": "rnn", "trials": 0}, "trials=0: input should be greater than"),
        ({"train": print}, "space: missing; give the hyperparameters"),
        ({"train": print, "space": {}}, "objective: missing; give the metric to optimize"),
        ({"train": print, "space": {}, "objective": "loss min", "data": "x"}, "data='x': a training function reads"),
        ({"train": "rnn", "name": 3}, r"^--name 3: allowed are up to 100 letters"),
        ({"train": "rnn", "name": Path("x")}, r"^--name PosixPath\('x'\): allowed are"),
        ({"train": "rnn", "epochs": [3]}, r"^epochs=\[3\]: input should be a valid integer"),
        ({"train": "rnn", "epochs": "many"}, r"^epochs='many': input should be a valid integer"),
        ({"train": "rnn", "epochs": math.inf}, r"^epochs=inf: input should be a finite number"),
        ({"train": "rnn", "trials": 10**5000}, r"search.trials: a whole number of 16610 bits: allowed are up to 1023"),
        ({"train": "rnn", "settings": [1]}, r"^settings=\[1\]: expected a mapping, such as \{'grace_period': 3\}"),
        ({"train": "rnn", "resources": 3}, r"^resources=3: expected a mapping, such as \{'cpus': 2\}"),
        ({"train": "rnn", "set": ["lr=1"]}, r"^set=\['lr=1'\]: expected a mapping, such as \{'lr': 0.01\}"),
        ({"train": "rnn", "set": {3: 1}}, r"^3=1: 3: unknown key"),
        ({"train": "rnn", "set": {"search": 3}}, r"^search=3: search is a section; set one of its keys: searcher, "),
        ({"train": "rnn", "set": {"resources": {}}}, r"^resources=\{\}: resources is a section; set one of its keys"),
        ({"train": "rnn", "space": [1]}, r"^space=\[1\]: expected a mapping, such as \{'lr': search.uniform\(0, 1\)\}"),
        (
            {"train": print, "space": [("lr", 1)], "objective": "loss min"},
            r"^space=\[\('lr', 1\)\]: expected a mapping",
        ),
        ({"train": "rnn", "callbacks": print}, r"^callbacks=<built-in function print>: expected a list of functions"),
        ({"train": "rnn", "callbacks": "x"}, r"^callbacks='x': expected a list of functions"),
        ({"train": "rnn", "callbacks": [3]}, r"^callbacks: 3: expected a function `callback\(event, state\)`"),
        ({"train": "rnn", "n_trials": 2}, r"^n_trials=2: unknown argument; did you mean 'trials'\?"),
        (
            {"train": "rnn", "grace_period": 2},
            r"^grace_period=2: unknown argument; give settings=\{'grace_period': 2\}",
        ),
        ({"train": "rnn", "gpus": 0}, r"^gpus=0: unknown argument; give resources=\{'gpus': 0\}"),
    ],
)
def test_wrong_argument_of_run_is_named(tmp_path, given, message):
    with pytest.raises(InputError, match=message) as raised:
        search.run(**given, store=tmp_path, observer=Observer())
    assert isinstance(raised.value, search.SearchError) and isinstance(raised.value, ValueError)


@pytest.mark.parametrize("given", [{"callbacks": print}, {"callbacks": "x"}])
def test_wrong_callbacks_of_a_later_session_are_refused(store, given):
    for method in (search.open("s", store.root).resume, search.open("s", store.root).retrain):
        with pytest.raises(InputError, match=r"^callbacks="):
            method(**given, observer=Observer())


@pytest.mark.parametrize("number", ["3", 1.5, True, None, -1])
def test_number_of_a_trial_or_of_a_training_is_a_whole_number(store, number):
    found = search.open("s", store.root)
    with pytest.raises(InputError, match=rf"^trial={number!r}: expected a whole number >= 0"):
        found.why(number)
    with pytest.raises(InputError, match=rf"^finalists={number!r}: expected a whole number >= 1"):
        found.retrain(finalists=number)


def test_one_path_or_text_is_predicted_without_a_list(monkeypatch, tmp_path):
    taken = []
    monkeypatch.setattr("search.tracking.predict.predict_inputs", lambda store, task, inputs: taken.append(inputs))
    for inputs in ("five.csv", Path("five.csv"), ["five.csv"]):
        search.predict("rnn", inputs, store=tmp_path)
    assert taken == [["five.csv"]] * 3


def test_number_of_epochs_may_be_a_text(store):
    assert load_config("rnn", [], {"search.epochs": "3"}).search.epochs == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "../x"], "error: --name '../x': allowed are up to 100 letters"),
        (["--name", "s"], "error: --name s: a search of that name exists"),
        (["--data", "nope.csv"], "error: --data nope.csv: no such file or folder"),
        (["--from", "nope"], "error: nope: no search of that name in"),
        (["--from", "s", "--searcher", "random"], "error: --from s: the random searcher learns nothing"),
        (["--store", "/dev/null"], "error: /dev/null: results cannot be kept there"),
        (["--storage", "s4://x"], "error: --storage s4://x: cannot be used: ValueError: Protocol not known: s4"),
        (["--storage", "/dev/null/x"], "error: --storage /dev/null/x: cannot be used: /dev/null is no folder"),
        (
            ["--gpus", "2"],
            "error: configs/rnn.yaml: resources.gpus: 2: rnn trains in one process on at most",
        ),
        (["--set", "resources.processes=2"], "error: configs/rnn.yaml with --set: resources.processes: 2: rnn trains"),
        (["--set", "data.val_fraction=1.5"], "error: --set data.val_fraction=1.5: 1.5: expected a number > 0 and < 1"),
        (["--set", "data.val_fraction=0"], "error: --set data.val_fraction=0: 0: expected a number > 0 and < 1"),
    ],
)
def test_dry_run_refuses_what_run_refuses(store, capsys, options, message):
    arguments = ["run", "rnn", "--dry-run", *options]
    if "--store" not in options:
        arguments += ["--store", str(store.root)]
    before = sorted(store.root.rglob("*"))
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.output.replace("\n", " ")[: len(message)]) == (2, message), result.output
    assert sorted(store.root.rglob("*")) == before
