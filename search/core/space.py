"""The format of the section `space`, and the class `Space` that it is read into.

An entry of `space:` in a configuration is one of these:

    lr: {loguniform: [1e-4, 1e-1]}        log-uniform over a positive range
    dropout: {uniform: [0, 0.5]}          uniform
    mixup: {uniform: [0, 0.5], step: 0.1} with steps: 0, 0.1, 0.2, 0.3, 0.4 and 0.5
    width: {int: [16, 64], step: 16}      whole numbers, both bounds included; the default step is 1
    hidden: {int: [8, 1024], log: true}   whole numbers on a log scale
    optimizer: {choice: [sgd, adamw]}     one of a list of plain values
    batch_size: {choice: [16, 32, 64]}    a choice of numbers is ordered by its numbers; `ordered: false` says otherwise
    size: {choice: [s, m, l], ordered: true}                     ordered as listed
    epochs_frozen: 3                      a fixed value
    momentum: {uniform: [0.8, 0.99], when: {optimizer: sgd}}     exists only if optimizer is sgd
    beta: {value: 0.9, when: {optimizer: [adam, adamw]}}         a fixed value that exists only with adam or adamw
    skip: {uniform: [0, 1], when: layers > 1}                    with a condition as an expression
    tail: {uniform: [0, 1], when: [layers > 1, optimizer != sgd]}         all conditions of the list hold
    lr: {loguniform: [1e-4, 1e-1], prior: 1e-3}                  with the value that an expert would try first
    depth: {int: [2, 8], prior: 4, confidence: high}             with the expert's confidence: low, medium or high

Names may be grouped: `model: {pretrained: null}` is `model.pretrained`. A parameter whose `when` does not hold is None
in a trial's configuration.

The key `constraints` has a list of expressions (`search/core/relations.py`). Each configuration satisfies them:

    constraints: [embedding % heads == 0, optimizer != sgd or momentum > 0.5]
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Literal, get_args

from search.core.relations import Relation
from trainables import Allowed, Choices, InputError, Numbers, Params
from trainables.base.values import MOST_BITS, Plain, refusal, suggestion, too_long

KINDS = ("uniform", "loguniform", "int", "choice", "value")
#: Most points of a grid. All points are listed before the search starts; 100,000 points take about a second.
MOST_POINTS = 100_000
#: The largest whole number in a range, and the largest length of a range: searchers compute with 64 bits.
LARGEST = 2**63 - 1
_PLAIN = "a string, a finite number, true, false or null"
Confidence = Literal["low", "medium", "high"]


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter: its values, and the conditions on other hyperparameters with which it exists (`when`)."""

    name: str
    kind: Literal["uniform", "loguniform", "int", "choice", "value"]
    low: float = 0.0
    high: float = 0.0
    #: The distance of two values of a range; None: 1 for an int, and a uniform range is continuous.
    step: float | None = None
    #: Whether an int is on a log scale.
    log: bool = False
    choices: tuple[Plain, ...] = ()
    #: Whether the values of a choice have an order: neighbours are expected to have similar results.
    ordered: bool = False
    #: The conditions with which it exists; all of them hold.
    when: tuple[Relation, ...] = ()
    #: The value that an expert would try first, if `has_prior`, and the confidence that good values are near it.
    prior: Plain = None
    has_prior: bool = False
    confidence: Confidence = "medium"

    def exists(self, params: Params) -> bool:
        """Whether the parameter exists with these values of the parameters before it."""
        return all(relation.holds(params) for relation in self.when)

    @property
    def depends_on(self) -> set[str]:
        """The parameters that its `when` names."""
        return {name for relation in self.when for name in relation.names}

    @property
    def searched(self) -> bool:
        """Whether the search chooses its value; False for a fixed value."""
        return self.kind != "value"

    @property
    def has_order(self) -> bool:
        """Whether its values have an order; False for a fixed value."""
        return self.ordered if self.kind == "choice" else self.searched

    @property
    def has_numbers(self) -> bool:
        """Whether all its values are numbers."""
        return self.kind not in ("choice", "value") or all_numbers(self.choices)

    @property
    def is_log(self) -> bool:
        """Whether the range has a log scale."""
        return self.log or self.kind == "loguniform"

    def values(self) -> Sequence[Plain] | None:
        """All values, for whole numbers as a `range`, which may be large; None for a continuous range."""
        if self.kind in ("choice", "value"):
            return self.choices
        if self.kind == "int":
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        if self.step is not None:
            return _stepped(self.low, self.high, self.step)
        return None

    def levels(self) -> Sequence[Plain] | None:
        """The values in their order, equally far apart on the scale; None for a continuous range and a log scale."""
        if self.kind == "choice" and all_numbers(self.choices):
            return sorted(self.choices)  # type: ignore[type-var]
        return None if self.is_log else self.values()

    def allows(self, value: Plain) -> bool:
        """Whether a value, for example of an earlier search, is in the range of this parameter."""
        values = self.values()
        if isinstance(values, range):  # `int in range` takes no time, `float in range` compares every number
            number = int(value) if isinstance(value, float) and value.is_integer() else value
            return isinstance(number, int) and not isinstance(number, bool) and number in values
        if values is not None and self.kind == "uniform":  # another program may write 0.30000000000000004
            return all_numbers([value]) and any(math.isclose(value, own, abs_tol=1e-12) for own in values)  # type: ignore
        if values is not None:
            return any(value == own and isinstance(value, bool) == isinstance(own, bool) for own in values)
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def describe(self) -> str:
        """The range in words, such as `loguniform [0.001, 0.1] when optimizer = sgd`."""
        if self.kind == "value":
            text = f"{self.choices[0]}"
        elif self.kind == "choice":
            numbers = all_numbers(self.choices)
            between = " < " if self.ordered and not numbers else ", "
            text = "{" + between.join(str(c) for c in self.choices) + "}"
            text += " without order" if numbers and not self.ordered else ""
        else:
            steps = f" step {self.step:g}" if self.step not in (None, 1) else ""
            text = f"{self.kind} [{self.low:g}, {self.high:g}]{' log' if self.log else ''}{steps}"
        if self.has_prior:
            text += f", prior {self.prior:g}" if isinstance(self.prior, float) else f", prior {self.prior}"
        return text + (f" when {', '.join(relation.text for relation in self.when)}" if self.when else "")


