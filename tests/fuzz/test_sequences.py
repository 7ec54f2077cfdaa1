"""Random sequences of commands and faults, after each of which a search must be whole.

A sequence is a `Case` and a list of actions. A `Case` holds names, values, a searcher and the epochs that fail. The
actions are:

- `Go` runs `run` or `resume`, perhaps with more trials or epochs, perhaps with a `Fault` in the middle.
- `Database` deletes MLflow's database, restores an older copy of it, or changes the tracking URI.
- `Damage` spoils a file.

Hypothesis draws the case and the actions (sequences.py). `play` does the actions and ends with one undisturbed
`resume` (world.py). Then the promises are checked (promises.py):

1. Nothing is lost: every event of the journal is in MLflow, and every epoch that was acknowledged is in the journal.
2. Nothing is doubled: a run for each trial and final training, a value of each metric a step, a version for each model.
3. The same bits: configurations, curves, outcomes, the final model and its test are those of a search with the same
   requests that nothing disturbed. A damaged file may be refused, and is then restored.
4. No raw error: what ends a command is an `InputError` of one line, or Ctrl-C.

**What is real.** Commands, journal, state, searchers, schedulers, checkpoints, `TaskTrainable`, the final training, the
tracker's thread and MLflow on sqlite. `tests/ray_here.py` stands for Ray: one trial trains at a time in this thread, so
that the same sequence always does the same. A kill is an exception of the operation of the disk or the database that it
meets (disk.py), after which no operation of that command takes place any more.

**How many.** 20 sequences in the default suite and 280 more with `-m nightly`, in tests of 20, each with a seed of its
own. More, with other seeds, on several processes::

    FUZZ_SEQUENCES=5000 FUZZ_SEED=1000 pytest -o addopts= -q -n 8 tests/fuzz

**A sequence that fails** is printed by Hypothesis, made as short as possible::

    Falsifying example: one(case=Case(kind='task', ...), actions=[Go(fault=Fault(kind='kill', at=17)), ...])

Add it to `FOUND` below, which plays it again: `pytest tests/fuzz -k found`. The numbers of operations in it belong to
the code of that day; where a fault has to meet a certain one, give a range.

**What is held back.** `HELD_BACK` in known.py names defects that are known and not mended, and is empty where there
are none. `FUZZ_TRY=all` tries everything.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.known import HELD_BACK
from tests.fuzz.promises import hold
from tests.fuzz.sequences import SEQUENCES, cases
from tests.fuzz.world import Action, Broken, Case, Damage, Database, Fault, Go, World

# A kill is an exception, and some of them meet code that Python runs as it frees an object.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

#: Sequences of a test; in a test of minutes a failure would be waited for too long.
EACH = 20
_ASKED = os.environ.get("FUZZ_SEQUENCES")
_FIRST = int(os.environ.get("FUZZ_SEED", "1"))
_SEEDS = range(_FIRST, _FIRST + math.ceil(int(_ASKED or 300) / EACH))


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """One folder for all sequences, as MLflow keeps what it knows of a database by its address."""
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "number", [pytest.param(s, marks=[] if _ASKED or s == _FIRST else pytest.mark.nightly) for s in _SEEDS]
)
def test_random_sequence(number, folder, empty_store):
    @seed(number)
    @settings(
        max_examples=EACH, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cases(), SEQUENCES)
    def one(case: Case, actions: list[Action]) -> None:
        hold(case, actions, folder, empty_store)

    one()


SMALL = Case("function", trials=1, epochs=1)
MODEL = Case("task", trials=1, epochs=1)
FINAL = replace(SMALL, tests=True, epochs=2)
#: Sequences that broke a promise once: the defect that still breaks it, if there is one, and what was searched.
FOUND = {
    "name that MLflow refuses": ("names", replace(SMALL, objective="acc@1 min"), []),
    "long name": ("names", replace(SMALL, metrics={"n" * 300: (1.0,)}), []),
    "objective with an ampersand": ("query", replace(SMALL, objective="x&y min"), []),
    "NumPy value of a hyperparameter": ("numpy", replace(SMALL, space={"lr": {"choice": [np.float64(0.1), 1.0]}}), []),
    "NumPy metric of a task": (None, replace(MODEL, retrain=False, metrics={"f1": (np.float32(0.1),)}), []),
    "metric called seconds": ("reserved", replace(SMALL, metrics={"seconds": (2.0,)}), []),
    "hyperparameter called task": ("task", replace(MODEL, space={"task": "a"}), []),
    "whole numbers to 2**40": ("wide", replace(SMALL, space={"n": {"int": [0, 2**40]}}, searcher="tpe", warm=True), []),
    "database deleted": ("database", SMALL, [Go(), Database("delete")]),
    "database of yesterday": ("database", SMALL, [Go(), Database("back up"), Go(trials=1), Database("restore")]),
    "other tracking address": ("database", SMALL, [Go(), Database("other")]),
    "kill while a deleted database gets the search again": (
        None, replace(SMALL, seed=0, warm=True), [Go(trials=1), Database("delete"), Go(Fault("kill", 120))],
    ),
    "truth value as a metric of a task": (None, replace(MODEL, retrain=False, metrics={"right": (True,)}), []),
    "whole number beyond every float": (None, replace(MODEL, retrain=False, metrics={"size": (10**400,)}), []),
    "shortened journal": ("shortened", SMALL, [Go(), Damage("journal", "truncate", 0.5), Go(trials=1)]),
    "torn search.json": ("description", SMALL, [Go(), Damage("search.json", "truncate", 0.5)]),
    "more trials before a command that asked for more epochs": (
        None, replace(SMALL, scheduler="asha-predict", warm=True), [Go(), Go(Fault("more", 1), epochs=1)],
    ),
    "final training over the model of a killed session": (
        None,
        Case("task", {"lr": "{}", "A": "sgd"}, {"lr": (5.97, 0.0), "[red]": (3.2, 0.0)}, {(3, 2): "raise"}, "random",
             "none", trials=2, epochs=2, seed=3, warm=True),
        [Go(Fault("raise", 2)), Database("back up"), Go(Fault("kill", 169), epochs=1), Go(epochs=1)],
    ),
    "database deleted after a longer final training": (
        None, replace(MODEL, warm=True), [Go(), Go(epochs=1), Database("delete")],
    ),
    "shortened journal of a search with a final training": (
        None,
        replace(MODEL, warm=True),
        [Go(epochs=1), Go(Fault("raise", 1), trials=1), Damage("journal", "truncate", 0.2354793305676593)],
    ),
    "torn count of delivered events": ("description", SMALL, [Go(), Damage("delivered", "truncate", 0.0)]),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_found_sequence(name, folder, empty_store):
    held_back, case, actions = FOUND[name]
    if held_back in HELD_BACK:
        pytest.skip(f"held back: {HELD_BACK[held_back]}")
    hold(case, actions, folder, empty_store)


def operations(case: Case, folder: Path, empty: Path) -> list[str]:
    """What an undisturbed run does to the disk and the database, in order."""
    world = World(folder / "world", case, empty)
    world.do(Go())
    return world.disk.done


@pytest.mark.parametrize("what", ["mkdir s", "write train.pkl", "open journal.jsonl", "write journal.jsonl"])
def test_disk_full_and_resumed(what, folder, empty_store):
    done = operations(SMALL, folder, empty_store)
    for at in {done.index(what), len(done) - 1 - done[::-1].index(what)}:
        hold(SMALL, [Go(Fault("full", at + 1))], folder, empty_store)


@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    "kind", ["kill", *(pytest.param(kind, marks=pytest.mark.nightly) for kind in ("torn", "full", "once"))]
)
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(SMALL, id="function", marks=pytest.mark.slow),
        # 290 operations, about a second each
        pytest.param(MODEL, id="model", marks=pytest.mark.nightly),
    ],
)
def test_fault_at_each_operation(case, kind, folder, empty_store):
    for at, what in enumerate(operations(case, folder, empty_store), 1):
        try:
            hold(case, [Go(Fault(kind, at))], folder, empty_store)
        except Broken as error:
            raise AssertionError(f"{kind} at operation {at}, {what}: {error}") from error


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(FINAL, id="function"),
        pytest.param(replace(FINAL, keeps=False), id="function without parts", marks=pytest.mark.nightly),
        pytest.param(replace(FINAL, kind="command", scheduler="asha"), id="command"),
    ],
)
def test_final_training_of_a_program_killed_twice(case, folder, empty_store):
    """Once in the trials and once in the final training, at several operations: one test figure, one model."""
    done = operations(case, folder, empty_store)
    written = [at for at, what in enumerate(done, 1) if what == "write journal.jsonl"]
    late = [at for at, what in enumerate(done, 1) if "final" in what or "model" in what]
    assert late, "no operation of the final training was seen"
    for at in (written[-2], late[0], late[len(late) // 2], late[-1]):
        hold(case, [Go(Fault("kill", written[3])), Go(Fault("kill", max(1, at - written[3])))], folder, empty_store)


def test_kill_before_warm_start(folder, empty_store):
    case = replace(SMALL, searcher="tpe", warm=True)
    begun = operations(case, folder, empty_store).index("write journal.jsonl")
    for kind, later in (("kill", 0), ("torn", 0), ("kill", 1)):
        hold(case, [Go(Fault(kind, begun + 1 + later))], folder, empty_store)


def test_kill_after_more_trials_were_asked_for(folder, empty_store):
    world = World(folder / "world", SMALL, empty_store)
    world.do(Go())
    world.do(Go(trials=1))
    written = 1 + world.disk.done.index("replace search.json")
    hold(SMALL, [Go(), Go(Fault("kill", written + 1), trials=1)], folder, empty_store)


def test_second_interrupt_in_a_record(folder, empty_store):
    case = replace(SMALL, trials=2)
    done = operations(case, folder, empty_store)
    written = [at for at, what in enumerate(done, 1) if what == "write journal.jsonl"]
    for at in written[1:3]:  # a trial and a result; after the write comes the sync
        hold(case, [Go(Fault("interrupts", at + 1))], folder, empty_store)
