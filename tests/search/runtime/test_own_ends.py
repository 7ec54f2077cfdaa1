"""How trainings that run by themselves end: searches of functions, driven in this process without Ray."""

import io
from pathlib import Path

import pytest
import torch
from ray.tune.schedulers import TrialScheduler
from rich.console import Console

from search.core.config import check_config
from search.core.overrides import change
from search.core.program_config import loop_config
from search.core.record import SearchRecord, task_fields
from search.core.replay import replay
from search.core.store import Store
from search.core.study import Study
from search.core.time_plan import TimePlan
from search.live.console import Reporter
from search.reports.simulate import decisions, simulate
from search.reports.why import _Story
from search.runtime.budget import Budget
from search.runtime.search import Search
from search.runtime.transfer import storage
from search.runtime.trials import _Decisions
from search.runtime.tune_runner import TuneRunner
from trainables import DataInfo, Splits
from trainables.base.trainable import TaskTrainable
from trainables.loops.command import Command
from trainables.loops.task import Code


class TuneTrial:
    """What the search reads of a trial of Tune."""

    def __init__(self, config):
        self.config = config


class Driven:
    """A search of a function, whose trials run one after the other in this process."""

    def __init__(self, folder, train, **flags):
        self.folder = Store(folder).search("s")
        flags = {"epochs": 4, "trials": 3, "scheduler": "none", "searcher": "random", **flags}
        given = {f"search.{key}": value for key, value in flags.items()}
        self.config = loop_config("mine", {"x": {"uniform": [0.0, 1.0]}}, "val_loss min", given, (), "test")
        code = Code.of(train)
        self.splits = Splits(code, None, None, DataInfo("mine", "", "", {}))
        self.folder.write(SearchRecord(**task_fields("mine"), config=self.config.raw, place="test"))
        self.open()

    def open(self, **more):
        """Opens the search as a new driver does, with changed settings."""
        raw = change(self.config.raw, flags={f"search.{key}": value for key, value in more.items()})
        self.config = check_config("mine", raw, "test")
        self.search = Search(self.config, self.folder)
        self.search.record({"event": "session"})
        self.search.reopen()
        self.runner = TuneRunner(self.search, 1, Budget(), TimePlan())

    def kill(self, **more):
        self.search.journal.close()
        self.open(**more)

    def begin(self):
        """The next trial of Tune, with its worker; None where there is none."""
        if (config := self.runner.queue.next_config()) is None:
            return None
        worker = TaskTrainable.__new__(TaskTrainable)
        worker.setup(
            config, task="mine", splits=self.splits, epochs=self.config.search.epochs, gather=0.0, board="nobody",
            resources={"cpus": 1, "gpus": 0, "precision": "fp32"}, storage=storage(self.search),
        )  # fmt: skip
        return TuneTrial(config), worker

    def step(self, begun) -> bool:
        """Has a worker train until a decision is due; returns whether its trial goes on there."""
        trial, worker = begun
        return _Decisions(self.runner).on_trial_result(None, trial, worker.step()) == TrialScheduler.CONTINUE

    def run(self):
        while begun := self.begin():
            while self.step(begun):
                pass
        return self

    @property
    def outcomes(self):
        return [(t.outcome, t.epoch) for _, t in sorted(self.search.state.trials.items())]

    def events(self, kind):
        return [event for event in self.search.journal.events if event["event"] == kind]


@pytest.fixture
def driven(tmp_path, monkeypatch):
    monkeypatch.setenv("SEARCH_TASKS", "")
    monkeypatch.setattr("search.runtime.transfer._other_machines", lambda: False)  # it would ask Ray
    made = []

    def make(train, **flags):
        made.append(Driven(tmp_path / "store", train, **flags))
        return made[-1]

    yield make
    for one in made:
        one.search.journal.close()


def stops_by_itself(trial):
    """The trials of odd numbers end after two epochs."""
    for epoch in trial.epochs():
        yield {"val_loss": trial.params["x"] / epoch}
        if trial.number % 2 and epoch == 2:
            break


def test_loop_that_ends_early_is_complete_with_the_epochs_that_it_has(driven):
    one = driven(stops_by_itself).run()
    assert one.outcomes == [("completed", 4), ("completed", 2), ("completed", 4)]
    reached = {t.number: min(m["val_loss"] for m in t.curve.values()) for t in one.search.state.trials.values()}
    assert one.search.state.best().number == min(reached, key=reached.get)
    assert [(event["number"], event["of"]) for event in one.events("completed")] == [(0, 4), (1, 4), (2, 4)]
    assert replay(one.folder)[0].trials == one.search.state.trials


