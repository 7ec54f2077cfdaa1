"""Creates a package with a task: a template to change, or a task around a training function."""

from __future__ import annotations

import ast
import keyword
import re
from pathlib import Path

import yaml

from search.core.config import parse_objective
from search.core.program_config import read_space
from search.core.space import parse_space
from trainables import InputError, task_names
from trainables.base.errors import first_line
from trainables.loops import OTHERS

#: The folder of the two template packages. A new package replaces the word `mine` by its name.
TEMPLATES = Path(__file__).parent


def new_task(name: str, target: Path) -> list[Path]:
    """Writes a package with a task that runs at once: data, model, task, space and a test, all to be changed.

    Args:
        name: the name of the task and of the package.
        target: the folder, which must not exist.

    Returns:
        The files that were written.

    Raises:
        InputError: the name is no package name or is taken, or the folder exists.
    """
    return _copy(name, target, TEMPLATES / "package", {})


def new_from_function(name: str, target: Path, function: str, space: Path, objective: str) -> list[Path]:
    """Writes a package with a task around a training function. The file of the function is copied.

    The functions `test`, `export` and `predict` of this file follow the trials. For those that it does not define, the
    package has a file `after.py` to change.

    Args:
        name, target: as for `new_task`.
        function: `file.py:name`.
        space: a YAML file with the hyperparameters, as of `run --command`.
        objective: a metric that the function yields with its direction, such as `val_loss min`.

    Returns:
        The files that were written.

    Raises:
        InputError: an argument is wrong.
    """
    file, _, called = function.partition(":")
    place = f"--from-function {function}"
    try:
        source = Path(file).read_text()
        defined = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise InputError(f"{place}: {file} cannot be read ({first_line(error)})") from error
    if called not in defined:
        raise InputError(f"{place}: expected FILE:FUNCTION; {file} defines {', '.join(defined) or 'no function'}")
    wanted = parse_objective(objective, "--objective")
    values = read_space(space)
    parse_space(values, f"--space {space}")
    words = {"FUNCTION": called, "METRIC": wanted.metric, "MODE": wanted.mode}
    words |= {f"{name.upper()}_MODULE": "function" if name in defined else "after" for name in OTHERS}
    words["TEST_OR_NONE"] = "test" if "test" in defined else "None"  # the template's own test measures nothing yet
    files = _copy(name, target, TEMPLATES / "function", words)
    (target / name / "function.py").write_text(source)
    (target / name / f"{name}.yaml").write_text(yaml.safe_dump({"data": {}, "space": values}, sort_keys=False))
    return [*files, target / name / "function.py", target / name / f"{name}.yaml"]


def _copy(name: str, target: Path, template: Path, words: dict[str, str]) -> list[Path]:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise InputError(f"new {name}: expected a name for a Python package: small letters, digits and _")
    if name in task_names():
        raise InputError(f"new {name}: there is a task of that name; choose another one")
    if target.exists():
        raise InputError(f"new {name}: {target} exists; choose another name or folder")
    words = {"mine": name, "Mine": "".join(part.capitalize() for part in name.split("_")), **words}
    made = []
    for path in sorted(template.rglob("*")):
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        text, place = path.read_text(), path.relative_to(template).as_posix()
        for word, meant in words.items():
            text, place = re.sub(rf"\b{word}\b", meant, text), re.sub(rf"(?<![a-z]){word}(?![a-z])", meant, place)
        made.append(target / place.removesuffix(".in"))
        made[-1].parent.mkdir(parents=True, exist_ok=True)
        made[-1].write_text(text)
    return made
