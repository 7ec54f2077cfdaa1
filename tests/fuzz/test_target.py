"""A search with a target, whose driver is killed before, while and after it is reached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from search.core.journal import read_events
from search.core.requests import ChangeSettings, Mailbox
from tests.fuzz.promises import check
from tests.fuzz.world import Broken, Case, Fault, Go, World, play, undisturbed

FUNCTION = Case("function", trials=4, epochs=4, tests=True)
TASK = Case("task", trials=3, epochs=3)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """One folder for all searches, as MLflow keeps what it knows of a database by its address."""
    return tmp_path_factory.mktemp("target")


def with_target(case: Case, folder: Path, empty: Path) -> tuple[Case, World]:
    """The case whose target is the best value that the search finds without one, and a world whose search ran to it."""
    free = World(folder / "free", case, empty, tracked=False)
    free.do(Go())
    best = free.state().best()
    assert best is not None
    case = replace(case, target=best.best_value)
    world = World(folder / "world", case, empty, tracked=False)
    world.do(Go())
    assert [limit["why"] for limit in world.state().limits] == ["target"]
    assert world.state().final is not None, "the final training follows"
    return case, world


def epochs_of(world: World) -> int:
    return sum(trial.epoch for trial in world.state().trials.values())


@pytest.mark.timeout(900)
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("case", [pytest.param(FUNCTION, id="function"), pytest.param(TASK, id="task")])
def test_killed_around_the_target(case, every, folder, empty_store):
    case, world = with_target(case, folder, empty_store)
    done = world.disk.done
    final = next(at for at, what in enumerate(done, 1) if what.startswith("mkdir model-"))
    reference = undisturbed(case, [(case.trials, case.epochs)], folder / "undisturbed", empty_store)
    for at in range(final - 14, final + 4, every):
        try:
            check(play(case, [Go(Fault("kill", at))], folder / "killed", empty_store), reference)
        except Broken as error:
            raise AssertionError(f"killed at operation {at}, {done[at - 1]}: {error}") from error


def test_resume_after_the_target_says_so_and_trains_no_more(folder, empty_store):
    _, world = with_target(FUNCTION, folder, empty_store)
    before = list(read_events(world.folder.journal))
    world.do(Go())
    assert "ended by its target: trial" in world.last_output
    trained = [event for event in list(read_events(world.folder.journal))[len(before) :] if event["event"] == "result"]
    assert not trained


def test_another_target_and_more_trials_let_the_search_go_on(folder, empty_store):
    _, world = with_target(FUNCTION, folder, empty_store)
    trained = epochs_of(world)
    Mailbox.of(world.folder).put(ChangeSettings({"target": None}))
    world.do(Go())
    assert epochs_of(world) > trained
    assert {trial.outcome for trial in world.state().trials.values()} == {"completed"}
    _, world = with_target(FUNCTION, folder, empty_store)
    world.do(Go(trials=2))
    assert len(world.state().trials) == 6
    assert {trial.outcome for trial in world.state().trials.values()} == {"completed"}
