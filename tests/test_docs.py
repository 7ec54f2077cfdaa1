"""What the documentation says is true: links, names, generated pages, and claims about the code."""

import ast
import re
import shlex
import subprocess
import sys
import typing
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import trainables
from docs import generate
from search.cli.app import app
from search.core.config import load_config
from search.core.searchers import priors
from search.core.space import parse_space
from tests.pages import LAB_NOTES, PAGES, ROOT, commands, programs
from tests.test_imports import FILES, MODULES, ROOMS, imported, module_of, room_of
from trainables import TASKS


def anchors(page: Path) -> set[str]:
    """As repository browsers make them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *LAB_NOTES], ids=lambda p: p.name)
def test_links(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


GENERATED = generate.generated()


@pytest.mark.parametrize("path", GENERATED, ids=lambda p: p.name)
def test_generated_files(path):
    assert path.read_text() == GENERATED[path], "run `python -m docs.generate`"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_named_files_exist(page):
    for name in re.findall(
        r"`((?:search|trainables|configs|tests|benchmarks|examples|docs)/[\w./-]+\.\w+)`", page.read_text()
    ):
        placeholder = "TASK" in name or Path(name).stem.isupper()
        assert placeholder or (ROOT / name).exists(), f"{page.name}: {name}"


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def test_drawing_shows_packages_and_imports():
    drawing = ARCHITECTURE.split("```mermaid")[1].split("```")[0]
    boxes = {short: f"search.{short}" for short in re.findall(r"\b(\w+)\[\"", drawing)}
    boxes |= {"base": "trainables.base", "text": "trainables.text", "tasks": "trainables"}
    rooms = {generate.BOXES.get(room, room) for room in ROOMS}
    assert rooms - {"search", "search.__main__"} == set(boxes.values())
    box_of = generate.box_of
    imports = {(box_of(module_of(path)), box_of(name)) for path in FILES for name in imported(path) & MODULES}
    arrows = re.findall(r"^ *(\w+) --> (\w+)$", drawing, re.MULTILINE)
    shown = {(boxes[a], boxes[b]) for a, b in arrows}
    assert shown and shown <= imports, f"no such import: {shown - imports}"
    order = [room for room in ROOMS if room in boxes.values()]
    assert all(order.index(a) > order.index(b) for a, b in shown)


def rows_below(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of docs/architecture.md."""
    section = ARCHITECTURE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]


