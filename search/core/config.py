"""Loads the configuration of a search: merges defaults, the task's YAML, `--set` and flags, and checks the result."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import MarkedYAMLError, YAMLError

import search
from search.core.overrides import SECTIONS, Named, change, flag, given_by, lay_over, values_given
from search.core.registry import SCHEDULERS, SEARCHERS
from search.core.settings import Resources, SearchSection, Section
from search.core.space import Plain, Space, check_values, listed, parse_space
from trainables import Allowed, InputError, Limited, Objective, get_task, task_config_file
from trainables.base.errors import first_line, one_line
from trainables.base.values import suggestion

S = TypeVar("S", bound=Section)
#: Whether the configuration is for the user's data or for the demo.
Profile = Literal["data", "demo"]
#: Rank trials of at least `WINDOW_FROM` epochs by the best moving average over `WINDOW` epochs, as a single epoch may
#: be lucky, and shorter trials by their best epoch. Measured in searches of 24 epochs with noise (benchmarks/tried.md):
#: with a window of 3 the chosen configuration was better by 0.04 +- 0.03 standard deviations of the configurations than
#: with a window of 1. Windows of 5 and 7 were worse than 3 by 0.02 to 0.05. In searches of 12 epochs a window of 3 was
#: worse than 1 on one of two data sets.
WINDOW, WINDOW_FROM = 3, 21
#: The settings that are written as `90s`, `30m` or `1h30m`.
DURATIONS = ("time_budget", "trial_timeout", "stall_timeout")


@dataclass(frozen=True)
class SearchConfig:
    """A checked configuration.

    Attributes:
        raw: the same configuration as plain data, for `check_config` and the journal.
        slow: the same with the section `slow` of the task's file, for a time budget that holds too few epochs; empty
            if the file has no such section.
    """

    task: str
    search: SearchSection
    resources: Resources
    data: dict[str, Any]
    space: Space
    place: str
    raw: dict[str, Any]
    slow: dict[str, Any] = field(default_factory=dict)

    @property
    def is_own_program(self) -> bool:
        """Whether the search is of a function or a command, which chooses itself what its final training reads."""
        return "function" in self.data

    def for_slow_machine(self) -> SearchConfig:
        """The configuration `slow`. A first rung after its last epoch moves to this epoch."""
        search = self.slow["search"]
        first = min(search["grace_period"], search["epochs"])
        return check_config(self.task, lay_over(self.slow, {"search": {"grace_period": first}}), self.place)

    @property
    def balanced(self) -> tuple[Plain, ...]:
        """The values of the balanced parameter, which trials take in turn; `(None,)` without a balanced parameter."""
        parameter = next((p for p in self.space.parameters if p.name == self.search.balance), None)
        return parameter.choices if parameter else (None,)

    @property
    def turns(self) -> tuple[str, tuple[Plain, ...]] | None:
        """The name and the values of the balanced parameter; None if it has fewer than two values."""
        name, values = self.search.balance, self.balanced
        return (name, values) if name and len(values) > 1 else None

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives of a search with several, the task's own first; empty for a search with one objective.

        Early stopping and the final training use the first objective.
        """
        return tuple(parse_objective(text, f"{self.place}: search.objective") for text in self.search.objective or ())

    @property
    def window(self) -> int:
        """Window, in epochs, of the moving average of the validation loss that ranks trials for the final training."""
        return WINDOW if self.search.epochs >= WINDOW_FROM else 1


def configs_folder() -> Path:
    """The folder of the YAML files: in an installed package `search/configs`, in a checkout `configs`."""
    package = Path(str(search.__file__)).parent
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parent / "configs"


