"""Imports run one way: each room uses the rooms below it, and each heavy library has its room."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEMPLATES = ROOT / "search" / "new"
FILES = sorted(
    path
    for room in ("search", "trainables")
    for path in ROOT.glob(f"{room}/**/*.py")
    if path.parent == TEMPLATES or TEMPLATES not in path.parents
)
#: The rooms from the lowest to the highest; each may import those that stand before it. A file that is no room's own
#: (`search/session.py`) is a room of itself.
ROOMS = [
    "trainables.base",
    "trainables.text",
    "trainables",
    "search",
    "search.output",
    "search.core",
    "search.callbacks",
    "search.gpu",
    "search.runtime",
    "search.final",
    "search.reports",
    "search.tracking",
    "search.watch",
    "search.guard",
    "search.exchange",
    "search.housekeeping",
    "search.new",
    "search.observer",
    "search.outcome",
    "search.session",
    "search.preparation",
    "search.runs",
    "search.resume",
    "search.programs",
    "search.live",
    "search.specs",
    "search.arguments",
    "search.result",
    "search.study",
    "search.api",
    "search.cli",
    "search.__main__",
]
#: Where alone these may be imported.
HOMES = {
    "ray": ("search.runtime", "trainables.base.trainable", "trainables.loops.ranks"),
    "mlflow": ("search.tracking", "trainables.loops.models"),
    "optuna": ("search.core.searchers", "search.exchange.studies"),
    "rich": ("search.cli", "search.live", "search.gpu.examine"),
    "typer": ("search.cli",),
    "starlette": ("search.watch",),
    "uvicorn": ("search.watch",),
}
#: Modules outside `search.cli` and `search.live` that print, with the reason.
PRINTING = {
    "search.guard": "is a process of its own, which speaks after the driver died",
    "search.gpu.examine": "shows the table of `doctor --gpu` on the console that the command gives it",
    "trainables.loops.trial": "writes the error of a forked child to the output of its trial, as Python does",
}
TASKS = {path.parent.name for path in ROOT.glob("trainables/*/task.py")} - {"base", "text"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in FILES}


def imported(path: Path) -> set[str]:
    """The modules that a file imports anywhere in it, as `a.b` also where it says `from a import b`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else str(node.module) for name in inner}
    return names


def room_of(module: str) -> str:
    """The longest name of a room that the module's begins with; of a task, `trainables` is the room."""
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len)


def wrong_imports(path: Path) -> list[str]:
    """What a file may not import, with the rule that forbids it."""
    module, found = module_of(path), []
    for name in sorted(imported(path)):
        library = name.split(".")[0]
        homes = HOMES.get(library)
        if homes and not any(f"{module}.".startswith(f"{home}.") for home in homes):
            found.append(f"{name}: only {' and '.join(homes)} may")
        if library not in ("search", "trainables"):
            continue
        mine, theirs = room_of(module), room_of(name)
        # The packages' own `__init__` hold what everybody may ask for, and the addresses of what stands above.
        if not {name, module} & {"search", "trainables"} and ROOMS.index(theirs) > ROOMS.index(mine):
            found.append(f"{name}: {theirs} is above {mine}")
        task = {*module.split(".")[1:2]} & TASKS
        if task and {*name.split(".")[1:2]} & (TASKS - task):
            found.append(f"{name}: a task imports no other task")
    return found


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_each_room_uses_the_rooms_below_it(path):
    assert not wrong_imports(path)


@pytest.mark.parametrize(
    ("place", "line", "rule"),
    [
        ("search/core/config.py", "from search.runtime import trials", "search.runtime is above search.core"),
        ("search/core/state.py", "from search.reports.importance import importances", "is above search.core"),
        ("search/final/audit.py", "import ray", "only search.runtime"),
        ("search/reports/report.py", "from mlflow.tracking import MlflowClient", "only search.tracking"),
        ("trainables/base/files.py", "from trainables.text import tables", "trainables.text is above trainables.base"),
        ("trainables/rnn/task.py", "from trainables.windows import data", "no other task"),
        ("trainables/base/task.py", "import search.core.config", "search.core is above trainables.base"),
    ],
)
def test_an_import_that_is_turned_round_is_found(tmp_path, monkeypatch, place, line, rule):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert any(rule in found for found in wrong_imports(path))


def test_only_the_command_line_imports_the_command_line():
    users = {module_of(path) for path in FILES if any(f"{name}.".startswith("search.cli.") for name in imported(path))}
    assert {module for module in users if not f"{module}.".startswith("search.cli.")} == {"search.__main__"}


def prints(path: Path) -> list[str]:
    """The calls in a file that print: `print(...)`, `console.print(...)`, `sys.stdout.write(...)`, `Console(...)`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("print", "Console", "Screen") or called.endswith((".print", "stdout.write", "stderr.write")):
                found.append(f"line {node.lineno}: {called}")
    return found


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_only_the_command_line_and_the_live_table_print(path):
    module = module_of(path)
    if not f"{module}.".startswith(("search.cli.", "search.live.")):
        assert bool(prints(path)) == (module in PRINTING), prints(path)


def test_no_module_imports_itself_through_others():
    uses = {module_of(path): imported(path) & MODULES for path in FILES}
    # What stands in a function or under TYPE_CHECKING counts too: a circle is a circle for who reads.
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join([*above[above.index(module) :], module])
        if module not in done:
            for other in sorted(uses[module] - {module, "search", "trainables"}):
                visit(other, (*above, module))
            done.add(module)

    for module in sorted(uses):
        visit(module, ())


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom search.cli.app import app\n"
        "try: app(['run', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'pandas', 'numpy', 'omegaconf'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_core_imports_nothing_heavy():
    code = (
        "import sys, importlib, pkgutil, search.core as core\n"
        "for found in pkgutil.walk_packages(core.__path__, 'search.core.'): importlib.import_module(found.name)\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'pandas', 'rich', 'typer', 'plotly'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