def test_searcher_hears_once_of_a_trial_that_ended_by_itself(driven):
    one = driven(stops_by_itself, trials=4, searcher="tpe")
    told, tell = [], one.search.study.searcher.tell
    one.search.study.searcher.tell = lambda trial: (told.append((trial.number, trial.epoch)), tell(trial))
    one.run()
    assert told == [(0, 4), (1, 2), (2, 4), (3, 2)]
    one.kill(trials=5)
    assert one.search.propose().number == 4, "a replay tells the searcher the same"


def test_loop_that_ended_early_is_not_taken_up_again_by_more_epochs(driven):
    one = driven(stops_by_itself).run()
    one.kill()
    assert one.begin() is None
    one.kill(epochs=6)
    assert [t.number for t in one.search.state.unfinished()] == [0, 2], "the others had ended by themselves"
    assert one.run().outcomes == [("completed", 6), ("completed", 2), ("completed", 6)]


def saves_at_the_end(trial):
    for epoch in trial.epochs():
        yield {"val_loss": trial.params["x"] / epoch}
    with (trial.folder / "model").open("a") as file:
        file.write("saved\n")


def saved(one, number):
    file = one.folder.path / "trials" / f"{number:04d}" / "model"
    return file.read_text().count("saved") if file.exists() else 0


def test_code_after_the_loop_runs_once_for_complete_trials_and_not_for_stopped_ones(driven):
    one = driven(saves_at_the_end, trials=6, scheduler="asha", grace_period=1, reduction_factor=2).run()
    assert {outcome for outcome, _ in one.outcomes} == {"completed", "stopped_early"}
    assert [saved(one, n) for n in range(6)] == [int(outcome == "completed") for outcome, _ in one.outcomes]


def test_trial_killed_between_its_last_epoch_and_its_end_comes_to_its_end(driven):
    one = driven(saves_at_the_end, trials=1)
    begun = one.begin()
    while one.search.state.trials[0].epoch < 4:
        assert one.step(begun)
    assert saved(one, 0) == 0 and one.outcomes == [(None, 4)]
    one.kill()
    assert one.run().outcomes == [("completed", 4)]
    assert saved(one, 0) == 1
    assert [event["epoch"] for event in one.events("result")] == [1, 2, 3, 4], "no epoch stands there twice"


def test_epoch_budget_that_ends_with_a_trials_last_epoch_lets_it_come_to_its_end(driven):
    one = driven(saves_at_the_end, trials=2, epoch_budget=4).run()
    assert one.search.stopping == "epoch budget"
    assert one.outcomes == [("completed", 4)] and saved(one, 0) == 1


def raises_at_the_end(trial):
    for epoch in trial.epochs():
        yield {"val_loss": trial.number + 1 / epoch}
    if trial.number == 0:
        raise OSError("no room for the model")


def test_trial_that_fails_after_its_epochs_has_failed_and_its_results_count(driven):
    one = driven(raises_at_the_end, trials=2).run()
    assert one.outcomes == [("failed", 4), ("completed", 4)]
    assert "no room for the model" in one.events("failed")[0]["traceback"]
    assert [t.number for t in one.search.state.ranked()] == [0, 1], "a failed trial's epochs count as a stopped one's"
    assert one.search.state.best().number == 0


def test_function_with_more_epochs_than_a_trial_is_ended_after_the_last(driven, tmp_path):
    def train(trial):
        try:
            for epoch in range(1, 100):
                yield {"val_loss": 1 / epoch}
        finally:
            (trial.folder / "closed").touch()

    one = driven(train, trials=1).run()
    assert one.outcomes == [("completed", 4)]
    assert (one.folder.path / "trials" / "0000" / "closed").exists()


def test_failed_and_diverged_trials_count_alike_wherever_trials_are_ranked(driven):
    def train(trial):
        yield {"val_loss": 0.1 + trial.number}
        if trial.number == 0:
            raise ValueError("fails")
        yield {"val_loss": float("nan") if trial.number == 1 else 5.0}

    one = driven(train, trials=3).run()
    state = one.search.state
    assert [outcome for outcome, _ in one.outcomes] == ["failed", "diverged", "completed"]
    assert [t.number for t in state.ranked()] == [t.number for t, _ in state.finalists(1)] == [0, 2]
    assert state.best().number == 0


def test_failures_alike_are_not_tried_again_and_stop_a_search_without_a_result(driven):
    def train(trial):
        raise ValueError(f"no such column {trial.number}")
        yield

    one = driven(train, trials=10).run()
    assert one.search.stopping == "failures"
    assert [event["number"] for event in one.events("retry")] == [0], "the cause is the same in the others"
    assert [event["number"] for event in one.events("failed")] == [0, 1, 2]


def test_failures_of_other_kinds_are_tried_again(driven):
    def train(trial):
        raise (ValueError, KeyError, OSError)[trial.number]("x")
        yield

    one = driven(train).run()
    assert [event["number"] for event in one.events("retry")] == [0, 1, 2]


