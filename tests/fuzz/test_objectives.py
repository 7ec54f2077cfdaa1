"""A search with two objectives and a preference, whose driver is killed in its trials and in its final training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.promises import check
from tests.fuzz.world import Broken, Case, Fault, Go, World, play, undisturbed

CASE = Case(
    "function", metrics={"size": (1.0, 2.0, 3.0, 4.0)}, searcher="ranks", scheduler="asha-predict", trials=6, epochs=4,
    tests=True, objective="loss max", objectives=("loss max", "size min"), preference={"loss": 1.0, "size": 2.0},
)  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """One folder for all searches, as MLflow keeps what it knows of a database by its address."""
    return tmp_path_factory.mktemp("objectives")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.nightly)])
def test_killed_search_of_two_objectives_equals_the_uninterrupted_one(kills, folder, empty_store):
    world = World(folder / "world", CASE, empty_store, tracked=False)
    world.do(Go())
    done, state = world.disk.done, world.state()
    assert state.final is not None and state.final.trial == state.best().number
    assert len(state.front()) > 1, "the preference has a choice"
    written = [at for at, what in enumerate(done, 1) if what == "write journal.jsonl"]
    reference = undisturbed(CASE, [(CASE.trials, CASE.epochs)], folder / "undisturbed", empty_store)
    for at in written[2 :: max(1, len(written) // kills)]:
        try:
            check(play(CASE, [Go(Fault("kill", at))], folder / "killed", empty_store), reference)
        except Broken as error:
            raise AssertionError(f"killed at operation {at}, {done[at - 1]}: {error}") from error
