"""Configurations and settings that a person writes: `KEY=VALUE`, and files of configurations."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from search.core.overrides import parse_set
from trainables import InputError
from trainables.base.errors import first_line


def configuration(texts: Iterable[str]) -> dict[str, Any]:
    """The configuration of the texts `KEY=VALUE`; raises InputError if a text has another form."""
    values: dict[str, Any] = {}
    for text in texts:
        parts, value = _parsed(text)
        values[".".join(parts).removeprefix("space.")] = value
    return values


def settings_of(texts: Iterable[str]) -> dict[str, Any]:
    """New settings by name, as `requests.ChangeSettings` takes them. A value with `+` stays a text."""
    values: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        _, parsed = _parsed(text)
        values[name.strip()] = value.strip() if value.strip().startswith("+") else parsed
    return values


def _parsed(text: str) -> tuple[list[str], Any]:
    """The parts of the key and the value of `KEY=VALUE`. Unlike `--set`, a request needs a value."""
    _, sign, value = text.partition("=")
    if sign and not value.strip():
        raise InputError(f"{text}: expected a value after =; null is no value")
    return parse_set(text, shown="")


def read_configurations(path: Path) -> list[dict[str, Any]]:
    """The configurations of a file: a list in YAML or JSON, or the rows of a CSV, whose empty cells are missing values.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        if path.suffix == ".csv":
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            return [configuration(f"{key}={cell}" for key, cell in row.items() if key and cell) for row in rows]
        found: Any = OmegaConf.to_container(OmegaConf.load(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {first_line(error)}") from error
    several = found if isinstance(found, list) else [found]
    for one in several:
        if not isinstance(one, dict):
            raise InputError(f"{path}: {one!r}: expected a list of configurations, such as [{{lr: 0.01}}]")
    return [{str(key): value for key, value in one.items()} for one in several]
