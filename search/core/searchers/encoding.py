"""Encodes configurations as arrays, for models that compare many of them.

A row has a column for each parameter of the space: the position of an ordered value in its range (0 to 1), or the index
of a choice without order. NaN: the parameter does not exist in the configuration.
"""

from __future__ import annotations

import numpy as np

from search.core.searchers.priors import CHANGED, CHOSEN, SPREAD, from_unit, snap, to_unit
from search.core.space import Parameter, Plain, Space, all_numbers
from trainables import Params

Array = np.ndarray


class Encoding:
    """Converts configurations of a space into rows and back, and draws rows."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._parameters = space.parameters

    def row(self, params: Params) -> Array:
        """(parameters,): the row of a configuration. A number outside its range has the nearest position, another value
        outside the space is NaN."""
        return np.array([_code(p, params.get(p.name)) if p.exists(params) else np.nan for p in self._parameters])

    def params(self, row: Array) -> Params:
        """The configuration of a row (parameters,)."""
        values = dict(zip((p.name for p in self._parameters), row, strict=True))

        def decode(p: Parameter) -> object:
            code = values[p.name]
            return from_unit(p, float(code)) if p.has_order else p.choices[int(code)]

        return self.space.sample(decode)

    def draw(self, rng: np.random.Generator, count: int, fixed: Params, priors: bool = False) -> Array:
        """(count, parameters): uniform draws.

        Args:
            fixed: the value of each parameter that is not drawn.
            priors: whether parameters with a prior are drawn from it.
        """
        return self._valid(self._drawn(rng, count, priors), fixed)

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
        return self._valid(near, fixed)

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
            exists = np.ones(len(rows), dtype=bool)
            for name, allowed in p.when.items():
                other = next(i for i, earlier in enumerate(self._parameters) if earlier.name == name)
                exists &= self._is_one_of(rows[:, other], self._parameters[other], allowed)
            rows[~exists, column] = np.nan
        return rows

    @staticmethod
    def _is_one_of(codes: Array, p: Parameter, allowed: tuple[object, ...]) -> Array:
        if not p.has_order:
            return np.isin(codes, [index for index, value in enumerate(p.choices) if value in allowed])
        return np.array([not np.isnan(code) and from_unit(p, float(code)) in allowed for code in codes])


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
