"""Functions and commands after their trials: final training, test, model, predictions. Trials train in this process."""

import math
import shutil
import sys

import mlflow
import pandas as pd
import pytest
import torch

import search
from search import guard, session
from search.core.journal import read_events
from search.core.store import Store
from search.core.time_plan import FinalPlan
from search.live.console import _step as step_in_words
from search.observer import Observer
from search.tracking.client import mlflow_client
from tests.ray_here import ray_here
from trainables import InputError
from trainables.base import training
from trainables.loops.errors import TrainingError
from trainables.loops.trial import Trial

SETTINGS = {"startup_trials": 2}


@pytest.fixture
def store(tmp_path, empty_store, monkeypatch):
    folder = tmp_path / "mlruns"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEARCH_STORE", str(folder))
    monkeypatch.setattr(guard.Guard, "__enter__", lambda this: this)
    with ray_here():
        yield folder


class Said(Observer):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def train(trial):
    model = torch.nn.Linear(2, 1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2, generator=generator)
    y = x.sum(1, keepdim=True)
    rows = slice(0, 60 if trial.final else 40)
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.params["lr"])
    for epoch in trial.epochs(model=model, optimizer=optimizer):
        loss = (model(x[rows]) - y[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        (trial.folder / "epoch.txt").write_text(str(epoch))
        if trial.final:
            yield {"train_loss": loss}
        else:
            yield {"val_loss": (model(x[40:]) - y[40:]).square().mean()}


def measured(trial, model, optimizer):
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    return {"test_loss": (model(x) - x.sum(1, keepdim=True)).square().squeeze(1), "seen": float(trial.final)}


def written(trial, folder, model, optimizer):
    torch.save(model.state_dict(), folder / "weights.pt")
    return ["1,2", "0,0"]


def predicted(model, inputs):
    x = torch.tensor([[float(number) for number in one.split(",")] for one in inputs])
    if not isinstance(model, torch.nn.Module):
        weights, model = torch.load(model / "weights.pt", weights_only=True), torch.nn.Linear(2, 1)
        model.load_state_dict(weights)
    with torch.no_grad():
        return model(x).squeeze(1)


def searched(store, name="s", function=train, space=None, objective="val_loss min", **named):
    named = {"trials": 4, "epochs": 4, "concurrency": 1, "scheduler": "asha", "observer": Said()} | named
    settings = SETTINGS | named.pop("settings", {})
    return search.run(
        function, space or {"lr": search.loguniform(1e-3, 0.3)}, objective, name=name, settings=settings,
        resources={"dashboard": False, "gpus": 0}, **named,
    )  # fmt: skip


def events(store, name="s"):
    return list(read_events(store / "searches" / name / "journal.jsonl"))


def champion(store, task):
    client = mlflow_client(Store(store))
    version = client.get_model_version_by_alias(task, "champion")
    return version, client.get_model_version_download_uri(task, version.version)


def test_function_with_test_trains_finally_and_is_tested_once(store):
    found = searched(store, test=measured)
    finished = [event for event in events(store) if event["event"] == "final_finished"]
    assert len(finished) == 1 and finished[0]["test"] == found.test
    assert found.test["seen"] == 1.0, "trial.final is true"
    started = next(event for event in events(store) if event["event"] == "final_started")
    assert started["epochs"] == found.best.epoch, "the best number of epochs"
    curve = [event for event in events(store) if event["event"] == "final_result"]
    assert [event["epoch"] for event in curve] == list(range(1, found.best.epoch + 1))
    assert all("val_loss" not in event["metrics"] for event in curve)


def test_module_of_a_function_is_registered_by_mlflow_pytorch(store):
    found = searched(store, test=measured, predict=predicted)
    version, source = champion(store, "train")
    assert float(version.tags["test_loss"]) == found.test["loss"]
    module = mlflow.pytorch.load_model(source)
    assert isinstance(module, torch.nn.Linear)
    described = mlflow.models.Model.load(source)
    assert described.signature.inputs.to_dict()[0]["tensor-spec"]["shape"] == (-1, 2)
    assert "test_loss" in version.description and "mlflow.pytorch.load_model" in version.description
    predictions = search.predict("train", ["1,2", "0,0"])
    assert list(predictions.index) == ["1,2", "0,0"]
    with torch.no_grad():
        assert predictions["prediction"].tolist() == pytest.approx(
            module(torch.tensor([[1.0, 2], [0, 0]]))[:, 0].tolist()
        )


def test_files_of_export_are_registered_and_predict_gets_their_folder(store):
    searched(store, test=measured, export=written, predict=predicted)
    _, source = champion(store, "train")
    loaded = mlflow.pyfunc.load_model(source)
    assert [column.name for column in loaded.metadata.signature.inputs] == ["input"]
    assert [column.name for column in loaded.metadata.signature.outputs] == ["prediction"], "export returned an example"
    again = loaded.predict(pd.DataFrame({"input": ["1,2"]}))
    assert again["prediction"].tolist() == search.predict("train", "1,2")["prediction"].tolist()


def test_predict_without_the_function_says_what_is_missing(store):
    searched(store, test=measured, export=written)
    with pytest.raises(InputError, match=r"the search was given no function `predict\(model, inputs\)`"):
        search.predict("train", "1,2")


def test_function_without_test_says_so_and_retrains_when_asked(store, capsys):
    found = searched(store, observer=None)
    said = capsys.readouterr().out
    assert "nothing was tested: give search.run(..., test=test)" in said
    assert not [event for event in events(store) if event["event"].startswith("final")]
    found = found.retrain(observer=Said())
    assert found.test is None and found.status == "finished"
    version, _ = champion(store, "train")
    assert "test_loss" not in version.tags and "not tested" in version.description
    finished = [event for event in events(store) if event["event"] == "final_finished"]
    assert [event["test"] for event in finished] == [{}]
    with pytest.raises(InputError, match="finalists are compared on test"):
        found.retrain(finalists=2, observer=Said())
    found.report()
    tested = found.retrain(test=measured, observer=Said()).test
    assert tested["seen"] == 1.0
    assert found.retrain(observer=Said()).test == tested, "it is not tested again"
    assert [event["test"] for event in events(store) if event["event"] == "final_finished"] == [{}, tested]


def test_finalists_have_intervals_over_seeds_and_samples(store):
    found = searched(store, test=measured).retrain(finalists=2, seeds=2, observer=Said())
    decided = [event for event in events(store) if event["event"] == "decided"][-1]
    assert decided["resampled"] and decided["seeds"] == 2 and len(decided["finalists"]) == 2
    assert all(row["low"] < row["test"] < row["high"] for row in decided["finalists"])
    assert found.test["loss"] == pytest.approx(decided["test"]["loss"])


def test_audit_of_a_function_goes_on_in_the_folder_of_the_trial(store):
    searched(store, trials=6, settings={"audit_stopping": 1, "grace_period": 1})
    audits = [event for event in events(store) if event["event"].startswith("audit")]
    assert audits[-1]["event"] == "audit_finished" and audits[-1]["outcome"] == "completed"
    folder = store / "searches" / "s" / "trials" / f"{audits[-1]['number']:04d}"
    assert (folder / "epoch.txt").read_text() == "4"


@pytest.mark.parametrize("program", ["function", "command"])
def test_balanced_values_are_compared_over_seeds(store, program):
    space = {"lr": search.loguniform(1e-3, 0.3), "kind": search.choice(["a", "b"])}
    function, named = train, {"test": measured}
    if program == "command":
        function, named = shell("{kind}"), {}
    searched(
        store, function=function, space=space, settings={"balance": "kind", "compare_seeds": 2}, **named,
        **({"objective": "loss min"} if program == "command" else {}),
    )  # fmt: skip
    repeats = [event for event in events(store) if event["event"] == "repeat_finished"]
    assert sorted((event["value"], event["seed"]) for event in repeats) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert all(math.isfinite(event["test"]["loss"]) for event in repeats)
    assert [event for event in events(store) if event["event"] == "compared"]


SCRIPT = """
import json, os, sys
from pathlib import Path
lr, epochs = float(sys.argv[1]), int(sys.argv[2])
folder = Path(os.environ["SEARCH_FOLDER"])
for epoch in range(1, epochs + 1):
    print("@search", json.dumps({"progress": 0.5}))
    print("@search", json.dumps({"epoch": epoch, "loss": (lr - 0.1) ** 2 + 1 / epoch}))
if "--test" in sys.argv:
    assert os.environ["SEARCH_FINAL"] == "1"
    (folder / "model.txt").write_text(str(lr))
    print("@search", json.dumps({"test_loss": 7 * lr, "accuracy": 0.5}))
"""


def shell(extra=""):
    from pathlib import Path

    Path("program.py").write_text(SCRIPT)
    text = f"{sys.executable} program.py {{lr}} {{epochs}} {extra}"
    return search.Command(text, final=f"{text} --test")


def of_folder(folder, inputs):
    return {"length": [len(one) * float((folder / "model.txt").read_text()) for one in inputs]}


def test_final_command_gives_test_figures_and_a_model(store):
    found = searched(store, function=shell(), objective="loss min", predict=of_folder)
    lr = found.best.params["lr"]
    assert found.test == {"loss": pytest.approx(7 * lr), "accuracy": 0.5}
    curve = [event["epoch"] for event in events(store) if event["event"] == "final_result"]
    assert curve == list(range(1, found.best.epoch + 1))
    assert search.predict("program", "abc")["length"].tolist() == pytest.approx([3 * lr])
    folder = store / "searches" / "s" / "final"
    assert [path.name for path in folder.glob("*/model/files/*")] == ["model.txt"], "the log is no part of the model"


def test_final_command_that_fails_says_its_last_lines(store):
    command = search.Command(shell().text, final=f"{sys.executable} program.py {{lr}} nonsense")
    with pytest.raises(
        InputError, match=r"the final training failed: the final command ended with code 1; .*ValueError"
    ):
        searched(store, function=command, objective="loss min")
    assert events(store)[-1]["status"] == "failed"


def broken(trial, model, optimizer):
    raise ZeroDivisionError("mine")


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (broken, r"s: the final training failed: ZeroDivisionError: mine .*test_own_final.py:\d+"),
        (lambda trial, **parts: 0.5, "`test` returned 0.5: expected a dictionary of test figures"),
        (lambda trial, **parts: {"accuracy": 0.5}, "without the objective 'loss' on test: name it 'test_loss'"),
        (lambda trial, **parts: {"loss": "low"}, "for 'loss' 'low': expected a number, or an array"),
    ],
)
def test_mistake_in_test_is_one_line(store, test, message):
    with pytest.raises(InputError, match=message) as error:
        searched(store, trials=1, epochs=1, test=test)
    assert "\n" not in str(error.value)


