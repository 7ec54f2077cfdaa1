"""What `search.open` gives of a search, without Ray."""

import io

import numpy as np
import pytest
from rich.console import Console

import search
from search.core.journal import Journal
from search.core.program_config import loop_config
from search.core.record import SearchRecord
from search.core.space import parse_space
from search.core.store import Store
from search.live.console import Reporter
from search.live.outcome import print_outcome
from search.outcome import SearchOutcome
from search.programs import own_task, whole_numbers
from search.runtime.search import Search
from trainables import InputError, get_task, registered_address
from trainables.loops.command import Command
from trainables.loops.task import Code

SPACE = {
    "epochs": {"int": [1, 9]}, "seconds": {"choice": [0.5, 7.5]}, "outcome": "good", "trial": 4, "params_trial": 5,
    "val_loss": {"uniform": [0, 9]}, "lr": 0.1,
}  # fmt: skip
PARAMS = {
    "epochs": 7, "seconds": 7.5, "outcome": "good", "trial": 4, "params_trial": 5, "val_loss": 8.0, "lr": 0.1,
}  # fmt: skip


def written(store, name, *events, space=SPACE):
    """A search of a function in the store, with these events in its journal."""
    config = loop_config("train", space, "val_loss min", {"search.trials": 2, "search.epochs": 2}, (), "here")
    folder = Store(store).search(name)
    journal = Journal(folder.journal)
    journal.append({"event": "session"}, *events)
    journal.close()
    own = {"id": "x", "offered": registered_address("train"), "fingerprint": "f", "retrain": False, "created": 1}
    folder.write(SearchRecord("train", config.raw, "here", **own))
    return search.open(name, store)


def trial(number, **params):
    return {"event": "trial", "number": number, "params": PARAMS | params, "seed": 0}


def result(number, at, outcome=None, **metrics):
    told = {"epoch_seconds": 1.0, **metrics}
    return {
        "event": "result", "number": number, "epoch": at, "metrics": told, "diverged": None, "outcome": outcome,
        "device": "cpu",
    }  # fmt: skip


ENDED = {"event": "ended", "status": "finished", "rungs": {}}


@pytest.fixture
def found(tmp_path):
    events = [trial(0), result(0, 1, val_loss=0.5, epoch=3.0), result(0, 2, "completed", val_loss=0.25, trial=9.0)]
    return written(tmp_path, "s", *events, ENDED)


def test_hyperparameters_that_are_called_like_columns_stand_beside_them(found):
    table = found.trials()
    assert table.index.name == "trial" and table.columns.is_unique
    row = table.loc[0]
    assert (row["outcome"], row["epochs"], row["best_epoch"], row["val_loss"], row["lr"]) == (
        "completed", 2, 2, 0.25, 0.1
    )  # fmt: skip
    assert (row["params_epochs"], row["params_seconds"], row["params_outcome"], row["params_val_loss"]) == (
        7, 7.5, "good", 8.0
    )  # fmt: skip
    assert (row["params_trial"], row["params_params_trial"]) == (5, 4)
    assert len(table.reset_index()) == 1


def test_metrics_that_are_called_like_columns_stand_beside_them(found):
    curves = found.curves()
    assert list(curves["epoch"]) == [1, 2] and list(curves["trial"]) == [0, 0]
    assert curves["metrics_epoch"][0] == 3.0 and curves["metrics_trial"][1] == 9.0


def test_search_shows_itself_in_a_line_and_in_a_notebook_as_a_table(found):
    assert repr(found) == "search s: finished, 1 trial, best val_loss 0.25 at epoch 2 of trial 0"
    page = found._repr_html_()
    assert "<table>" in page and "0.25 at epoch 2 of trial 0" in page and "found.trials()" in page and len(page) < 900


def test_names_and_values_are_escaped_in_a_notebook(tmp_path):
    events = [trial(0, outcome="<script>"), result(0, 1, val_loss=0.5)]
    assert "<script>" not in written(tmp_path, "s", *events, ENDED)._repr_html_()


def test_best_of_a_search_that_failed_says_why_in_a_line(tmp_path):
    traceback = "Traceback (most recent call last):\n  File ...\nValueError: no such column"
    events = [trial(0), {"event": "failed", "number": 0, "why": "error", "traceback": traceback}]
    found = written(tmp_path, "s", *events, ENDED | {"status": "failed"})
    assert repr(found) == "search s: failed, 1 trial, none with a result"
    with pytest.raises(InputError, match=r"^s: no trial has a result; .* trial 0: ValueError: no such column$"):
        _ = found.best
    assert "<td>failed, 1 trial</td>" in found._repr_html_()
    begun = written(tmp_path, "t", trial(0))
    with pytest.raises(InputError, match=r"^t: no trial has a result yet; found.resume\(\) continues the search$"):
        _ = begun.best