def load_config(
    task: str, sets: Iterable[str] = (), flags: Mapping[str, Any] | None = None, profile: Profile = "demo",
    named: Named = flag, file: Path | None = None,
) -> SearchConfig:  # fmt: skip
    """Merges `defaults.yaml`, the task's YAML, `--set KEY=VALUE` and flags, in this order.

    Args:
        profile: `data` merges the files without their `demo` sections, for the user's own data. `demo` then lays both
            `demo` sections over the result: that of `defaults.yaml`, then the task's. A task without a `demo` section
            wins over the `demo` section of `defaults.yaml`.
            The section `given` of a task's file holds sections by hyperparameter, which are laid over the others if
            `sets` or `flags` give the hyperparameter a value that is not null. With `NAME=VALUE` they are laid over the
            others if the hyperparameter is given this value. Its section `slow` makes `SearchConfig.slow`,
            unless `sets` or `flags` give a hyperparameter that it fixes. Their other values stay.
        sets: `KEY=VALUE` each, the value in YAML. A key outside the sections `search`, `resources` and `data` names a
            hyperparameter: `lr=0.01` is short for `space.lr=0.01`.
        flags: values by dotted key; None leaves a key as it is.
        named: how messages show a flag.
        file: the task's YAML; None finds it, which imports the module of another package's task.

    Raises:
        InputError: naming the file or flag, the key, the value and what is allowed.
    """
    path = file or task_config_file(task) or configs_folder() / f"{task}.yaml"
    place = f"{path.parent.name}/{path.name}"
    defaults, demo, _, _ = _read_config(configs_folder() / "defaults.yaml", "configs/defaults.yaml")
    own, own_demo, variants, slow = _read_config(path, place)
    sets, flags, values = tuple(sets), dict(flags or {}), values_given(sets, flags)
    layers = [own]
    if profile == "demo":
        layers = [demo or {}, own] if own_demo is None else [own, demo or {}, own_demo]
    for name, variant in variants.items():
        key, _, wanted = f"space.{name}".partition("=")
        value = values.get(key)
        if value == wanted if wanted else value is not None:
            layers.append(variant)
        elif not wanted:  # null is the value without the variant, whose keys the space lacks
            sets = tuple(text for text in sets if key not in values_given([text]))
    raw, spaces = defaults, list[Space]()
    for layer in layers:
        raw = lay_over(raw, layer)
    # The file without `--set` is checked strictly: each of its conditions must be able to hold. `--set` may narrow a
    # parameter so far that a condition on it never holds. The task's code accepts every value that its file or its demo
    # lists.
    whole = lay_over(defaults, own)
    if isinstance(whole.get("space"), dict):
        spaces.append(parse_space(whole["space"], place))
        if own_demo is not None:
            spaces.append(parse_space(lay_over(whole, own_demo)["space"], f"{place}: demo", narrowed=True))
        for name, variant in variants.items():
            spaces.append(parse_space(lay_over(whole, variant)["space"], f"{place}: given: {name}", narrowed=True))
    given = given_by(sets, flags, named)
    allowed: Allowed = {}
    changes_space = bool(sets) or any(key.startswith("space.") for key in flags or ())
    if changes_space:
        # The values of the file are checked when a search begins, as that imports the module of the task.
        loaded = get_task(task)
        allowed = loaded.allowed if isinstance(loaded, Limited) else {}
    changed = change(raw, sets, flags, named, allowed)
    config = check_config(task, changed, place + " with --set" if sets else place, given)
    if changes_space:
        check_space(config, {**listed(*spaces), **allowed}, given)
    if slow and profile == "data" and _applies(slow, raw, config, values):
        config = replace(config, slow=change(lay_over(raw, slow), sets, flags, named, allowed))
    return config


def _applies(slow: Mapping[str, Any], raw: dict[str, Any], config: SearchConfig, values: Mapping[str, Any]) -> bool:
    """Whether the sections `slow` fix hyperparameters that are not fixed so already, and that the user did not give."""
    fixed, now = parse_space(lay_over(raw, slow)["space"], config.place, narrowed=True).fixed(), config.space.fixed()
    decisive = [name for name, value in fixed.items() if now.get(name) != value]
    return bool(decisive) and not any(f"space.{name}" in values for name in decisive)