def test_functions_after_the_trials_have_their_part_in_the_fingerprint(store):
    found = searched(store, test=measured, predict=predicted)
    assert search.open("s").resume(train, trials="+1", observer=Said()).status == "finished", "the others stay"
    with pytest.raises(InputError, match="test: 3: expected a function"):
        searched(store, "other", test=3)
    with pytest.raises(InputError, match="a command has no `test`"):
        searched(store, "other", function=shell(), test=measured)
    assert found.name == "s"


@pytest.mark.parametrize("given", [(3, 2), ("a", 2), (1, 0), (-1, 2)])
def test_progress_that_is_none_is_refused(given):
    trial = Trial({}, 0, 1, torch.device("cpu"))
    with pytest.raises(TrainingError, match=r"trial.progress\(.*\): expected two numbers"):
        trial.progress(*given)


def test_progress_reaches_those_who_observe_the_epoch():
    steps = []
    with training.observed(lambda step: steps.append((step.done, step.of))):
        trial = Trial({}, 0, 1, torch.device("cpu"))
        trial.progress(0, 4)
        trial.progress(3, 4)
    assert steps == [(3, 4)], "nothing is known at the beginning of an epoch"


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"done": 0.4, "of": 1.0}, "40% of its epoch, 0:10 to go"),
        ({"done": 40, "of": 366}, "step 40 of 366, 0:10 to go"),
        ({"done": 40, "of": 366, "loss": 5.2, "samples_per_second": 2600.0},
         "step 40 of 366, loss 5.200, 2600 samples/s, 0:10 to go"),
    ],
)  # fmt: skip
def test_progress_of_a_long_epoch_in_words(about, said):
    assert step_in_words({"event": "progress", "number": 0, "epoch": 1, "left": 10.0, **about}) == said


def test_budget_without_room_for_the_final_command_says_so(store, monkeypatch):
    monkeypatch.setattr(session, "plan_final", lambda *_: FinalPlan(0, False, None, 0.0))
    said = Said()
    found = searched(store, function=shell(), objective="loss min", observer=said)
    assert found.status == "finished" and found.test is None
    assert any("holds no final training" in line and "retrain s" in line for line in said.lines)
    assert found.retrain(observer=Said()).test["accuracy"] == 0.5


def test_budget_without_room_tests_the_own_model_of_a_function(store, monkeypatch):
    monkeypatch.setattr(session, "plan_final", lambda *_: FinalPlan(0, False, None, 0.0))
    found = searched(store, test=measured)
    assert found.test["seen"] == 0.0, "it is the model of the trial, which trained on train alone"
    assert not [event for event in events(store) if event["event"] == "final_result"]