def test_message_of_an_exception_cannot_command_the_terminal(tmp_path):
    traceback = "ValueError: \x1b]0;owned\x07 \x1b[31mred"
    found = written(tmp_path, "s", trial(0), {"event": "failed", "number": 0, "why": "error", "traceback": traceback})
    with pytest.raises(InputError) as raised:
        _ = found.best
    assert str(raised.value).isprintable() and r"\x1b[31mred" in str(raised.value)
    assert all(line.isprintable() for line in found.why(0))


def test_search_whose_trials_all_diverged_says_so_everywhere(tmp_path, monkeypatch):
    diverged = [result(n, 1, val_loss=1.0) for n in (0, 1)]
    diverged += [result(n, 2, "diverged", val_loss=float("nan")) | {"diverged": "the loss is nan"} for n in (0, 1)]
    found = written(tmp_path, "s", trial(0), trial(1), *diverged, ENDED | {"status": "failed"})
    said = "no trial can be the best: 2 trials diverged"
    with pytest.raises(InputError, match=f"^s: {said}$"):
        _ = found.best
    store, task = Store(tmp_path), get_task("train")
    outcome = SearchOutcome(store, store.search("s"), found._config, found._record, task, found._state, [], "resume s")
    console = Console(file=io.StringIO(), width=200)
    print_outcome(console, outcome)
    printed = console.file.getvalue()
    assert said in printed and "trials: 2 diverged" in printed and "python -m search why s 1" in printed
    assert "succeeded" not in printed and "tracebacks" not in printed
    log = io.StringIO()
    searched = Search(found._config, Store(tmp_path).search("t"))
    for number in (0, 1):
        searched.record(trial(number))
    Reporter(Console(file=log, width=300), searched)({"event": "result", **diverged[2]}, found._state)
    searched.journal.close()
    assert "trial 0 diverged, epoch" in log.getvalue() and "its best" not in log.getvalue()


def code(folder, text="python main.py --lr {lr}", name="main.py"):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text("")
    return Code.of(Command(text, folder=str(folder)))


def test_damaged_search_stops_no_program_and_damaged_names_are_named(tmp_path):
    store, program = Store(tmp_path / "store"), code(tmp_path / "a")
    store.search("torn").path.mkdir(parents=True)
    (store.search("torn").path / "search.json").write_text('{"task": ')
    assert own_task(store, program) == "main"
    (store.root / "functions" / "tasks.json").write_text('{"main": ')
    with pytest.raises(InputError, match=r"tasks\.json: is damaged .* delete it"):
        own_task(store, program)


def test_programs_of_one_name_are_tasks_of_their_own_and_keep_their_names(tmp_path):
    store = Store(tmp_path / "store")
    one, other, third = code(tmp_path / "a"), code(tmp_path / "b"), code(tmp_path / "c" / "b")
    names = [own_task(store, program) for program in (one, other, third, other, one, third)]
    assert names[:2] == ["main", "b.main"]
    assert names[2].startswith("main-") and names[3:] == ["b.main", "main", names[2]]


@pytest.mark.parametrize("name", ["rnn", "windows", "toy"])
def test_program_that_is_called_like_a_task_is_never_that_task(tmp_path, name, monkeypatch):
    monkeypatch.setenv("SEARCH_TASKS", "toy=toy_task:TASK")
    program = code(tmp_path / "project", f"python {name}.py --lr {{lr}}", f"{name}.py")
    assert own_task(Store(tmp_path / "store"), program) == f"project.{name}"


def test_range_of_whole_numbers_that_gives_none_is_noted():
    space = {
        "width": search.loguniform(4, 128), "lr": search.loguniform(1e-4, 1), "decay": search.loguniform(2.0, 8.0),
        "x": search.uniform(4, 128),
    }  # fmt: skip
    assert whole_numbers(parse_space(space, "here")) == [
        "note: width: loguniform [4, 128] gives numbers such as 22.63; for a width or a number of layers take an "
        "integer with a log scale, or round it in the training"
    ]


def test_command_in_several_processes_is_refused_with_the_way_to_start_them(tmp_path):
    command = search.Command("python train.py")
    with pytest.raises(InputError, match=r"resources.processes: 2: a command starts its processes itself.* `torchrun"):
        search.run(command, {"x": 1}, "val_loss min", resources={"processes": 2, "cpus": 0.5}, store=tmp_path)


