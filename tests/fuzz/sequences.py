"""Strategies for cases and for what happens to them."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.fuzz.known import HELD_BACK
from tests.fuzz.world import Action, Case, Damage, Database, Fault, Go

#: Names as people give them, and names that hurt.
_ANY_NAME = st.one_of(
    st.sampled_from([
        "lr", "acc@1", "recall@10", "lr[0]", "a//b", "/a", "a/", "../a", ".", "..", "a b", " ", "größe", "学习率",
        "a.b",
        "loss", "epochs", "seconds", "outcome", "seed", "number", "task", "epoch", "model", "n" * 300, "a\nb", "a\tb",
        "50%", "x=y", "x&y", "`x`", "'x'", '"', "\\", "[red]", "\u001b[31m", "😀", "val_loss", "search.run", "A", "a",
    ]),
    st.text(min_size=1, max_size=6),
)  # fmt: skip
_TAKEN = re.compile(r"[A-Za-z0-9_][\w. -]{0,100}")
NAMES = _ANY_NAME.filter(_TAKEN.fullmatch) if "names" in HELD_BACK else _ANY_NAME
#: Figures that a trial's run has beside what it measured.
_FIGURES = ("seconds", "cost", "cpu_seconds", "gpu_seconds", "energy_joules", "best_epoch")
METRICS = NAMES.filter(lambda name: name not in _FIGURES) if "reserved" in HELD_BACK else NAMES
OBJECTIVES = METRICS.filter(re.compile(r"\w+").fullmatch) if "query" in HELD_BACK else METRICS
PARAMETERS = NAMES.filter(lambda name: name != "task") if "task" in HELD_BACK else NAMES
TEXTS = st.one_of(
    st.sampled_from(["sgd", "", " ", "None", "nan", "1e3", "x" * 7000, "a\u0000b", "\u001b[2J", "a\nb", "größe", "{}"]),
    st.text(max_size=8),
)
#: Values that a YAML file can hold.
PLAIN = st.one_of(
    TEXTS, st.none(), st.booleans(), st.integers(-3, 300), st.sampled_from([10**30, -(2**63), 2**64]),
    st.sampled_from([0.0, -0.0, 1e-300, 5e-324, 1e300, 0.1, -1.5]),
)  # fmt: skip
#: Values that a program has besides.
NUMPY = st.sampled_from([np.float64(0.1), np.float32(0.1), np.int64(3), np.bool_(True), np.str_("adam")])
MEASURED = st.one_of(
    st.floats(-10, 10),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e-300, 1e300, 0, 7, True, 10**30, np.float64(0.5)]),
    *([] if "wide" in HELD_BACK else [st.just(10**400)]),
    st.sampled_from([np.float32(0.1), np.int64(3), np.bool_(True)]),
)


def specs(values: st.SearchStrategy[Any], counted: bool) -> st.SearchStrategy[Any]:
    """An entry of a space: a fixed value, a choice, or a range; of a grid only what can be counted."""
    choices = st.lists(values, min_size=2, max_size=3).map(lambda several: {"choice": several})
    most = 2 if "wide" in HELD_BACK else 2**40
    ranges = st.sampled_from([
        {"uniform": [0, 1]}, {"loguniform": [1e-300, 1.0]}, {"uniform": [-1e300, 1e300]}, {"loguniform": [1e-4, 1e-1]},
        {"int": [0, most]},
    ])  # fmt: skip
    return st.one_of(values, choices, st.just({"int": [0, 1]}), *([] if counted else [ranges]))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Anything that a person could search."""
    kind = draw(st.sampled_from(["function", "task"]))
    searcher = draw(st.sampled_from(["random", "random", "grid", "tpe", "ranks"]))
    scheduler = draw(st.sampled_from(["none", "asha", "asha-promote", "asha-predict", "median", "hyperband"]))
    strange = draw(st.booleans())
    values = st.one_of(PLAIN, NUMPY) if kind == "function" and "numpy" not in HELD_BACK else PLAIN
    space = draw(st.dictionaries(PARAMETERS, specs(values, searcher == "grid"), max_size=2)) if strange else {}
    metrics = draw(st.dictionaries(METRICS, st.tuples(MEASURED, MEASURED), max_size=2)) if strange else {}
    faults = draw(st.dictionaries(
        st.tuples(st.integers(0, 3), st.integers(1, 3)),
        st.sampled_from(["raise", "diverge", "nan", *(["memory"] if kind == "task" else [])]), max_size=2,
    ))  # fmt: skip
    objective = draw(OBJECTIVES) if strange and kind == "function" else "loss"
    return Case(
        kind, {key: value for key, value in space.items() if key != "case"},
        {key: value for key, value in metrics.items() if key not in ("score", "loss", objective)}, faults,
        searcher, scheduler, draw(st.integers(1, 4)), draw(st.integers(1, 3)), kind == "task" and draw(st.booleans()),
        draw(st.booleans()) if kind == "function" else True, f"{objective} {draw(st.sampled_from(['min', 'max']))}",
        draw(st.integers(0, 3)), draw(st.integers(0, 3)) == 0, kind == "function" and draw(st.booleans()),
    )  # fmt: skip


_FILES = ["journal", "checkpoint", *([] if "torn" in HELD_BACK else ["final"]),
          *([] if "description" in HELD_BACK else ["search.json", "delivered"])]  # fmt: skip
_WAYS = ["truncate", "delete", *([] if "torn" in HELD_BACK else ["zero"]), *([] if "flips" in HELD_BACK else ["flip"])]
_KINDS = ["kill", "kill", "kill", "torn", "full", "once", "interrupt", "interrupts", "resume",
          *([] if "lock" in HELD_BACK else ["more", "run"])]  # fmt: skip
FAULTS = st.one_of(
    st.builds(Fault, st.sampled_from(_KINDS), st.one_of(st.integers(1, 60), st.integers(1, 360))),
    st.builds(Fault, st.sampled_from(["raise", "lost"]), st.integers(1, 6)),
)
ACTIONS: st.SearchStrategy[Action] = st.one_of(
    st.builds(Go, FAULTS),
    st.builds(Go, FAULTS),
    st.builds(Go, st.one_of(st.none(), FAULTS), st.integers(0, 2), st.sampled_from([0, 0, 1])),
    *([] if "database" in HELD_BACK
      else [st.builds(Database, st.sampled_from(["back up", "restore", "delete", "other"]))]),
    st.builds(Damage, st.sampled_from(_FILES), st.sampled_from(_WAYS), st.floats(0, 1)),
)  # fmt: skip
SEQUENCES = st.lists(ACTIONS, max_size=5)