def test_memory_that_runs_out_in_a_function_halves_no_batch(driven):
    def train(trial):
        raise MemoryError
        yield

    one = driven(train, trials=1).run()
    assert [event["micro_batches"] for event in one.events("retry")] == [1]


def test_trial_that_hangs_after_its_last_epoch_fails_and_is_not_trained_again(driven, monkeypatch):
    one = driven(saves_at_the_end, trials=1, stall_timeout="1s")
    begun = one.begin()
    while one.search.state.trials[0].epoch < 4:
        one.step(begun)
    tune = begun[0]
    tune.temporary_state = TuneTrial({})
    tune.temporary_state.ray_actor = "worker"
    ended = []
    monkeypatch.setattr("ray.kill", ended.append)
    one.runner.watchdog.since[tune] -= 2
    one.runner.settle()
    one.runner.failed(tune, "the worker is lost")
    assert ended == ["worker"] and one.outcomes == [("failed", 4)]
    assert "did not come to its end within 1s" in one.events("failed")[0]["traceback"]
    assert one.search.state.best().number == 0


def lines_of(one) -> list[str]:
    """Runs a search, and returns the lines of its log without the times at their beginning."""
    out = io.StringIO()
    one.search.listeners.append(Reporter(Console(file=out), one.search))
    one.run()
    return [line.split("  ", 2)[2] for line in out.getvalue().splitlines()]


def test_failed_function_names_its_own_file_and_line(driven):
    def train(trial):
        torch.zeros(2).reshape(3)  # the line that is at fault
        yield

    at = next(n for n, line in enumerate(Path(__file__).read_text().splitlines(), 1) if "is at fault" in line)
    line = next(line for line in lines_of(driven(train, trials=1)) if line.startswith("trial 0 failed: "))
    assert line.startswith("trial 0 failed: RuntimeError: shape '[3]' is invalid") and f"test_own_ends.py:{at})" in line


def test_failed_command_names_what_was_wrong_and_its_log(driven):
    one = driven(Command("sh -c 'echo starting; echo no such column; exit 3'"), trials=1)
    log = one.folder.path / "trials" / "0000" / "output.log"
    said = "the command ended with code 3 before epoch 1; its last lines: ... no such column"
    lines = lines_of(one)
    assert lines == [
        f"trial 0 failed and is taken up again: {said} (its output: {log})",
        f"trial 0 failed: {said} (its output: {log})",
    ]
    assert log.read_text() == "starting\nno such column\n" * 2


def test_trial_that_ended_by_itself_has_a_line(driven):
    lines = lines_of(driven(stops_by_itself, trials=2))
    assert [line.split(", epoch")[0] for line in lines] == [
        "trial 0 completed", "trial 1 completed (its own loop ended before epoch 4)",
    ]  # fmt: skip


def test_hint_of_trials_is_shown_once(driven):
    one = driven(Command("""sh -c 'echo "@search {{\\"epoch\\": 1, \\"val_loss\\": 1}}"; sleep 0.5'"""), trials=2)
    trials = []
    for _ in range(2):
        trials.append(one.begin())
        one.step(trials[-1])
    one.kill()
    hints = [line for line in lines_of(one) if "the command began with epoch 1" in line]
    assert hints == ["trial 0: the command began with epoch 1; reports of known epochs are ignored"]


def test_error_of_megabytes_is_cut_in_the_journal(driven):
    def train(trial):
        raise ValueError("x" * 5_000_000 + "\n" + "y\n" * 100_000 + "the end")
        yield

    one = driven(train, trials=1).run()
    assert one.folder.journal.stat().st_size < 20_000
    assert one.events("failed")[0]["traceback"].endswith("the end")


def test_readers_of_the_journal_know_how_trials_ended(driven):
    def train(trial):
        for epoch in trial.epochs():
            yield {"val_loss": float(trial.number)}
            if trial.number == 1 and epoch == 2:
                break

    one = driven(train, trials=6, scheduler="median", grace_period=4).run()
    events, state = one.search.journal.events, one.search.state
    same, total = decisions(one.config, events, state)
    assert same == total, "after its last epoch nothing is decided on a trial, however bad it is"
    assert simulate(one.config, state, 1).trials == dict.fromkeys(range(6), "completed")
    told = {}
    for number in (0, 1):
        story = _Story(Study(one.config, one.search.objective, ends_itself=True), number, None)
        for event in events:
            story.take([event])
        told[number] = story.lines[2:] + story.end()
    assert told[0][0] == "epoch 4: complete; 4 epochs are the most that a trial gets"
    assert told[1][0] == "epoch 2: complete; its own loop ended there, 2 epochs before the last that a trial gets"
    assert told[1][1].startswith("in the end: completed; best val_loss 1.000 at epoch 1, place 2 of 6")
