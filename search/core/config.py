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
from search.core.feasibility import BEFORE_TRAINING
from search.core.overrides import SECTIONS, Named, change, flag, given_by, lay_over, values_given
from search.core.registry import SCHEDULERS, SEARCHERS
from search.core.settings import Resources, SearchSection, Section
from search.core.space import Plain, Space, check_values, flat, listed, parse_space
from trainables import Allowed, InputError, Limited, Objective, Params, get_task, task_config_file
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
        slow: the same with the setting `slow` of the task's file, for a time budget that holds too few epochs; empty if
            the file has no such setting.
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

        The first objective decides which epoch of a trial is its best.
        """
        return tuple(parse_objective(text, f"{self.place}: search.objective") for text in self.search.objective or ())

    @property
    def figures_before(self) -> tuple[str, ...]:
        """The figures of a configuration that a worker measures before the first epoch of a trial.

        These are figures with a limit on outcomes. The latency is measured too if it is an objective; the parameters
        are counted in each epoch anyway.
        """
        limited = {limit.metric for limit in self.search.outcome_limits}
        timed = limited | {objective.metric for objective in self.objectives}
        return tuple(name for name in BEFORE_TRAINING if name in (timed if name == "latency_ms" else limited))

    @property
    def by_name(self) -> dict[str, Any]:
        """The settings and the ranges of hyperparameters by dotted names, such as `search.trials` and `space.lr`."""
        sections = ("search", "resources", "data")
        settings = {f"{section}.{name}": value for section in sections for name, value in self.raw[section].items()}
        constraints = [relation.text for relation in self.space.constraints]
        ranges = {f"space.{p.name}": p.describe() for p in self.space.parameters}
        return settings | ranges | ({"space.constraints": "; ".join(constraints)} if constraints else {})

    @property
    def first(self) -> tuple[Params, ...]:
        """The starting configurations (`search.first`), each by the dotted names of its hyperparameters."""
        return tuple(flat(given, f"{self.place}: search.first") for given in self.search.first or ())

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
            others if the hyperparameter is given this value. Its setting `slow` names one of them, such
            as `model.unfreeze=0`, for `SearchConfig.slow`, unless `sets` or `flags` give this hyperparameter.
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
    defaults = _read_config(configs_folder() / "defaults.yaml", "configs/defaults.yaml")
    own = _read_config(path, place)
    sets, flags, values = tuple(sets), dict(flags or {}), values_given(sets, flags)
    layers = [own.sections]
    if profile == "demo":
        shared = defaults.demo or {}
        layers = [shared, own.sections] if own.demo is None else [own.sections, shared, own.demo]
    for name, variant in own.given.items():
        wanted = values_given([name]) if "=" in name else {}
        key = next(iter(wanted), f"space.{name}")
        value = values.get(key)
        if value == wanted[key] if wanted else value is not None:
            layers.append(variant)
        elif not wanted:  # null is the value without the variant, whose keys the space lacks
            sets = tuple(text for text in sets if key not in values_given([text]))
    raw = defaults.sections
    for layer in layers:
        raw = lay_over(raw, layer)
    spaces = _spaces(lay_over(defaults.sections, own.sections), own, place)
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
    if own.slow and profile == "data":
        ((key, value),) = values_given([own.slow]).items()
        if key not in values and config.space.fixed().get(key.removeprefix("space.")) != value:
            config = replace(config, slow=change(lay_over(raw, own.given[own.slow]), sets, flags, named, allowed))
    return config


@dataclass(frozen=True)
class _ConfigFile:
    """A YAML file: its sections without `demo`, `given` and `slow`, and these three. A file may lack them."""

    sections: dict[str, Any]
    demo: dict[str, Any] | None
    given: dict[str, dict[str, Any]]
    slow: str


def _spaces(raw: dict[str, Any], file: _ConfigFile, place: str) -> list[Space]:
    """The spaces of a file, which may list values: its own, that of its demo, and those of its section `given`.

    The file without `--set` is checked strictly: each of its conditions must be able to hold. `--set` may narrow a
    parameter so far that a condition on it never holds.

    Args:
        raw: the file laid over `defaults.yaml`.
    """
    if not isinstance(raw.get("space"), dict):
        return []
    parts = {f"given: {name}": sections for name, sections in file.given.items()}
    if file.demo is not None:
        parts = {"demo": file.demo, **parts}
    others = [parse_space(lay_over(raw, s)["space"], f"{place}: {name}", narrowed=True) for name, s in parts.items()]
    return [parse_space(raw["space"], place), *others]


def _read_config(path: Path, place: str) -> _ConfigFile:
    own = read_yaml(path, place, f"the sections {', '.join(SECTIONS)}")
    demo, variants, slow = own.pop("demo", None), own.pop("given", {}), own.pop("slow", "")
    if not isinstance(variants, dict):
        raise InputError(f"{place}: given: {variants!r}: expected sections by hyperparameter")
    if slow and (slow not in variants or "=" not in slow):
        raise InputError(f"{place}: slow: {slow!r}: expected the NAME=VALUE of a part of `given`")
    parts = {"demo": {} if demo is None else demo}
    parts |= {f"given: {name}": variant for name, variant in variants.items()}
    for part, sections in parts.items():
        if not isinstance(sections, dict) or set(sections) - set(SECTIONS):
            raise InputError(f"{place}: {part}: {sections!r}: expected the sections {', '.join(SECTIONS)}")
    return _ConfigFile(own, demo, variants, slow)


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
    _check_resources(resources, f"{place}: resources", given)
    if search.deterministic and scheduler.pauses_trials:
        raise InputError(f"{place}: search.scheduler: {search.scheduler}: has no rounds; with --deterministic: asha")
    if config.resources.autoscaled and search.concurrency is None:
        raise InputError(f"{place}: resources.autoscaled: true: search.concurrency must say how many trials at once")
    _check_balance(search.balance, config.space, f"{place}: search.balance")
    _check_objectives(config)
    _check_limits(config, given)
    check_constraints(config, f"{place}: space.constraints", {})
    _check_first(config, given)
    if searcher.is_finite:
        config.space.grid(place)
    elif all(limit is None for limit in (search.trials, search.time_budget, search.epoch_budget, search.cost_budget)):
        raise InputError(
            f"{place}: search.trials: null: has no end without a budget; give a number, or search.time_budget, "
            "search.epoch_budget or search.cost_budget"
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
    if (preference := config.search.preference) is None:
        return
    shown = f"{place}.preference: {preference}"
    if not metrics:
        raise InputError(f"{shown}: needs several objectives; give search.objective, or null")
    if unknown := [metric for metric in preference if metric not in metrics]:
        raise InputError(f"{shown}: {unknown[0]!r}: no objective; there are {', '.join(metrics)}")
    if not any(preference.values()):
        raise InputError(f"{shown}: expected a weight above 0 of at least one objective")


def _check_limits(config: SearchConfig, given: Mapping[str, str]) -> None:
    """Raises InputError if the results of the search cannot reach a limit."""
    search, resources = config.search, config.resources

    def shown(key: str) -> str:
        return given.get(f"search.{key}", f"{config.place}: search.{key}: {getattr(search, key):g}")

    for key in ("target", "worth"):
        if getattr(search, key) is not None and config.objectives:
            raise InputError(f"{shown(key)}: needs one objective; there are {', '.join(search.objective or ())}")
    if search.cost_budget is not None and not (resources.price_cpu_hour or resources.price_gpu_hour):
        raise InputError(
            f"{shown('cost_budget')}: trials cost nothing without a price; give resources.price_cpu_hour or "
            "resources.price_gpu_hour"
        )


def check_constraints(config: SearchConfig, place: str, given: Params, number: int | None = None) -> None:
    """Raises InputError if no configuration with the values `given` satisfies the constraints.

    Args:
        place: the source of `given`, for messages.
        given: the values that a person chose.
        number: the trial that has them; None: any trial. It decides the value of the balanced parameter.
    """
    if not config.space.constraints:
        return
    from search.core.searchers.feasible import check_satisfiable  # imports NumPy

    name, values = config.turns or ("", (None,))
    turns = values if number is None else (values[number % len(values)],)
    for turn in turns:
        check_satisfiable(config.space, place, {**({name: turn} if name else {}), **given})


def _check_first(config: SearchConfig, given: Mapping[str, str]) -> None:
    """Raises InputError if a starting configuration does not fit the space."""
    source = given.get("search.first", f"{config.place}: search.first=").partition("=")[0]
    first, trials = config.search.first or [], config.search.trials
    if trials is not None and len(first) > trials:
        raise InputError(f"{source}: {len(first)} starting configurations, and search.trials is {trials}")
    for index, values in enumerate(first):
        place, own = f"{source}[{index}]", flat(values, f"{source}[{index}]")
        space = config.space
        if config.turns is not None:
            name, turns = config.turns
            turn = turns[index % len(turns)]
            if own.get(name, turn) != turn:
                raise InputError(f"{place}: {name}: {own[name]!r}: search.balance gives trial {index} {turn!r}")
            space = space.fix({name: turn})
        space.check_part(own, place)
        check_constraints(config, place, own, index)


def _check_resources(resources: Resources, place: str, given: Mapping[str, str]) -> None:
    """Raises InputError if the GPUs or the machines cannot be divided among the processes of a trial."""
    gpus, processes, nodes = resources.gpus, resources.processes, resources.nodes
    if processes % nodes:
        raise InputError(
            f"{place}.nodes: {nodes}: each machine has the same number of processes, and there are {processes} "
            "(resources.processes)"
        )
    if gpus == "auto":
        if processes > 1:
            raise InputError(f"{place}.gpus: auto: measures the share of one process; give {processes} or 0")
        return
    if gpus > 1 and not gpus.is_integer():
        raise InputError(f"{place}.gpus: {gpus:g}: expected a share of one GPU, or a whole number of GPUs")
    shared = 0 < gpus < 1 and "resources.gpus" in given
    if processes > 1 and (shared or (gpus >= 1 and gpus % processes)):
        raise InputError(
            f"{place}.gpus: {gpus:g}: expected 0 or a multiple of resources.processes ({processes}): each process has "
            "GPUs of its own"
        )


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
