"""The configuration of a search of a training function or a command, and of an imported search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import trainables
from search.core.config import SearchConfig, check_config, check_space, load_config, parse_objective, read_yaml
from search.core.overrides import Named, change, flag, given_by
from search.core.space import listed, parse_space
from trainables import LOOP_TASK, InputError, plain, register_task

#: The YAML file for training functions, commands and imported searches.
LOOPS_FILE = Path(str(trainables.__file__)).parent / "loops" / "loops.yaml"


def read_space(path: Path) -> dict[str, Any]:
    """The space in a `--space` file: its section `space`, or the whole file; raises InputError."""
    expected = "hyperparameters, such as `lr: {loguniform: [1e-4, 1e-1]}`"
    content = read_yaml(path, f"--space {path}", expected)
    space = content.get("space", content)
    if not isinstance(space, dict):
        raise InputError(f"--space {path}: space: {space!r}: expected {expected}")
    space = {str(key): value for key, value in space.items()}
    parse_space(space, f"--space {path}")  # here a message names the file
    return space


def loop_address(metric: str, mode: str, brings: Sequence[str] = ()) -> str:
    """The address of the task of a function or a command.

    Args:
        metric: the name of the objective among the metrics of the program.
        brings: what the program has for the time after its trials: `Code.brings`.
    """
    about = {"metric": metric, "mode": mode, **({"brings": "+".join(brings)} if brings else {})}
    return f"{LOOP_TASK}?{urlencode(about)}"


def loop_config(
    task: str, space: Mapping[str, Any], objective: str, flags: Mapping[str, Any], sets: Sequence[str], place: str,
    named: Named = flag, brings: Sequence[str] = (),
) -> SearchConfig:  # fmt: skip
    """Makes the configuration of a search of a training function, a command or an import, and registers its task.

    Args:
        task: the name for the task.
        space: a spec or a fixed value by hyperparameter. NumPy values become plain values.
        objective: `METRIC min` or `METRIC max`.
        place: the source of the space, for messages.
        named: formats a flag for messages.
        brings: what the program has for the time after its trials: `Code.brings`.

    Raises:
        InputError: as `load_config`.
    """
    parsed = parse_objective(str(plain(objective, "objective")), "objective")
    flags, space = plain(flags, place), plain(space, f"{place}: space")
    register_task(task, loop_address(parsed.metric, parsed.mode, brings))
    own, raw = parse_space(space, place), {**load_config(task, profile="data").raw, "space": space}
    # A flag may name a hyperparameter, so the space comes first. A command's --set wins over the flags.
    changed = change(change(raw, flags=flags, named=named), sets)
    given = given_by(flags=flags, named=named) | given_by(sets)
    config = check_config(task, changed, place, given)
    check_space(config, listed(own), given)
    return config
