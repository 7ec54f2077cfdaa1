"""What people write against `import search`: typed programs, the examples of docstrings, notebooks."""

import inspect
import subprocess
import sys
import tomllib

import pytest

import search
from tests.conftest import ROOT, outside

#: Uses every public name, in types that `mypy --strict` has to find right.
TYPED = """
from collections.abc import Iterator

import torch

import search


def train(trial: search.Trial) -> Iterator[dict[str, float]]:
    model = torch.nn.Linear(2, 1).to(trial.device)
    for epoch in trial.epochs(model=model):
        yield {"val_loss": model(torch.randn(4, 2)).sum().item() + epoch + trial.params["lr"]}


found: search.SearchResult = search.run(
    train,
    space={
        "lr": search.loguniform(1e-4, 1e-1, prior=1e-3), "width": search.integer(16, 64, step=16),
        "kind": search.choice(["a", "b"]), "dropout": search.uniform(0, 0.5, when={"kind": "a"}),
    },
    objective="val_loss min", trials=2, epochs=2, resources={"cpus": 1},
)
best: search.BestTrial = found.best
value: float = best.value
print(value, best.params["lr"], found.trials().shape, found.curves().shape)
names: list[str] = [*search.searches(), *search.tasks(), search.open("mine").resume(trials="+2").name]
command = search.Command("python train.py --lr {lr}", pattern=r"loss (?P<loss>\\S+)")
search.run(command, {"lr": search.loguniform(1e-4, 1e-1)}, "loss min")


class Lines(search.Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


final = search.run("windows", data="photos", time_budget="15m", set={"lr": 0.01}, observer=Lines())
accuracy: float = (final.test or {})["accuracy"]
pages: list[str] = [str(final.retrain(finalists=3).report()), *final.why(0)]
study: search.SharedStudy = search.open("s", space={"lr": 0.1}, objective="loss min", trials=9, epochs=1)
asked: search.AskedTrial | None = study.ask()
decision: search.Decision = study.tell(0, 1, {"loss": 0.5})
hours: tuple[float, float, float] = search.plan("rnn", trials=8).hours
print(search.compare("windows").trials.shape, search.predict("windows", ["a.png"]).shape, search.promote("windows", 2))
freed: int = search.gc(dry_run=True).bytes + search.delete(search.rename("mine", "ours").name).bytes
print(freed, [(one.name, one.best) for one in search.ls()], [(size.kind, size.bytes) for size in search.du()])
try:
    search.open("none")
except (search.InputError, search.TrainingError) as error:
    print(error, names)
except search.SearchError as error:
    print(error, accuracy, pages, hours)
"""
#: Runs the examples of the public names in their order, as they build on the search that the first one makes.
EXAMPLES = """
import doctest, sys
import torch, search
names, failed = ["run", *(name for name in search.__all__ if name != "run")], 0
finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
for name in names:
    globs = {"search": search, "torch": torch, **{n: getattr(search, n) for n in search.__all__}}
    for test in finder.find(getattr(search, name), name, globs=globs):
        failed += runner.run(test).failed
sys.exit(failed)
"""


def test_every_public_name_has_an_example():
    for name in search.__all__:
        assert ">>> " in (inspect.getdoc(getattr(search, name)) or ""), name


@pytest.mark.slow
def test_examples_of_the_public_names_do_what_they_say(tmp_path, ray_env):
    environment = outside() | ray_env | {"PYTHONPATH": str(ROOT), "SEARCH_STORE": str(tmp_path / "store")}
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLES], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_program_of_a_user_passes_strict_type_checks(tmp_path):
    (tmp_path / "mine.py").write_text(TYPED)
    used = [name for name in search.__all__ if f"search.{name}" not in TYPED]
    assert not used, "the program has to use every public name"
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    skipped = [name for override in overrides for name in override["module"]]
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = True\nfollow_imports = silent\n"
        + "".join(f"[mypy-{name}]\nignore_missing_imports = True\nfollow_imports = skip\n" for name in skipped)
    )

    def checked(name):
        return subprocess.run(
            [sys.executable, "-m", "mypy", name],
            cwd=tmp_path, env=outside() | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip

    done = checked("mine.py")
    assert done.returncode == 0, done.stdout
    (tmp_path / "wrong.py").write_text(TYPED.replace("trials=2", 'trials="two"'))
    wrong = checked("wrong.py")
    assert 'Argument "trials" to "run" has incompatible type "str"' in wrong.stdout


@pytest.mark.slow
def test_search_in_a_notebook(tmp_path, ray_env, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for key, value in {**ray_env, "PYTHONPATH": str(ROOT), "SEARCH_STORE": str(tmp_path / "store")}.items():
        monkeypatch.setenv(key, value)
    cells = [
        "import search\n\nscale = 2.0",
        "def train(trial):\n    for epoch in trial.epochs():\n"
        "        yield {'loss': scale * trial.params['x'] / epoch}",
        "found = search.run(train, {'x': search.uniform(1, 2)}, 'loss min', trials=3, epochs=2, name='mine')",
        "print(found.best.value == scale * found.best.params['x'] / 2, found.trials().shape, found.status)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = notebook.cells[2].outputs
    lines = "".join(one["text"] for one in outputs if one.get("name") == "stdout")
    assert lines.startswith("search mine: task train, 3 trials of up to 2 epochs") and "best: trial" in lines
    (table,) = (one["data"]["text/html"] for one in outputs if one["output_type"] == "display_data")
    assert "3 trials: 1 completed, 2 stopped early" in table, "the live table, as it ended"
    assert notebook.cells[3].outputs[0]["text"] == "True (3, 6) finished\n"
    assert "def train(trial):" in (tmp_path / "store" / "functions" / "mine" / "train.py").read_text()
