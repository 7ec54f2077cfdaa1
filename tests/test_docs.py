"""What the documentation says is there is there."""

import ast
import re
from pathlib import Path

import pytest

from search.core.config import load_config
from search.core.schedulers.base import Scheduler
from search.core.searchers.base import Searcher
from tests.test_imports import FILES, MODULES, ROOMS, imported, module_of, room_of
from trainables import (
    TASKS,
    Baselined,
    Bootstrapped,
    Checked,
    Described,
    Exported,
    Fusable,
    Illustrated,
    Limited,
    Mergeable,
    Precomputed,
    Sampling,
    Surveyed,
    Task,
    Traced,
)  # fmt: skip
from trainables.base.storage import Files

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def anchors(page: Path) -> set[str]:
    """As repository browsers make them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_file_that_is_named_exists(page):
    for name in re.findall(
        r"`((?:search|trainables|configs|tests|benchmarks|examples|docs)/[\w./-]+\.\w+)`", page.read_text()
    ):
        placeholder = Path(name).stem.isupper()
        assert placeholder or (ROOT / name).exists(), f"{page.name}: {name}"


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize("path", [p for p in FILES if p.name[0] != "_"], ids=module_of)
def test_every_module_has_its_place_in_the_architecture(path):
    folder = f"`{path.parent.relative_to(ROOT)}/`"
    row = next((line for line in ARCHITECTURE.splitlines() if line.startswith(f"| {folder} |")), "")
    task = path.parent.name in TASKS
    assert task or f"`{path.name}`" in row or f"`{path.relative_to(ROOT)}`" in ARCHITECTURE


def test_the_drawing_shows_the_rooms_and_how_they_import_each_other():
    drawing = ARCHITECTURE.split("```mermaid")[1].split("```")[0]
    boxes = {short: f"search.{short}" for short in re.findall(r"\b(\w+)\[\"", drawing)}
    boxes |= {"base": "trainables.base", "text": "trainables.text", "tasks": "trainables"}
    assert {room for room in ROOMS if room.count(".") == 1} - {"search.__main__"} == set(boxes.values()) - {
        "trainables"
    }
    imports = {(room_of(module_of(path)), room_of(name)) for path in FILES for name in imported(path) & MODULES}
    arrows = [(a, b) for a, b in re.findall(r"(\w+)(?:\[\"[^\"]*\"\])? -->(?:\|[^|]*\|)? (\w+)", drawing)]
    shown = {(boxes[a], boxes[b]) for a, b in arrows if a in boxes and b in boxes}
    assert shown and shown <= imports, f"no such import: {shown - imports}"
    order = [room for room in ROOMS if room in boxes.values()]
    assert all(order.index(a) > order.index(b) for a, b in shown)


def test_public_functions_are_documented():
    """At least nine in ten; a method of an interface is documented there."""
    interfaces = (
        Task, Scheduler, Searcher, Files, Fusable, Precomputed, Sampling, Traced, Bootstrapped, Mergeable, Exported,
        Baselined, Illustrated, Described, Checked, Limited, Surveyed,
    )  # fmt: skip
    known = {name for one in interfaces for name in vars(one)}
    found = []
    for path in FILES:
        tree = ast.parse(path.read_text())
        methods = {f for c in ast.walk(tree) if isinstance(c, ast.ClassDef) for f in c.body}
        for node in [*tree.body, *methods]:
            if isinstance(node, ast.FunctionDef) and node.name[0] != "_":
                found.append(bool(ast.get_docstring(node)) or (node in methods and node.name in known))
    assert sum(found) >= 0.9 * len(found), f"{sum(found)} of {len(found)}"


def test_every_key_that_is_shown_with_set_exists():
    for page in PAGES:
        for task, key in re.findall(r"search run (\w+)[^\n`|]*?--set '?([\w.]+)=", page.read_text()):
            if task in TASKS:
                raw = load_config(task).raw
                parts = key.split(".") if key.split(".")[0] in raw else ["space", *key.split(".")]
                for part in parts:
                    assert part in raw, f"{page.name}: --set {key}"
                    raw = raw[part]
