"""Finds configurations that satisfy the constraints of a space.

Constraints that share a searched parameter form a group. A group is a space of its own. It has the parameters that its
constraints name, and the parameters on which their existence depends. Groups are solved one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from search.core.relations import Relation
from search.core.searchers import priors
from search.core.space import MOST_POINTS, Parameter, Plain, Space
from trainables import InputError, Params

#: A group with at most this many points is listed: the nearest point is then exact. 2,000 points take 0.05 s.
LISTED = 2_000
#: Draws from which a configuration is searched, and changes after each draw. Their product limits the time of an error.
STARTS, STEPS = 50, 20
#: Values of a parameter that a change tries, if the parameter has more.
LEVELS = 200


class Solver:
    """Moves configurations of a space to the nearest ones that satisfy its constraints."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.groups = [_Group(group) for group in _groups(space)]

    def nearest(self, params: Params, rng: np.random.Generator) -> Params | None:
        """The configuration if it satisfies the constraints, else a near one; None if none was found.

        Few values change, and by little. A parameter that exists only after the change gets its prior, or a random
        value.
        """
        changed = dict(params)
        for group in self.groups:
            if (solved := group.nearest(params, rng)) is None:
                return None
            changed |= solved
        return priors.complete(self.space, changed, rng)


class _Group:
    """Constraints that share parameters."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._searched = [p for p in space.parameters if p.searched]

    @cached_property
    def points(self) -> list[Params] | None:
        """All configurations of the group that satisfy its constraints; None for a large group."""
        return self._points(LISTED)

    @cached_property
    def witness(self) -> Params | None:
        """A configuration of the group that satisfies its constraints; None if none was found."""
        if self.points is not None:
            return next(iter(self.points), None)
        rng = np.random.default_rng(0)
        for _ in range(STARTS):
            drawn = self.space.sample(lambda p: priors.draw_uniform(p, rng))
            if (found := self._walk(drawn, rng)) is not None:
                return found
        return next(iter(self._points(MOST_POINTS) or ()), None)

    def _points(self, most: int) -> list[Params] | None:
        size = 1
        for p in self._searched:
            if (values := p.values()) is None or (size := size * len(values)) > most:
                return None
        return self.space.grid("")

    @property
    def is_listed(self) -> bool:
        """Whether every configuration was looked at, so that None as a witness is a proof."""
        return self._points(MOST_POINTS) is not None

    def nearest(self, params: Params, rng: np.random.Generator) -> Params | None:
        """The values of the group's parameters after the change; None if none were found."""
        own = {p.name: params.get(p.name) for p in self.space.parameters}
        if not self.space.violated(own):
            return own
        if self.points is not None:
            return min(self.points, key=lambda point: self._distance(own, point), default=None)
        return self._walk(own, rng) or self.witness

    def _walk(self, params: Params, rng: np.random.Generator) -> Params | None:
        """Changes a value at a time, each time that with the fewest violations, and among these the nearest.

        If no change reduces the violations, a random change is made.
        """
        now = params
        for _ in range(STEPS):
            if not (broken := self.space.violated(now)):
                return now
            changes = list(self._changes(now, broken[rng.integers(len(broken))], rng))
            if not changes:
                return None
            best = min(changes, key=lambda change: (len(self.space.violated(change)), self._distance(params, change)))
            better = len(self.space.violated(best)) < len(broken)
            now = best if better else changes[rng.integers(len(changes))]
        return None

    def _changes(self, now: Params, relation: Relation, rng: np.random.Generator) -> Iterator[Params]:
        """The configurations in which one value differs: of a parameter that the relation names, or its condition."""
        names = _with_conditions(self.space, set(relation.names))
        others = [now[name] for name in relation.names]
        for p in self._searched:
            if p.name in names and p.exists(now):
                for value in (*_levels(p, rng), *filter(p.allows, others)):
                    if value != now[p.name]:
                        yield priors.complete(self.space, {**now, p.name: value}, rng)

    def _distance(self, one: Params, other: Params) -> float:
        """The sum of the squared differences of positions in ranges; 1 for a choice without order that differs."""
        total = 0.0
        for p in self._searched:
            first, second = one[p.name], other[p.name]
            if first != second:
                apart = p.has_order and first is not None and second is not None
                total += (priors.to_unit(p, first) - priors.to_unit(p, second)) ** 2 if apart else 1.0
        return total


def _levels(p: Parameter, rng: np.random.Generator) -> list[Plain]:
    """All values of a parameter, or `LEVELS` random values with the bounds."""
    values = p.values()
    if values is not None and len(values) <= LEVELS:
        return list(values)
    return [priors.from_unit(p, unit) for unit in (0.0, 1.0, *rng.random(LEVELS))]


def _groups(space: Space) -> list[Space]:
    groups: list[tuple[set[str], list[Relation]]] = []
    searched = {p.name for p in space.parameters if p.searched}
    for relation in space.constraints:
        names, relations = _with_conditions(space, set(relation.names)), [relation]
        for group in [group for group in groups if group[0] & names & searched]:
            groups.remove(group)
            names, relations = names | group[0], [*group[1], *relations]
        groups.append((names, relations))
    return [
        Space(tuple(p for p in space.parameters if p.name in names), tuple(relations)) for names, relations in groups
    ]


def _with_conditions(space: Space, names: set[str]) -> set[str]:
    """The names, and those of the parameters with which they exist."""
    for p in reversed(space.parameters):  # a condition names earlier parameters
        if p.name in names:
            names = names | p.depends_on
    return names


def check_satisfiable(space: Space, place: str, given: Params) -> None:
    """Raises InputError if no configuration of the space satisfies its constraints.

    Args:
        given: the values that the configuration has already.
    """
    given = {name: value for name, value in given.items() if value is not None}
    for group in Solver(space.fix(given)).groups:
        if group.witness is None:
            raise InputError(f"{place}: {_problem(group)}")


def _problem(group: _Group) -> str:
    """Why a group cannot be satisfied: by the first constraint that is not satisfiable alone, else by all together."""
    alone = (_Group(replace(group.space, constraints=(relation,))) for relation in group.space.constraints)
    group = next((single for single in alone if single.witness is None), group)
    constraints = group.space.constraints
    texts = " and ".join(f"`{relation.text}`" for relation in constraints)
    names = {name for relation in constraints for name in relation.names}
    values = [f"{p.name}={p.choices[0]!r}" for p in group.space.parameters if p.name in names and not p.searched]
    beside = f" with {', '.join(values)}" if values else ""
    if group.is_listed:
        return f"{texts}: no configuration satisfies this{beside}; change a range, a value or a constraint"
    return (
        f"{texts}: found no configuration that satisfies this{beside}; leave more room, such as <= instead of ==, or "
        "give a range a step"
    )
