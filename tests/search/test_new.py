"""`search new`: a task of one's own that runs at once."""

import subprocess
import sys

import pytest

from search.new import new_from_function, new_task
from tests.conftest import ROOT, Command, outside
from trainables import InputError

TRAIN = """
def train(trial):
    for epoch in trial.epochs():
        yield {"val_loss": trial.params["x"] ** 2 / epoch}
"""


def test_files_are_named_after_the_task(tmp_path):
    made = new_task("two_moons", tmp_path / "there")
    assert sorted(str(path.relative_to(tmp_path / "there")) for path in made) == [
        "pyproject.toml", "tests/test_two_moons.py", "two_moons/__init__.py", "two_moons/data.py",
        "two_moons/model.py", "two_moons/task.py", "two_moons/two_moons.yaml",
    ]  # fmt: skip
    assert "class TwoMoons:" in (tmp_path / "there" / "two_moons" / "task.py").read_text()
    assert not [path for path in made if "mine" in path.read_text()]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mine", "expected a name for a Python package"),
        ("class", "expected a name for a Python package"),
        ("rnn", "there is a task of that name"),
        ("there", "there exists"),
    ],
)
def test_name_that_cannot_be_one_is_refused(tmp_path, name, message):
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match=message):
        new_task(name, tmp_path / "there" if name == "there" else tmp_path / "new")


def test_function_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    (tmp_path / "file.py").write_text(TRAIN)
    (tmp_path / "space.yaml").write_text("x: {uniform: [1, 2]}")
    given = tmp_path / "space.yaml", "val_loss min"
    with pytest.raises(InputError, match=r"expected FILE:FUNCTION; .*file\.py defines train"):
        new_from_function("mine", tmp_path / "new", f"{tmp_path}/file.py:fit", *given)
    with pytest.raises(InputError, match="cannot be read"):
        new_from_function("mine", tmp_path / "new", f"{tmp_path}/absent.py:train", *given)
    assert not (tmp_path / "new").exists()


def test_task_around_a_function_is_searched_as_it_was_made(command):
    (command.folder / "file.py").write_text(TRAIN)
    (command.folder / "space.yaml").write_text("x: {uniform: [1, 2]}")
    said = command.run(
        "new", "squares", "--from-function", "file.py:train", "--space", "space.yaml", "--objective", "val_loss min"
    )
    assert "python -m search run squares" in said
    env = {"PYTHONPATH": f"{ROOT}:{command.folder / 'squares'}", "SEARCH_TASKS": "squares=squares.task:TASK"}
    said = command.run("run", "squares", "--trials", "3", "--epochs", "2", "--name", "s", **env)
    assert "search s: task squares, 3 trials of up to 2 epochs" in said and "best: trial" in said
    assert "x  " in command.run("list", **env)


def test_functions_after_the_trials_are_those_of_the_file_or_a_file_to_change(tmp_path):
    (tmp_path / "file.py").write_text(TRAIN + "\n\ndef test(trial):\n    return {'loss': 1.0}\n")
    (tmp_path / "space.yaml").write_text("x: {uniform: [1, 2]}")
    new_from_function("mine", tmp_path / "new", f"{tmp_path}/file.py:train", tmp_path / "space.yaml", "val_loss min")
    task = (tmp_path / "new" / "mine" / "task.py").read_text()
    assert "from mine.function import test" in task and "test=test, export=export, predict=predict" in task
    assert "from mine.after import export" in task
    after = (tmp_path / "new" / "mine" / "after.py").read_text()
    assert all(f"def {name}(" in after for name in ("test", "export", "predict"))


@pytest.mark.nightly
def test_new_package_installs_passes_its_test_and_its_search_learns(tmp_path, command):
    command.run("new", "spirals")
    package, there = command.folder / "spirals", tmp_path / "site"
    install = ["-m", "pip", "install", "-q", "--no-deps", "--target", there, package]
    subprocess.run([sys.executable, *install], check=True, timeout=120)
    env = {"PYTHONPATH": f"{ROOT}:{there}"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=package, env=outside() | env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    at = Command(command.folder, {**command.env, **env}, command.empty_store)
    said = at.run("run", "spirals", "--name", "s", "--trials", "8", "--epochs", "12")
    (accuracy,) = [e["test"]["accuracy"] for e in at.events("s") if e["event"] == "final_finished"]
    assert accuracy > 0.8 and "test (trial" in said
    table = command.folder / "table.csv"
    table.write_text("a,b,label\n" + "".join(f"{n % 7},{n % 5},{'yes' if n % 7 > 3 else 'no'}\n" for n in range(200)))
    said = at.run("run", "spirals", "--data", "table.csv", "--trials", "2", "--epochs", "2", "--name", "t")
    assert "120 train, 40 val, 40 test" in said
