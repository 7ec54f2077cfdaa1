"""Requests to a running search, with a driver that is killed before, while and after they take effect.

Each case names requests and the epochs after which another process sends them. The driver is killed at each operation
around its answer: before the request is in the journal, between the journal and the act, between the act and the
answer, and after it. A search that is resumed comes to the same bits as one that was not killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.core.journal import read_events
from search.core.requests import (
    AddTrials,
    ChangeSettings,
    Configuration,
    ContinueTrials,
    Mailbox,
    PauseTrials,
    StopSearch,
    StopTrials,
)
from tests.fuzz.promises import check
from tests.fuzz.world import Asked, Broken, Case, Fault, Go, World, play, undisturbed

# A kill is an exception, and some of them meet code that Python runs as it frees an object.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

TRAINED = Case("function", trials=3, epochs=3)
ADDED = AddTrials((Configuration({"case": 3}), Configuration({"case": 0})))
FORK = AddTrials((Configuration({"case": 3}, from_trial=0, from_checkpoint=True),))
WIDER = ChangeSettings({"trials": "+1", "space.case": {"int": [1, 9]}})
CASES = {
    "stop a trial": (Asked(0, 1, StopTrials((0,))),),
    "stop the search": (Asked(1, 1, StopSearch()),),
    "pause and continue a trial": (Asked(0, 1, PauseTrials((0,))), Asked(2, 1, ContinueTrials((0,)))),
    "pause and continue the search": (Asked(1, 1, PauseTrials()), Asked(1, 2, ContinueTrials())),
    "add": (Asked(1, 1, ADDED),),
    "fork": (Asked(0, 2, FORK),),
    "set": (Asked(1, 1, WIDER),),
    "several": (Asked(0, 1, StopTrials((0,))), Asked(1, 1, WIDER), Asked(1, 2, ADDED), Asked(2, 1, StopSearch())),
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """One folder for all sequences, as MLflow keeps what it knows of a database by its address."""
    return tmp_path_factory.mktemp("requests")


def played(case: Case, folder: Path, empty: Path) -> World:
    """A world whose search ran once, undisturbed."""
    world = World(folder / "world", case, empty, tracked=False)
    world.do(Go())
    return world


def events(world: World, *kinds: str) -> list[Any]:
    return [event for event in read_events(world.folder.journal) if event["event"] in kinds]


#: Operations, counted from the one that opens the file of an answer: from before the request is in the journal until
#: after its file is deleted. Three of them are in the default suite.
EACH, THREE = tuple(range(-3, 8)), (-1, 1, 6)


def around_the_answers(done: list[str], near: Sequence[int]) -> list[int]:
    """The numbers of the operations `near` each answer."""
    opened = [at for at, what in enumerate(done, 1) if what.startswith("open ") and what.endswith(".answer")]
    return sorted({at + offset for at in opened for offset in near if 0 < at + offset <= len(done)})


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("asks", [pytest.param(asks, id=name) for name, asks in CASES.items()])
@pytest.mark.parametrize(
    ("kind", "near"),
    [
        pytest.param("kill", THREE, id="kill"),
        pytest.param("kill", EACH, id="kill at each", marks=pytest.mark.nightly),
        pytest.param("torn", EACH, id="torn at each", marks=pytest.mark.nightly),
    ],
)
def test_killed_around_the_answer(asks, kind, near, folder, empty_store):
    case = replace(TRAINED, asks=asks)
    done = played(case, folder, empty_store).disk.done
    numbers = around_the_answers(done, near)
    assert numbers, "no request was answered"
    reference = undisturbed(case, [(case.trials, case.epochs)], folder / "undisturbed", empty_store)
    for at in numbers:
        try:
            check(play(case, [Go(Fault(kind, at))], folder / "killed", empty_store), reference)
        except Broken as error:
            raise AssertionError(f"{kind} at operation {at}, {done[at - 1]}: {error}") from error


def test_more_trials_after_a_request_changed_their_number(folder, empty_store):
    """`resume --trials +1` adds to the number that the request set, wherever the command is killed."""
    case = replace(TRAINED, asks=(Asked(0, 1, ChangeSettings({"trials": "+1"})),))
    world = played(case, folder, empty_store)
    assert len(world.state().trials) == 4
    world.do(Go(trials=1))
    assert len(world.state().trials) == 5
    written = 1 + world.disk.done.index("replace search.json")
    for at in range(written, written + 6):
        world = played(case, folder, empty_store)
        world.do(Go(Fault("kill", at), trials=1))
        world.do(Go())
        assert len(world.state().trials) == (4 if at == written else 5), f"killed at operation {at}"


def test_search_that_is_stopped_without_a_final_training_goes_on_later(folder, empty_store):
    case = replace(TRAINED, asks=(Asked(1, 1, StopSearch(retrain=False)),))
    world = played(case, folder, empty_store)
    assert world.state().status == "interrupted"
    world.do(Go())
    assert [trial.outcome for trial in world.state().trials.values()] == ["completed"] * 3


def test_paused_trial_outlives_the_search_and_goes_on_when_it_is_resumed(folder, empty_store):
    world = played(replace(TRAINED, asks=(Asked(0, 1, PauseTrials((0,))),)), folder, empty_store)
    assert [trial.outcome for trial in world.state().trials.values()] == ["paused", "completed", "completed"]
    Mailbox.of(world.folder).put(ContinueTrials((0,)))
    world.do(Go())
    assert world.state().trials[0].outcome == "completed"


def test_fork_starts_after_the_epoch_of_its_checkpoint(folder, empty_store):
    world = played(replace(TRAINED, asks=CASES["fork"]), folder, empty_store)
    fork = next(trial for trial in world.state().trials.values() if trial.fork)
    assert fork.fork == (0, 2) and list(fork.curve) == [3]


def test_refused_request_changes_nothing(folder, empty_store):
    world = played(replace(TRAINED, asks=(Asked(0, 1, StopTrials((9,))),)), folder, empty_store)
    assert not events(world, "request")
    (answer,) = Mailbox.of(world.folder).folder.glob("*.answer")
    assert "trial 9: no such trial" in answer.read_text()
