"""Imports run one way, and each heavy library has its place."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("search/**/*.py"), *ROOT.glob("trainables/**/*.py")])
#: Everything else works without it, and so without the seconds that importing it takes.
WRITES_OR_READS_MLFLOW = ("tracking.py", "delivery.py", "runs.py", "registry.py", "served.py", "predict.py")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def top(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_import_rule(path):
    names, where = imported(path), path.relative_to(ROOT)
    if where.parts[0] == "trainables":
        allowed_ray = where.name == "trainable.py" and len(where.parts) == 2
        forbidden = {"search", "optuna", "mlflow"} | (set() if allowed_ray else {"ray"})
        assert not top(names) & forbidden, f"{where} may not import {top(names) & forbidden}"
        if len(where.parts) == 3:
            tasks = {p.parent.name for p in ROOT.glob("trainables/*/task.py")} - {where.parts[1]}
            others = {n for n in names if n.startswith("trainables.") and n.split(".")[1] in tasks}
            assert not others, f"{where} imports another task: {others}"
    elif where.name not in (
        "tracking.py",
        "delivery.py",
        "runs.py",
        "registry.py",
        "served.py",
        "results.py",
        "commands.py",
        "predict.py",
    ):
        assert "mlflow" not in top(names), f"{where}: MLflow is written by tracking.py, delivery.py and registry.py"


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom search.cli import app\n"
        "try: app(['run', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'pandas', 'numpy', 'omegaconf'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_files_stay_short():
    long = {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 340}
    assert not long
