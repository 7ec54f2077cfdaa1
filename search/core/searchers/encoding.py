"""Encodes configurations as arrays, for models that compare many of them.

A row has a column for each parameter of the space: the position of an ordered value in its range (0 to 1), or the index
of a choice without order. NaN: the parameter does not exist in the configuration.
"""

from __future__ import annotations

import numpy as np

from search.core.relations import Relation
from search.core.searchers.priors import CHANGED, CHOSEN, SPREAD, from_unit, snap, to_unit
from search.core.space import Parameter, Plain, Space, all_numbers
from trainables import Params

Array = np.ndarray
#: Further rounds of draws, if fewer draws satisfy the constraints than were asked for.
REDRAWN = 10


class Encoding:
    """Converts configurations of a space into rows and back, and draws rows."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._parameters = space.parameters
        self._column = {p.name: column for column, p in enumerate(space.parameters)}

    def row(self, params: Params) -> Array:
        """(parameters,): the row of a configuration. A number outside its range has the nearest position, another value
        outside the space is NaN."""
        return np.array([_code(p, params.get(p.name)) if p.exists(params) else np.nan for p in self._parameters])

    def params(self, row: Array) -> Params:
        """The configuration of a row (parameters,)."""
        return self.space.sample(lambda p: _value(p, row[self._column[p.name]]))

    def draw(self, rng: np.random.Generator, count: int, fixed: Params, priors: bool = False) -> Array:
        """(count, parameters): uniform draws.

        In a space with constraints the draws satisfy them. There may be fewer than `count` then. If no draw satisfies
        the constraints, the result is a draw that violates them.

        Args:
            fixed: the value of each parameter that is not drawn.
            priors: whether parameters with a prior are drawn from it.
        """
        rows = self._valid(self._drawn(rng, count, priors), fixed)
        if not self.space.constraints:
            return rows
        feasible = rows[self._satisfied(rows)]
        for _ in range(REDRAWN):
            if len(feasible) >= count:
                break
            rows = self._valid(self._drawn(rng, count, priors), fixed)
            feasible = np.concatenate([feasible, rows[self._satisfied(rows)]])
        return feasible[:count] if len(feasible) else rows[:1]

    def _drawn(self, rng: np.random.Generator, count: int, priors: bool = False) -> Array:
        """Draws of every parameter, even if it does not exist in the configuration."""
        rows = np.empty((count, len(self._parameters)))
        for column, p in enumerate(self._parameters):
            units = rng.random(count)
            if not p.has_order:
                rows[:, column] = np.minimum((units * len(p.choices)).astype(int), len(p.choices) - 1)
                if priors and p.has_prior:
                    prior = p.choices.index(p.prior)
                    rows[:, column] = np.where(rng.random(count) < CHOSEN[p.confidence], prior, rows[:, column])
            elif priors and p.has_prior:
                rows[:, column] = _reflected(to_unit(p, p.prior) + rng.normal(0, SPREAD[p.confidence], count))
            else:
                rows[:, column] = units
        return rows

    def near(self, rng: np.random.Generator, rows: Array, spread: float, fixed: Params) -> Array:
        """(n, parameters): the rows (n, parameters), each with a share `CHANGED` of its parameters changed.

        In a space with constraints rows that violate them are left out; if all do, the result is one row of `draw`.

        Args:
            spread: the standard deviation of the change of an ordered value, as a share of its range. A choice without
                order is drawn anew.
            fixed: the value of each parameter that does not change.
        """
        count, fresh = len(rows), self._drawn(rng, len(rows))
        changed = rng.random(rows.shape) < CHANGED
        changed[np.arange(count), rng.integers(rows.shape[1], size=count)] = True
        near = np.where(np.isnan(rows), fresh, rows)  # a parameter that did not exist has any value
        for column, p in enumerate(self._parameters):
            moved = _reflected(near[:, column] + rng.normal(0, spread, count)) if p.has_order else fresh[:, column]
            near[:, column] = np.where(changed[:, column], moved, near[:, column])
        near = self._valid(near, fixed)
        if not self.space.constraints:
            return near
        feasible = near[self._satisfied(near)]
        return feasible if len(feasible) else self.draw(rng, 1, fixed)

    def features(self, rows: Array) -> Array:
        """(n, features): the positions of ordered values, and choices without order one-hot.

        A parameter that does not exist is 0.5 or all zeros. Each parameter with a condition has one more feature: 1 if
        it does not exist.
        """
        columns: list[Array] = []
        for column, p in enumerate(self._parameters):
            codes = rows[:, column]
            if p.kind == "value" and not p.when:
                continue
            if p.when and p.kind != "value":
                columns.append(np.isnan(codes).astype(float))
            if p.kind == "choice" and not p.ordered:
                # The distance of two different values is 1, as that of the bounds of a range.
                columns += [(codes == index) / np.sqrt(2) for index in range(len(p.choices))]
            elif p.kind != "value":
                columns.append(np.nan_to_num(codes, nan=0.5))
        return np.stack(columns, 1) if columns else np.zeros((len(rows), 1))

    def _valid(self, rows: Array, fixed: Params) -> Array:
        """Moves positions to those of values, sets `fixed` parameters, and makes parameters NaN that do not exist."""
        rows = rows.copy()
        for column, p in enumerate(self._parameters):
            if p.name in fixed:
                rows[:, column] = _code(p, fixed[p.name])
            elif p.has_order:
                rows[:, column] = snap(p, rows[:, column])
            for relation in p.when:
                rows[[not holds for holds in self._results(relation, rows)], column] = np.nan
        return rows

    def _satisfied(self, rows: Array) -> Array:
        """(n,): whether rows satisfy the constraints, as `Space.violated` has it."""
        satisfied = np.ones(len(rows), dtype=bool)
        for relation in self.space.constraints:
            exist = ~np.isnan(rows[:, [self._column[name] for name in relation.names]]).any(axis=1)
            satisfied &= ~exist | np.array([result is not False for result in self._results(relation, rows)])
        return satisfied

    def _results(self, relation: Relation, rows: Array) -> list[bool | None]:
        """`Relation.holds` of each row, computed once for equal rows."""
        parameters = [self._parameters[self._column[name]] for name in relation.names]
        codes = rows[:, [self._column[name] for name in relation.names]]
        if codes.shape[1] == 1:  # a tenth of the time of unique rows
            different, index = np.unique(codes[:, 0], return_inverse=True)
            different = different[:, None]
        else:
            different, index = np.unique(codes, axis=0, return_inverse=True)
        results = [
            relation.holds({p.name: _value(p, code) for p, code in zip(parameters, row, strict=True)})
            for row in different
        ]
        return [results[i] for i in np.reshape(index, -1)]


def _value(p: Parameter, code: float) -> Plain:
    """The value of a code; None for NaN."""
    if np.isnan(code):
        return None
    return from_unit(p, float(code)) if p.has_order else p.choices[int(code)]


def _code(p: Parameter, value: Plain) -> float:
    if p.kind in ("choice", "value") and not (p.has_order and all_numbers(p.choices)):
        if value not in p.choices:
            return float("nan")
        return to_unit(p, value) if p.has_order else float(p.choices.index(value))
    return to_unit(p, value) if isinstance(value, int | float) else float("nan")


def _reflected(units: Array) -> Array:
    """Positions reflected at 0 and 1: -0.1 becomes 0.1, and 1.1 becomes 0.9."""
    folded = np.abs(units) % 2.0
    return np.where(folded > 1, 2 - folded, folded)
