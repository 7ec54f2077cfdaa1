"""What was written by the commit before the code moved into rooms (e1334f1) works after it.

`before_rooms.tar.xz` holds a search that was killed, a registered model as MLflow kept it, a task of another package
that imports `trainables.task` and `trainables.training`, and what the old code made of the search when it went on.
"""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.conftest import ROOT, Command, outside
from tests.outcomes import assert_logged_once

MADE = Path(__file__).with_name("before_rooms.tar.xz")


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(MADE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_old_search_resumes_same_trials(before, ray_env, empty_store):
    (before / "store").rename(before / "mlruns")
    command = Command(before, ray_env, empty_store)
    old = len(command.events("killed"))
    command.run("resume", "killed")
    events = command.events("killed")
    trials = [{key: e[key] for key in ("number", "params", "seed")} for e in events if e["event"] == "trial"]
    assert trials == json.loads((before / "expected.json").read_text())["trials"]
    assert events[-1]["status"] == "finished"
    begun_again = {e["number"] for e in events[old:] if e["event"] == "result"}
    assert begun_again == {3, 4, 5}, "what was over before is not trained again"
    assert_logged_once(command, "rnn", "killed")


def test_old_model_predicts(before):
    code = (
        "import sys, json, mlflow, pandas, trainables\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "example = json.load(open(sys.argv[1] + '/input_example.json'))\n"
        "frame = pandas.DataFrame(example['data'], columns=example['columns'])\n"
        "assert 'model' not in trainables.__file__, trainables.__file__\n"
        "print(model.predict(frame)['prediction'].notna().all())"
    )
    model = before / "model" / "artifacts"
    environment = {**outside(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, model], env=environment, cwd=before, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith("True"), done.stdout + done.stderr


@pytest.mark.slow
def test_old_task_package(before, tmp_path, ray_env, empty_store):
    env = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(before / "package")]), "SEARCH_TASKS": "toy=toy_task:TASK"}
    command = Command(tmp_path, {**ray_env, **env, "RAY_ADDRESS": ""}, empty_store)
    output = command.run("run", "toy", "--name", "s", "--trials", "2", "--epochs", "2")
    assert "registry: toy version 1" in output