def test_specs_take_values_of_libraries_and_refuse_others_in_a_line():
    assert search.choice(np.logspace(-2, -1, 2)) == {"choice": [0.01, 0.1]}
    assert search.uniform(np.float64(0), 1, when={"a": np.bool_(True)}) == {"uniform": [0.0, 1], "when": {"a": True}}
    assert search.integer(np.int64(1), 4) == {"int": [1, 4]}
    with pytest.raises(InputError, match=r"^choice: <class 'dict'>: allowed are text, numbers"):
        search.choice([dict, list])


def test_argument_of_python_is_named_as_it_was_given(tmp_path):
    def train(trial):
        yield 1.0

    with pytest.raises(InputError, match=r"^trials=0: input should be greater than"):
        search.run(train, {"x": 1}, "val_loss min", trials=0, store=tmp_path)
    with pytest.raises(InputError, match=r"^fuse='x': input should be a valid integer"):
        search.run(train, {"x": 1}, "val_loss min", settings={"fuse": "x"}, store=tmp_path)
    with pytest.raises(InputError, match=r"^search.run: space.x: <class 'dict'>: allowed are"):
        search.run(train, {"x": dict}, "val_loss min", store=tmp_path)


def test_tasks_are_those_that_run_takes_each_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SEARCH_TASKS", "train=trainables.loops.task:LoopTask?metric=loss&mode=min")
    assert "train" not in search.tasks() and "rnn" in search.tasks()
    with pytest.raises(InputError, match="task 'train': unknown; there are windows"):
        search.run("train", store=tmp_path)


class Started(Exception):
    """The search would begin with this configuration."""


def configured(monkeypatch, tmp_path, space, **given):
    """The configuration with which `search.run` of a function would begin."""

    def stop(store, config, *rest):
        raise Started(config)

    monkeypatch.setattr("search.programs.run", stop)
    with pytest.raises(Started) as started:
        search.run(loss, space, "val_loss min", store=tmp_path, observer=search.Observer(), **given)
    return started.value.args[0]


def loss(trial):
    yield 1.0


SPACE_OF_TWO = {"lr": search.loguniform(1e-4, 1), "opt": search.choice(["sgd", "adam"])}


def test_set_fixes_a_hyperparameter_of_a_function(monkeypatch, tmp_path):
    given = {"lr": 0.01, "search.balance": "opt"}
    config = configured(monkeypatch, tmp_path, SPACE_OF_TWO, set=given, trials=2)
    assert (config.space.fixed(), config.search.balance) == ({"lr": 0.01}, "opt")
    with pytest.raises(InputError, match=r"^lrr=1: lrr: unknown key; did you mean 'lr'\? space has lr, opt$"):
        search.run(loss, SPACE_OF_TWO, "val_loss min", set={"lrr": 1}, store=tmp_path)
    with pytest.raises(InputError, match=r"^lrate=0\.1: lrate: unknown key; did you mean 'lr'\?"):
        search.run(loss, SPACE_OF_TWO, "val_loss min", set={"lrate": 0.1}, store=tmp_path)
    with pytest.raises(InputError, match=r"^opt='adm': allowed are sgd, adam; did you mean 'adam'\?"):
        search.run(loss, SPACE_OF_TWO, "val_loss min", set={"opt": "adm"}, store=tmp_path)


def test_argument_that_is_left_out_leaves_the_same_setting_as_it_is(monkeypatch, tmp_path):
    config = configured(monkeypatch, tmp_path, {"x": 1}, settings={"trials": 3}, set={"search.seed": 7})
    assert (config.search.trials, config.search.seed) == (3, 7)
    assert configured(monkeypatch, tmp_path, {"x": 1}, settings={"trials": 3}, trials=4).search.trials == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: search.choice([(32, 64), (64, 64)]), r"search.choice: \[32, 64\]: expected a string, a finite number"),
        (lambda: search.choice([]), r"search.choice: choice \[\]: expected a list with at least one value"),
        (lambda: search.choice(["a", "a"]), r"search.choice: choice: 'a' stands twice"),
        (lambda: search.uniform(1, 0), r"search.uniform: uniform \[1, 0\]: the range is empty"),
        (lambda: search.integer(1, 2, prior=3), r"search.integer: prior 3: must be a value of int \[1, 2\]"),
    ],
)
def test_function_of_a_spec_refuses_what_run_refuses(make, message):
    with pytest.raises(InputError, match=f"^{message}"):
        make()


def test_time_budget_as_a_number_is_refused_with_the_right_form(tmp_path):
    with pytest.raises(InputError, match=r"^time_budget=120: expected a duration, such as '120s'$"):
        search.run(loss, {"x": 1}, "val_loss min", time_budget=120, store=tmp_path)