def names_in(path: Path) -> set[str]:
    """The classes, functions and methods (`Class.method`) of a file."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


def test_questions_of_a_new_maintainer():
    rows = rows_below("Where is ...?")
    assert len(rows) >= 15
    for question, answer in rows:
        paths = re.findall(r"`((?:search|trainables|configs)/[\w./-]+\.\w+)`(?:: `([\w.]+)`)?", answer)
        assert paths or "`search/" in answer or "`trainables/" in answer, question
        for name, symbol in paths:
            if "TASK" not in name:
                assert (ROOT / name).exists(), f"{question} {name}"
                assert not symbol or symbol in names_in(ROOT / name), f"{question} {name}: {symbol}"


def test_libraries_of_packages():
    """The table of packages names each library beside the only package that imports it."""
    homes = {"typer": "cli", "rich": "live", "plotly": "reports", "mlflow": "tracking", "ray": "runtime"}
    shown = {cells[0].strip("`/"): cells[-1] for cells in rows_below("Packages")}
    for library, home in homes.items():
        assert library in shown[f"search/{home}"].lower()
        if library == "rich":  # the commands print with it too
            continue
        users = {room_of(module_of(p)) for p in FILES if any(n.split(".")[0] == library for n in imported(p))}
        assert {user for user in users if user.startswith("search.")} == {f"search.{home}"}, library


def test_set_keys_exist():
    for page in PAGES:
        for task, key in re.findall(r"search run (\w+)[^\n`|]*?--set '?([\w.]+)=", page.read_text()):
            if task in TASKS:
                # this key adds others: the section `given` of wikitext.yaml
                raw = load_config(task, ["model.pretrained=some/id"] if key == "model.pretrained" else []).raw
                parts = key.split(".") if key.split(".")[0] in raw else ["space", *key.split(".")]
                for part in parts:
                    assert part in raw, f"{page.name}: --set {key}"
                    raw = raw[part]


def test_set_examples_of_own_data():
    """Each row of the table of `--set` is a valid change of the task rnn."""
    page = (ROOT / "docs" / "howto" / "own-data.md").read_text()
    rows = re.findall(r"^\| `--set (.+?)` \|", page, re.MULTILINE)
    assert len(rows) == 4
    for text in rows:
        load_config("rnn", [shlex.split(text)[0]], profile="data")


# Help texts


COMMANDS = dict(generate.commands())


def options() -> list[tuple[str, typing.Any]]:
    """Every option and argument with its command."""
    return [(name, option) for name, command in COMMANDS.items() for option in command.params]


def test_every_option_has_a_help_text():
    for command, option in options():
        assert option.help, f"{command} {option.name}"
        assert "[default" not in option.help, f"{command} {option.name}: rich removes it; use show_default"
        assert option.help[0].isupper() or option.help.startswith("URI"), f"{command} {option.name}"


def test_options_of_run_are_grouped():
    panels = Counter(option.rich_help_panel for name, option in options() if name == "run" and option.opts[0][0] == "-")
    assert {"Data", "Search", "Early stopping", "Budget", "Resources", "Output"} <= set(panels)
    assert max(panels.values()) <= 8
    assert panels[None] == 0


@pytest.mark.parametrize("command", ["run", "resume", "retrain", "compare"])
def test_help_shows_whole_texts_and_defaults(command):
    """What typer prints holds each help text and default: no brackets are taken for markup."""
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"})
    shown = re.sub(r"[\s│]+", " ", result.output)
    for name, option in options():
        if name != command or option.param_type_name == "argument":
            continue
        assert " ".join(option.help.split()) in shown, option.name
        if isinstance(option.show_default, str):
            assert f"[default: ({option.show_default})]" in shown, option.name


def test_help_imports_no_settings():
    code = (
        "import sys\nfrom search.cli.app import app\n"
        "try: app(['run', '--help'])\nexcept SystemExit: pass\n"
        "assert 'search.core.settings' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


# Claims


def test_walk_shows_the_line_of_the_yaml():
    line = re.search(r"`configs/rnn.yaml` says `(lr: [^`]+)`", ARCHITECTURE)
    assert line
    assert f"  {line[1]}\n" in (ROOT / "configs" / "rnn.yaml").read_text()


class Evenly:
    """A generator whose `random` gives the middle of the n-th of 10,000 equal parts."""

    def __init__(self, part: int) -> None:
        self.part = part

    def random(self) -> float:
        return (self.part + 0.5) / 10_000


def test_shares_of_proposals():
    """The example of docs/explanation/proposals.md: 30 results whose best third lies at the prior as the others do."""
    page = (ROOT / "docs" / "explanation" / "proposals.md").read_text()
    example = re.search(r"n = (\d+) and a = 1 give (.*?)\.", page, re.DOTALL)
    assert example
    shown = [int(number) / 100 for number in re.findall(r"(\d+) %", example[2])]
    space = parse_space({"lr": {"loguniform": [1e-4, 1e-1], "prior": 1e-3}}, "space")
    ranked = [{"lr": 1e-3}] * int(example[1])
    sources = Counter(priors.choose_source(space, ranked, Evenly(part)) for part in range(10_000))  # type: ignore[arg-type]
    drawn = [sources[name] / 10_000 for name in ("uniform", "prior", "model", "best")]
    assert np.allclose(drawn, shown, atol=0.006)


def test_protocols_of_tasks_are_listed():
    page = (ROOT / "docs" / "howto" / "own-task.md").read_text()
    protocols = {
        name
        for name in trainables.__all__
        if getattr(getattr(trainables, name), "_is_protocol", False) and name not in ("Task", "Files", "Learner")
    }
    assert len(protocols) > 8
    missing = {name for name in protocols if f"`{name}`" not in page}
    assert not missing


def test_profiles_of_yaml():
    """configs/defaults.yaml: `demo` applies to runs without --data only."""
    demo = yaml.safe_load((ROOT / "configs" / "defaults.yaml").read_text())["demo"]["search"]
    assert load_config("windows", profile="demo").search.searcher == demo["searcher"]
    assert load_config("windows", profile="data").search.searcher != demo["searcher"]


# Programs


@pytest.mark.parametrize("page", [page for page in PAGES if programs(page)], ids=lambda p: p.name)
def test_python_blocks_compile(page):
    for code, _ in programs(page):
        ast.parse(code)


def test_commands_parse():
    """Every command of the docs has options that exist. tests/e2e/test_readme.py runs them."""
    for text in commands():
        words = shlex.split(text)
        name = next((n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS), None)
        assert name, text
        flags = {flag for option in COMMANDS[name].params for flag in (*option.opts, *option.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= flags, text


def interface_methods() -> set[str]:
    """The methods of protocols, schedulers and searchers, which are documented at the interface."""
    classes = [c for path in FILES for c in ast.parse(path.read_text()).body if isinstance(c, ast.ClassDef)]
    bases = ("Scheduler", "Searcher", "Task")
    interfaces = [c for c in classes if c.name in bases or any("Protocol" in ast.unparse(base) for base in c.bases)]
    return {f.name for c in interfaces for f in c.body if isinstance(f, ast.FunctionDef)}


def test_public_functions_are_documented():
    """At least nine in ten; a method of an interface is documented there."""
    found, documented = [], interface_methods()
    for path in FILES:
        tree = ast.parse(path.read_text())
        methods = {f for c in ast.walk(tree) if isinstance(c, ast.ClassDef) for f in c.body}
        for node in [*tree.body, *methods]:
            if isinstance(node, ast.FunctionDef) and node.name[0] != "_":
                found.append(bool(ast.get_docstring(node)) or (node in methods and node.name in documented))
    assert sum(found) >= 0.9 * len(found), f"{sum(found)} of {len(found)}"
