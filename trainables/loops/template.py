"""Fills the values of a trial into a copy of a config file."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainables.base.errors import InputError
from trainables.base.files import replacing
from trainables.loops.errors import TrainingError

#: A name in doubled braces. Other doubled braces, such as those of a chat template, stay as they are.
_PLACE = re.compile(r"\{\{\s*([^{}\s]+)\s*\}\}")


def read_template(path: Path) -> str:
    """The text of a template; raises InputError if it cannot be read as UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"template: {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"template: {path}: is no UTF-8 text ({error.reason})") from error


def named_in(text: str, names: Collection[str]) -> Iterator[tuple[int, list[str]]]:
    """The number of each line of a template that holds names in doubled braces, from 1, and those of `names`."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := [name for name in _PLACE.findall(line) if name in names]:
            yield number, found


def check_template(path: Path, names: Collection[str], optional: Collection[str]) -> set[str]:
    """Checks a template against the names of a search; returns the names that it holds.

    Raises:
        InputError: the template cannot be read or holds none of the names; or a name that may have no value is in a
            line with another name, so that the line cannot be left out.
    """
    text, found = read_template(path), set()
    for number, line in named_in(text, names):
        found |= set(line)
        missing = [name for name in line if name in optional]
        if missing and len(set(line)) > 1 and not _is_json(path):
            raise InputError(
                f"template: {path}, line {number}: {{{{{missing[0]}}}}} has no value if its `when` does not hold; the "
                "line is then left out: give its other hyperparameters lines of their own"
            )
    if not found:
        raise InputError(f"template: {path}: holds no name in doubled braces; there are {', '.join(sorted(names))}")
    return found


def fill_template(source: Path, target: Path, values: Mapping[str, Any]) -> None:
    """Writes a template to `target` with values in place of names.

    A number or truth value has a form that YAML, JSON and TOML read; a text stands as it is, without quotes. A line
    with a name whose value is None is left out; in a JSON file the value is `null`.

    Raises:
        TrainingError: the template cannot be read.
    """
    try:
        text = read_template(source)
    except InputError as error:
        raise TrainingError(str(error)) from None
    lines = []
    for line in text.splitlines(keepends=True):
        names = [name for name in _PLACE.findall(line) if name in values]
        if any(values[name] is None for name in names) and not _is_json(source):
            continue
        lines.append(_PLACE.sub(lambda place: _shown(values[place[1]]) if place[1] in values else place[0], line))
    with replacing(target) as file:
        file.write("".join(lines).encode())


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    text = json.dumps(value)
    # YAML 1.1 reads `1e-05` as a text, and `1.0e-05` as a number.
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text
