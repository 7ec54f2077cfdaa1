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
from trainables import LOOP_TASK, plain, register_task

#: The YAML file for training functions, commands and imported searches.
LOOPS_FILE = Path(str(trainables.__file__)).parent / "loops" / "loops.yaml"


def read_space(path: Path) -> dict[str, Any]:
    """The space of a `--space` file, in its section `space` or at the top; raises InputError."""
    read = read_yaml(path, f"--space {path}", "`name: {loguniform: [1e-4, 1e-1]}` and the like")
    return {str(key): value for key, value in read.get("space", read).items()}


def loop_config(
    task: str, space: Mapping[str, Any], objective: str, flags: Mapping[str, Any], sets: Sequence[str], place: str,
    named: Named = flag,
) -> SearchConfig:  # fmt: skip
    """The configuration of a search of a training function, a command or an import; registers its task.

    Args:
        space: a spec or a fixed value by hyperparameter. Values of NumPy become plain values.
        place: the source of the space, for messages.
        named: formats a flag for messages.

    Raises:
        InputError: as `load_config`.
    """
    wanted = parse_objective(str(plain(objective, "objective")), "objective")
    flags, space = plain(flags, place), plain(space, f"{place}: space")
    register_task(task, f"{LOOP_TASK}?{urlencode({'metric': wanted.metric, 'mode': wanted.mode})}")
    raw = load_config(task, flags=flags, profile="data", named=named).raw
    own, given = parse_space(space, place), given_by(sets)
    config = check_config(task, change({**raw, "space": space}, sets), place, given)
    check_space(config, listed(own), given)
    return config
