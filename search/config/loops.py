"""The configuration of a search that has no task of its own: of a function, a command, or another tool's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.config.load import SearchConfig, check_config, load_config, parse_objective
from search.config.overrides import change
from trainables import offer

#: The task of all of these; which objective it has is told in its place.
LOOPS = "trainables.loops.task:LoopTask"


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
