"""The configuration of a search that has no task of its own: of a function, a command, or another tool's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.config.load import SearchConfig, check_config, load_config, parse_objective, read_yaml
from search.config.overrides import change
from trainables import offer

#: The task of all of these; which objective it has is told in its place.
LOOPS = "trainables.loops.task:LoopTask"


def read_space(path: Path) -> dict[str, Any]:
    """The hyperparameters that a `--space` file describes, in a section `space` or alone; raises InputError."""
    read = read_yaml(path, f"--space {path}", "`name: {loguniform: [1e-4, 1e-1]}` and the like")
    return {str(key): value for key, value in read.get("space", read).items()}


def loop_config(
    task: str, space: Mapping[str, Any], objective: str, flags: Mapping[str, Any], sets: Sequence[str], place: str
) -> SearchConfig:
    """The configuration of such a search; makes its task known.

    Args:
        place: what messages name as its source.

    Raises:
        InputError: as `load_config`.
    """
    wanted = parse_objective(objective, "objective")
    offer(task, f"{LOOPS}?metric={wanted.metric}&mode={wanted.mode}")
    raw = load_config(task, flags=flags, profile="data").raw
    return check_config(task, change({**raw, "space": dict(space)}, sets), place)
