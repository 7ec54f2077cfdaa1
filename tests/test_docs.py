"""What the documentation says is there is there."""

import re
from pathlib import Path

import pytest

from search.config import load_config
from trainables import TASKS

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


def test_every_module_has_its_place_in_the_architecture():
    page = (ROOT / "docs" / "architecture.md").read_text()
    modules = [p.name for folder in ("search", "trainables") for p in (ROOT / folder).glob("[!_]*.py")]
    assert not [name for name in modules if f"`{name}`" not in page]


def test_the_drawing_names_modules_that_exist():
    drawing = (ROOT / "docs" / "architecture.md").read_text().split("```mermaid")[1].split("```")[0]
    known = {p.stem for p in (ROOT / "search").glob("*.py")} | {p.stem for p in (ROOT / "trainables").glob("*.py")}
    for label in re.findall(r'\w\["([^"<]+)', drawing):
        for name in label.removeprefix("trainables.").split(", "):
            assert name in known | set(TASKS), name


def test_every_key_that_is_shown_with_set_exists():
    for page in PAGES:
        for task, key in re.findall(r"search run (\w+)[^\n`|]*?--set '?([\w.]+)=", page.read_text()):
            if task in TASKS:
                raw = load_config(task).raw
                parts = key.split(".") if key.split(".")[0] in raw else ["space", *key.split(".")]
                for part in parts:
                    assert part in raw, f"{page.name}: --set {key}"
                    raw = raw[part]