def all_numbers(values: Sequence[Plain]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


@cache
def _stepped(low: float, high: float, step: float) -> tuple[float, ...]:
    """`low`, `low + step`, ... `high`, without rounding errors: 0.3 and not 0.30000000000000004."""
    return tuple(float(f"{low + index * step:.12g}") for index in range(round((high - low) / step) + 1))


#: `suggest(parameter)` returns a value: from an Optuna trial, a prior, a random generator or a row of numbers.
Suggest = Callable[[Parameter], Any]


@dataclass(frozen=True)
class Space:
    """Parameters, ordered so that every `when` names earlier ones, and the constraints of every configuration."""

    parameters: tuple[Parameter, ...]
    constraints: tuple[Relation, ...] = ()

    @cached_property
    def by_name(self) -> Mapping[str, Parameter]:
        return {parameter.name: parameter for parameter in self.parameters}

    def violated(self, params: Params) -> list[Relation]:
        """The constraints that a configuration does not satisfy.

        A constraint is satisfied if a parameter that it names does not exist in the configuration, or if it needs a
        number where a value is none.
        """
        return [
            relation for relation in self.constraints
            if relation.holds(params) is False
            and all(name in params and self.by_name[name].exists(params) for name in relation.names)
        ]  # fmt: skip

    def sample(self, suggest: Suggest) -> Params:
        """Makes a configuration. It calls `suggest` for each parameter that exists and is searched, in their order."""
        params: Params = {}
        for parameter in self.parameters:
            if not parameter.exists(params):
                params[parameter.name] = None
            elif parameter.searched:
                params[parameter.name] = suggest(parameter)
            else:
                params[parameter.name] = parameter.choices[0]
        return params

    def grid(self, place: str) -> list[Params]:
        """Every configuration that satisfies the constraints, each once.

        Raises:
            InputError: a parameter has a continuous range, or there are more than `MOST_POINTS` configurations, those
                that violate a constraint included.
        """

        def expand(params: Params, left: tuple[Parameter, ...]) -> Iterator[Params]:
            if not left:
                yield params
                return
            first, *rest = left
            values = first.values() if first.exists(params) else (None,)
            if values is None:
                raise InputError(
                    f"{place}: space.{first.name}: {first.describe()}: a grid needs values that can be "
                    "counted; give a choice, an int range or a fixed value, or another --searcher"
                )
            for value in values:
                yield from expand({**params, first.name: value}, tuple(rest))

        points = list(itertools.islice(expand({}, self.parameters), MOST_POINTS + 1))
        if len(points) > MOST_POINTS:
            raise InputError(
                f"{place}: space: the grid has more than {MOST_POINTS:,} points; give fewer values (a range of whole "
                "numbers takes a larger step), or another --searcher"
            )
        return [point for point in points if not self.violated(point)]

    def holds(self, params: Params) -> bool:
        """Whether each value of a configuration is in the range of its parameter."""
        return all(
            p.allows(params.get(p.name)) if p.exists(params) else params.get(p.name) is None for p in self.parameters
        )

    def choices(self) -> Choices:
        """The values of each parameter by name; None for a continuous range, or a range of over `MOST_POINTS` numbers.

        The values of a parameter with a condition include None.
        """
        choices: dict[str, Any] = {}
        for parameter in self.parameters:
            values = parameter.values()
            if values is None or values[MOST_POINTS:]:
                choices[parameter.name] = None
            else:
                choices[parameter.name] = (*values, None) if parameter.when else tuple(values)
        return choices

    def fix(self, values: Params) -> Space:
        """The space with these parameters at these values."""
        if not values:
            return self
        return replace(self, parameters=tuple(
            replace(p, kind="value", choices=(values[p.name],), has_prior=False) if p.name in values else p
            for p in self.parameters
        ))  # fmt: skip

    def check_part(self, given: Params, place: str) -> None:
        """Checks a configuration that may lack hyperparameters.

        Args:
            given: values by name; None for a hyperparameter that does not exist.
            place: the source of the configuration, for messages.

        Raises:
            InputError: a hyperparameter is unknown, has a value outside its range, or does not exist beside the others.
        """
        names = [parameter.name for parameter in self.parameters]
        for name in given.keys() - names:
            near = suggestion(name, names) or ";"
            raise InputError(f"{place}: {name}: no such hyperparameter{near} there are {', '.join(names)}")
        known: Params = {}
        for p in self.parameters:
            lacking = sorted(p.depends_on - known.keys())  # drawn at random later
            if lacking or not p.exists(known):
                if given.get(p.name) is not None:
                    more = f"; give {', '.join(lacking)} too" if lacking else ""
                    raise InputError(f"{place}: {p.name}: {given[p.name]!r}: only exists as {p.describe()}{more}")
                known |= {} if lacking else {p.name: None}
            elif p.name in given:
                if not p.allows(given[p.name]):
                    allowed = f"must be a value of {p.describe()}" if p.searched else f"is fixed at {p.choices[0]!r}"
                    raise InputError(f"{place}: {p.name}: {given[p.name]!r}: {allowed}")
                known[p.name] = given[p.name]
            elif p.has_prior or not p.searched:
                known[p.name] = p.prior if p.searched else p.choices[0]

    def fixed(self) -> Params:
        """The values of the fixed parameters without a condition: they are in every configuration."""
        return {p.name: p.choices[0] for p in self.parameters if not p.searched and not p.when}


def parse_space(raw: Mapping[str, Any], place: str, narrowed: bool = False) -> Space:
    """Checks and orders a `space` section.

    Args:
        place: the file that messages name.
        narrowed: whether a condition may name a value that is not in the range of the other parameter, as `--set` may
            have narrowed the range. Then the condition never holds.

    Raises:
        InputError: naming the key, the value and what is allowed.
    """
    specs = _by_name(_flatten(raw, place), f"{place}: space")
    listed = specs.pop("constraints") if _has_constraints(specs, f"{place}: space.constraints") else []
    parsed = {name: _parameter(name, spec, f"{place}: space.{name}") for name, spec in specs.items()}
    values = {name: parameter.values() for name, parameter in parsed.items()}
    parameters = {}
    for name, p in parsed.items():
        where = f"{place}: space.{name}: when"
        for key in {key for relation in p.when for key in relation.names} - parsed.keys():  # of the form {key: value}
            raise InputError(f"{where}: {key}: no such parameter; there are {', '.join(parsed)}")
        parameters[name] = replace(p, when=tuple(relation.resolved(values, where) for relation in p.when))
    where = f"{place}: space.constraints"
    constraints = tuple(Relation.parse(text, where).resolved(values, where) for text in listed)
    space = Space(tuple(_ordered(parameters, place)), constraints)
    if not narrowed:
        for p in space.parameters:
            _check_relations(p.when, parameters, f"{place}: space.{p.name}: when")
        _check_relations(constraints, parameters, where)
    return space


def _has_constraints(specs: Mapping[str, Any], where: str) -> bool:
    """Whether the space has a list of constraints. A hyperparameter may have the name `constraints` too."""
    given = specs.get("constraints")
    if isinstance(given, str):
        raise InputError(f"{where}: {given!r}: expected a list of expressions, such as [low < high]")
    return isinstance(given, list)


def flat(values: Mapping[str, Any], place: str) -> Params:
    """The values of a configuration by dotted name: `{"model": {"width": 8}}` has the value `model.width`."""
    return _by_name(_flatten(values, place), place)


def _check_relations(relations: Iterable[Relation], parameters: Mapping[str, Parameter], where: str) -> None:
    """Raises InputError if a relation compares a parameter with a value that it never takes."""
    for relation in relations:
        for name, values in relation.compared:
            _check_condition(parameters[name], values, f"{where}: {name}")


def _check_condition(other: Parameter, allowed: Sequence[Plain], where: str) -> None:
    """Raises InputError if the condition on the parameter `other` has a value that `other` never takes.

    A fixed value may contradict the condition: it switches the conditional parameter off.
    """
    possible = other.values()
    never = [value for value in allowed if not (value is None and other.when)]  # without its own `when` it is None
    if possible is None:
        if never:
            raise InputError(
                f"{where}: {other.describe()} is continuous, so it never has the value {never[0]!r}; a condition "
                "names a choice, an int range or a fixed value"
            )
        return
    if isinstance(possible, range):
        never = [value for value in never if not (isinstance(value, int) and value in possible)]
    else:
        never = [value for value in never if value not in possible]
    if never and other.searched:
        wrong = ", ".join(repr(value) for value in never)
        shown = list(possible) if isinstance(possible, tuple) else other.describe()
        raise InputError(f"{where}: {wrong} is not a value of {other.name}; allowed: {shown}")


def _by_name(entries: Iterable[tuple[tuple[str, ...], Any]], where: str) -> dict[str, Any]:
    """The entries by their dotted names; raises InputError if two have the same name.

    Args:
        entries: the keys from the outside to the inside, and the value: `a: {b: 1}` has the keys `("a", "b")`.
    """
    values: dict[str, Any] = {}
    written: dict[str, str] = {}
    for keys, value in entries:
        name = ".".join(keys)
        shown = "{" + ": {".join(map(repr, keys)) + ": ..." + "}" * len(keys)
        if name in values:
            raise InputError(f"{where}.{name}: given twice, as {written[name]} and as {shown}; remove one of them")
        values[name], written[name] = value, shown
    return values


def listed(*spaces: Space) -> dict[str, tuple[Plain, ...]]:
    """The values of each hyperparameter with a choice of texts, in all of these spaces together.

    The task's code has a branch for each of these texts and for no other text. A choice of numbers only lists examples:
    a batch of 256 is as valid as a batch of 128.
    """
    values: dict[str, tuple[Plain, ...]] = {}
    parameters = [parameter for space in spaces for parameter in space.parameters]
    for name in {p.name for p in parameters if p.kind == "choice" and any(isinstance(c, str) for c in p.choices)}:
        own = [p for p in parameters if p.name == name]
        if all(p.kind in ("choice", "value") for p in own):
            values[name] = tuple(dict.fromkeys(value for p in own for value in p.choices))
    return values


def check_values(space: Space, allowed: Allowed, place: Callable[[str], str]) -> None:
    """Checks every value in the space: fixed values, choices, bounds and values in conditions.

    Args:
        allowed: the allowed values by hyperparameter. A hyperparameter that is missing may have any value.
        place: returns the source of a hyperparameter's values, for messages.

    Raises:
        InputError: naming the place, the value and what is allowed.
    """
    for parameter in space.parameters:
        name, where = parameter.name, place(parameter.name)
        own = allowed.get(name)
        listed = parameter.kind in ("choice", "value")
        if isinstance(own, Numbers) and own.whole and parameter.kind in ("uniform", "loguniform"):
            raise InputError(f"{where}: {parameter.kind}: expected {own}, such as {{int: [LOW, HIGH]}} gives")
        for value in parameter.choices if listed else (parameter.low, parameter.high):
            if own is not None and (why := refusal(value, own)):
                shown = f"={value}" in where or f"={value!r}" in where
                raise InputError(f"{where}: {why}" if shown else f"{where}: {value!r}: {why}")
        _check_compared(parameter.when, allowed, f"{where}: when")
    _check_compared(space.constraints, allowed, place("constraints"))


def _check_compared(relations: Iterable[Relation], allowed: Allowed, where: str) -> None:
    """Raises InputError if a relation compares a hyperparameter with a value that it is not allowed to have."""
    for relation in relations:
        for key, values in relation.compared:
            for value in values if key in allowed else ():
                if value is not None and (why := refusal(value, allowed[key])):
                    raise InputError(f"{where}: {key}: {value!r}: {why}")


def is_spec(value: Any) -> bool:
    """Whether a mapping is the spec of a parameter, not a group of parameters."""
    return isinstance(value, Mapping) and any(kind in value for kind in KINDS)


def _flatten(raw: Mapping[str, Any], place: str, outer: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The keys of each parameter from the outside to the inside, and its entry."""
    for key, value in raw.items():
        keys = (*outer, str(key))
        if isinstance(value, Mapping) and not is_spec(value):
            if not value or "when" in value:
                raise InputError(
                    f"{place}: space.{'.'.join(keys)}: {dict(value)}: expected one of {', '.join(KINDS)}, or a plain "
                    "value"
                )
            yield from _flatten(value, place, keys)
        else:
            yield keys, value


def check_spec(spec: Mapping[str, Any], where: str) -> None:
    """Raises InputError if a spec is wrong by itself, whatever the other parameters are."""
    _parameter("", spec, where)


def _parameter(name: str, spec: Any, where: str) -> Parameter:
    if isinstance(spec, list):
        near = suggestion(name.rpartition(".")[2], KINDS)
        instead = f"for one of several values: search.choice({spec}) in Python, {{choice: {spec}}} in YAML"
        raise InputError(f"{where}: {spec}: expected {_PLAIN}{near or ';'} {instead}")
    if not isinstance(spec, Mapping):
        return Parameter(name, "value", choices=(_plain(spec, where),))
    kinds = [kind for kind in KINDS if kind in spec]
    if len(kinds) > 1:
        raise InputError(f"{where}: {' and '.join(kinds)} given; exactly one is allowed")
    kind = kinds[0]
    body = spec[kind]
    own = {"uniform": ["step"], "int": ["step", "log"], "choice": ["ordered"]}.get(kind, [])
    known = ["when"] if kind == "value" else [*own, "prior", "confidence", "when"]
    if extra := set(spec) - {kind, *known}:
        allowed = ", ".join(known[:-1]) + " and " + known[-1] if known[1:] else known[0]
        raise InputError(f"{where}: {kind}: unknown key {sorted(map(str, extra))[0]!r}; beside it only {allowed}")
    when = _when(spec.get("when", {}), where)
    if kind == "value":
        return Parameter(name, "value", choices=(_plain(body, where),), when=when)
    if kind == "choice":
        if not isinstance(body, list) or not body:
            raise InputError(f"{where}: choice {body!r}: expected a list with at least one value")
        choices = tuple(_plain(item, where) for item in body)
        doubled = [c for i, c in enumerate(choices) if (type(c), c) in [(type(d), d) for d in choices[:i]]]
        if doubled:
            raise InputError(f"{where}: choice: {doubled[0]!r} stands twice")
        ordered = _flag(spec, "ordered", all_numbers(choices), where)
        return _with_prior(Parameter(name, "choice", choices=choices, ordered=ordered, when=when), spec, where)
    return _with_prior(_range(name, kind, body, spec, when, where), spec, where)  # type: ignore[arg-type]


def _flag(spec: Mapping[str, Any], key: str, default: bool, where: str) -> bool:
    value = spec.get(key, default)
    if not isinstance(value, bool):
        raise InputError(f"{where}: {key} {value!r}: expected true or false")
    return value


def _with_prior(parameter: Parameter, spec: Mapping[str, Any], where: str) -> Parameter:
    """The parameter with the prior of its entry; raises InputError if the prior is outside the range."""
    if "prior" not in spec:
        if "confidence" in spec:
            raise InputError(f"{where}: confidence {spec['confidence']!r}: needs a prior, and there is none")
        return parameter
    prior, confidence = _plain(spec["prior"], f"{where}: prior"), spec.get("confidence", "medium")
    if not parameter.allows(prior):
        raise InputError(f"{where}: prior {prior!r}: must be a value of {parameter.describe()}")
    if confidence not in get_args(Confidence):
        raise InputError(f"{where}: confidence {confidence!r}: allowed are {', '.join(get_args(Confidence))}")
    return replace(parameter, prior=prior, has_prior=True, confidence=confidence)


def _range(
    name: str, kind: Literal["uniform", "loguniform", "int"], body: Any, spec: Mapping[str, Any],
    when: tuple[Relation, ...], where: str,
) -> Parameter:  # fmt: skip
    number = int if kind == "int" else (int, float)
    is_pair = isinstance(body, list) and len(body) == 2
    if not is_pair or not all(isinstance(b, number) and not isinstance(b, bool) for b in body):
        what = "whole numbers" if kind == "int" else "numbers"
        raise InputError(f"{where}: {kind} {body!r}: expected two {what}, [low, high]")
    low, high = body
    shown = f"{where}: {kind} [{low}, {high}]"
    largest = LARGEST if kind == "int" else sys.float_info.max
    if not all(abs(number) <= largest for number in (low, high, high - low)):
        limit = "2**63 - 1" if kind == "int" else f"{largest:.4g}"
        raise InputError(f"{shown[:200]}: both bounds must be finite, and they and their difference at most {limit}")
    if low >= high:
        raise InputError(f"{shown}: the range is empty; the lower bound must be < the upper")
    log = _flag(spec, "log", False, where)
    if (kind == "loguniform" or log) and low <= 0:
        raise InputError(f"{shown}: the lower bound must be > 0")
    step = spec.get("step")
    if step is not None:
        if log:
            raise InputError(f"{shown}: step {step!r} and log: one of them is allowed")
        _check_step(step, kind, low, high, shown)
    return Parameter(name, kind, low, high, step, log, when=when)


def _check_step(step: Any, kind: str, low: float, high: float, shown: str) -> None:
    """Raises InputError if the step is no number of its kind, or does not divide the range."""
    if kind == "int":
        if isinstance(step, bool) or not isinstance(step, int) or step < 1:
            raise InputError(f"{shown}: step {step!r}: must be a whole number >= 1")
        if (high - low) % step:
            raise InputError(f"{shown}: step {step}: must divide the range {high - low}")
        return
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step < math.inf:
        raise InputError(f"{shown}: step {step!r}: must be a number > 0")
    count = (high - low) / step
    if not 1 <= round(count) < MOST_POINTS or not math.isclose(count, round(count), rel_tol=1e-9):
        raise InputError(
            f"{shown}: step {step:g}: must divide the range {high - low:g} into 1 to {MOST_POINTS:,} parts"
        )


def _when(raw: Any, where: str) -> tuple[Relation, ...]:
    """The conditions of a `when`: a mapping, an expression, or a list of these."""
    if isinstance(raw, list):
        return tuple(relation for item in raw for relation in _when(item, where))
    if isinstance(raw, str):
        return (Relation.parse(raw, f"{where}: when"),)
    if not isinstance(raw, Mapping):
        raise InputError(
            f"{where}: when {raw!r}: expected {{parameter: value}}, {{parameter: [values]}} or an expression, such as "
            "`layers > 1`"
        )
    when = []
    for key, value in _by_name(_flat_conditions(raw), f"{where}: when").items():
        values = value if isinstance(value, list) else [value]
        when.append(Relation.among(key, tuple(_plain(item, f"{where}: when: {key}") for item in values)))
    return tuple(when)


def _flat_conditions(raw: Mapping[str, Any], outer: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in raw.items():
        keys = (*outer, str(key))
        if isinstance(value, Mapping):
            yield from _flat_conditions(value, keys)
        else:
            yield keys, value


def _plain(value: Any, where: str) -> Plain:
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        if value.bit_length() > MOST_BITS:
            raise InputError(f"{where}: {too_long(value)}")
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    hint = "; give each list a name, and look it up in the training" if isinstance(value, list) else ""
    raise InputError(f"{where}: {value!r}: expected {_PLAIN}{hint}")


def _ordered(parameters: dict[str, Parameter], place: str) -> Iterator[Parameter]:
    """Yields the parameters in the order of the file, each after the parameters that its `when` names."""
    waiting = dict(parameters)
    while waiting:
        ready = next((p for p in waiting.values() if not waiting.keys() & p.depends_on), None)
        if ready is None:
            raise InputError(f"{place}: space: `when` goes round in a circle: {', '.join(waiting)}")
        del waiting[ready.name]
        yield ready