def _read_config(
    path: Path, place: str
) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, dict[str, Any]], dict[str, Any]]:
    """The content of a YAML file without its sections `demo`, `given` and `slow`, and these sections.

    A file may lack them: `demo` is then None, and the others are empty.
    """
    own = read_yaml(path, place, f"the sections {', '.join(SECTIONS)}")
    demo, variants, slow = own.pop("demo", None), own.pop("given", {}), own.pop("slow", {})
    if not isinstance(variants, dict):
        raise InputError(f"{place}: given: {variants!r}: expected sections by hyperparameter")
    parts = {"demo": {} if demo is None else demo, "slow": slow}
    parts |= {f"given: {name}": variant for name, variant in variants.items()}
    for part, sections in parts.items():
        if not isinstance(sections, dict) or set(sections) - set(SECTIONS):
            raise InputError(f"{place}: {part}: {sections!r}: expected the sections {', '.join(SECTIONS)}")
    return own, demo, variants, slow


def read_yaml(path: Path, place: str, expected: str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Args:
        place: the file, for messages.
        expected: the content that the file should have, for messages.

    Raises:
        InputError: the file cannot be read, is no YAML or holds no mapping.
    """
    try:
        content = OmegaConf.to_container(_load_yaml(path, path.stat().st_mtime_ns), resolve=True)
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not in UTF-8 (byte {error.start}); save it in UTF-8") from error
    except (OSError, YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        # ValueError: a whole number with more digits than Python reads
        raise InputError(f"{place}: cannot be read: {_reason(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{place}: expected {expected}")
    return {str(key): value for key, value in content.items()}


def _reason(error: Exception) -> str:
    """The reason in a line. The first line of YAML's own message names neither the problem nor the key."""
    if isinstance(error, MarkedYAMLError) and error.problem:
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        return one_line(error.problem) + where
    return first_line(error)


@cache
def _load_yaml(path: Path, modified: int) -> Any:
    """A YAML file as OmegaConf loads it. It takes 10 ms, and a command reads the same files several times.

    Args:
        modified: the time of the last change, in ns since 1970: a changed file is loaded again.
    """
    return OmegaConf.load(path)


def check_space(config: SearchConfig, allowed: Allowed, given: Mapping[str, str]) -> None:
    """Raises InputError if the space has a value that is not `allowed`. `given` is the result of `given_by`."""
    check_values(config.space, allowed, lambda name: given.get(f"space.{name}", f"{config.place}: space.{name}"))


def check_config(task: str, raw: dict[str, Any], place: str, given: Mapping[str, str] | None = None) -> SearchConfig:
    """Validates plain data that `load_config` merged.

    Args:
        place: the source of the data for messages, such as `configs/rnn.yaml with --set`.
        given: the result of `given_by`. Messages about these keys name the user's words, such as `--trials 0`.

    Raises:
        InputError: as `load_config`.
    """
    unknown = [key for key in raw if key not in SECTIONS]
    if unknown:
        raise InputError(f"{place}: {unknown[0]}: unknown section; allowed are {', '.join(SECTIONS)}")
    for section in SECTIONS:
        if not isinstance(raw.get(section), dict):
            raise InputError(f"{place}: {section}: {raw.get(section)!r}: expected a mapping")
    given = given or {}
    search = _validate(SearchSection, raw["search"], f"{place}: search", given)
    resources = _validate(Resources, raw["resources"], f"{place}: resources", given)
    raw = {**raw, "search": _checked(search, raw["search"]), "resources": _checked(resources, raw["resources"])}
    searcher, scheduler = SEARCHERS.get(search.searcher), SCHEDULERS.get(search.scheduler)
    if search.grace_period > search.epochs and scheduler.compares:
        raise InputError(
            f"{place}: search.grace_period: {search.grace_period}: must be <= search.epochs ({search.epochs})"
        )
    config = SearchConfig(
        task=task,
        search=search,
        resources=resources,
        data=raw["data"],
        space=parse_space(raw["space"], place, narrowed=True),
        place=place,
        raw=raw,
    )
    if config.resources.gpu_share > 1:
        raise InputError(
            f"{place}: resources.gpus: {config.resources.gpu_share:g}: a trial has one GPU; give 1 or a fraction, "
            "and the other GPUs run more trials at once"
        )
    if search.deterministic and scheduler.pauses_trials:
        raise InputError(f"{place}: search.scheduler: {search.scheduler}: has no rounds; with --deterministic: asha")
    if config.resources.autoscaled and search.concurrency is None:
        raise InputError(f"{place}: resources.autoscaled: true: search.concurrency must say how many trials at once")
    _check_balance(search.balance, config.space, f"{place}: search.balance")
    _check_objectives(config)
    if searcher.is_finite:
        config.space.grid(place)
    elif search.trials is None and search.time_budget is None and search.epoch_budget is None:
        raise InputError(
            f"{place}: search.trials: null: has no end without a budget; give a number, or search.time_budget or "
            "search.epoch_budget"
        )
    for key in DURATIONS:
        if (duration := getattr(search, key)) is not None:
            parse_duration(duration, given.get(f"search.{key}", f"{place}: search.{key}"))
    return config


def parse_objective(text: str, place: str) -> Objective:
    """Reads `METRIC MODE`, such as `macro_f1 max`; raises InputError."""
    metric, _, mode = text.strip().rpartition(" ")
    if not metric or mode not in ("min", "max"):
        word = (metric or mode or "val_loss").strip()
        raise InputError(f"{place}: {text!r}: expected a metric and min or max, such as `{word} min`")
    return Objective(metric.strip(), "min" if mode == "min" else "max")


def _check_objectives(config: SearchConfig) -> None:
    place, searcher = f"{config.place}: search", config.search.searcher
    metrics = [objective.metric for objective in config.objectives]
    if config.search.objective is not None and (len(metrics) < 2 or len(set(metrics)) < len(metrics)):
        raise InputError(f"{place}.objective: {config.search.objective}: expected two or more different ones, or null")
    if metrics and not SEARCHERS.get(searcher).several_objectives:
        able = ", ".join(name for name in SEARCHERS.names() if SEARCHERS.get(name).several_objectives)
        raise InputError(f"{place}.searcher: {searcher}: has one objective; for several: {able}")


def _check_balance(name: str | None, space: Space, place: str) -> None:
    if name is None:
        return
    able = [p.name for p in space.parameters if p.kind in ("choice", "value") and not p.when]
    if name not in able:
        raise InputError(f"{place}: {name!r}: expected a choice that always exists: {', '.join(able)}")


def digest(value: Any) -> str:
    """A hash of plain data, 12 hexadecimal digits. The order of keys does not matter."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=6).hexdigest()


_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def parse_duration(text: str, place: str = "--time-budget") -> float:
    """The number of seconds of a duration such as `90s`, `30m` or `1h30m`.

    Raises:
        InputError: the text is no duration, or its duration is 0.
    """
    match = _DURATION.fullmatch(str(text).strip())
    hours, minutes, seconds = (float(g) if g else 0.0 for g in match.groups()) if match else (0.0, 0.0, 0.0)
    total = hours * 3600 + minutes * 60 + seconds
    if total <= 0:
        raise InputError(f"{place}: {text!r}: expected a positive duration such as 90s, 30m or 1h30m")
    return total


def _checked(section: Section, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `raw` with their checked values: pydantic reads the text `"2"` as the number 2.

    A whole number of a field for floats stays a whole number: the configuration shows `cpus: 1` as it was given.
    """
    checked = {key: getattr(section, key) for key in raw}
    return {
        key: raw[key] if type(raw[key]) is int and type(value) is float else value for key, value in checked.items()
    }


def _validate(model: type[S], raw: dict[str, Any], place: str, given: Mapping[str, str]) -> S:
    try:
        return model.model_validate(raw, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise InputError(f"{place}.{key}: missing") from None
        if first["type"] == "extra_forbidden":
            near = suggestion(key, model.model_fields) or ";"
            allowed = ", ".join(model.model_fields)
            raise InputError(f"{place}.{key}: unknown key{near} allowed are {allowed}") from None
        message = (first["msg"][0].lower() + first["msg"][1:]).removeprefix("value error, ")
        if key in DURATIONS and first["type"] == "string_type":
            seconds = first["input"] if isinstance(first["input"], int | float) else 90
            message = f"expected a duration, such as '{seconds:g}s'"
        section = place.rpartition(": ")[2]
        if (source := given.get(f"{section}.{first['loc'][0]}")) is not None:
            raise InputError(f"{source}: {message}") from None
        raise InputError(f"{place}.{key}: {first['input']!r}: {message}") from None
