"""What requests may ask for, and what a study makes of them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from search.core.changes import after_requests, with_changes
from search.core.config import load_config
from search.core.configurations import configuration, read_configurations, settings_of
from search.core.decision import TrialResult
from search.core.journal import Journal
from search.core.record import SearchRecord
from search.core.requests import (
    AddTrials,
    ChangeSettings,
    Configuration,
    ContinueTrials,
    Mailbox,
    PauseTrials,
    Request,
    StopSearch,
    StopTrials,
    from_json,
    kind_of,
    new_id,
    send,
    settle,
    to_json,
)
from search.core.store import SearchFolder, Store
from search.core.study import Study
from trainables import InputError, Objective

SETS = ("search.epochs=8", "search.trials=9", "search.balance=null", "search.scheduler=none", "search.startup_trials=2")


def study_of(*sets: str, trials: int = 2) -> Study:
    study = Study(load_config("rnn", [*SETS, *sets], profile="demo"), Objective("mse", "min"))
    for _ in range(trials):
        study.apply(study.propose())
    return study


def take(study: Study, request: Request) -> str:
    """Applies a request as the driver does; returns its id."""
    name = new_id()
    content = json.loads(json.dumps(settle(request, study.config, study.state)))
    study.apply({"event": "request", "id": name, "kind": kind_of(request), "content": content, "time": 0})
    for event in study.stops():
        study.apply(event)
    return name


def report(study: Study, number: int, epoch: int, loss: float = 1.0) -> Any:
    events, decisions = study.report([TrialResult(number, epoch, {"val_mse": loss, "epoch_seconds": 1.0})])
    for event in events:
        study.apply(event)
    return decisions.get(number)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (StopTrials((7,)), "trial 7: no such trial; there are 0 to 1"),
        (StopTrials(()), "stop: expected the number of a trial"),
        (ContinueTrials(), "no request paused"),
        (ContinueTrials((0,)), "trial 0: is not paused"),
        (AddTrials((Configuration({"lrr": 0.1}),)), "lrr: unknown hyperparameter"),
        (AddTrials((Configuration({"lr": 100.0}),)), "lr=100.0: expected a value of loguniform"),
        (AddTrials((Configuration({}, from_checkpoint=True),)), "expected the trial whose checkpoint it is"),
        (AddTrials((Configuration({}, 0, True),)), "trial 0: has no checkpoint"),
        (AddTrials(()), "add: expected a configuration"),
        (AddTrials((Configuration({}),)), "add: expected a configuration, such as lr=1e-3"),
        (AddTrials((Configuration({"lr": 1e-3}), Configuration({}))), "add: expected a configuration, such as lr=1e-3"),
        (ChangeSettings({"epochs": 9}), "epochs=9: cannot change while a search runs"),
        (ChangeSettings({"trials": 1}), "2 trials have begun"),
        (ChangeSettings({"trials": "+x"}), "expected a number, or +N"),
        (ChangeSettings({"epoch_budget": "+5"}), "the search has no such limit"),
        (ChangeSettings({"time_budget": "soon"}), "soon"),
        (ChangeSettings({"space.lr": {"loguniform": [1, 0.1]}}), "the range is empty"),
        (ChangeSettings({"space.nothing": 1}), "cannot change"),
        (ChangeSettings({"lr": 0.01}), "lr=0.01: the range of a hyperparameter is space.lr: space.lr=0.01"),
        (ChangeSettings({"space.lr": "fast"}), "space.lr=fast: expected numbers, as lr is loguniform"),
        (ChangeSettings({"space.lr": {"choice": [0.01, "fast"]}}), "expected numbers"),
        (ChangeSettings({}), "set: expected a setting"),
    ],
)
def test_request_that_is_wrong_is_refused_in_a_line(request_, message):
    study = study_of()
    with pytest.raises(InputError) as error:
        settle(request_, study.config, study.state)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "request None: unknown; there are stop search, stop,"),
        ({"kind": ["stop"]}, "request ['stop']: unknown; there are stop search, stop,"),
        ({"kind": {"stop": 1}}, "request {'stop': 1}: unknown; there are stop search, stop,"),
        ({"kind": "stop", "trials": [True]}, "request stop: trials.0: True: "),
        ({"kind": "stop", "trials": ["1"]}, "request stop: trials.0: '1': "),
        ({"kind": "stop", "trials": [1.0]}, "request stop: trials.0: 1.0: "),
        ({"kind": "stop", "trial": [1]}, "request stop: trials: "),
        ({"kind": "stop search", "retrain": "no"}, "request stop search: retrain: 'no': "),
        ({"kind": "pause", "trial": [1]}, "request pause: trial: [1]: "),
        (
            {"kind": "add", "configurations": [{"parms": {"lr": 0.1}}]},
            "request add: configurations.0.parms: {'lr'",
        ),
        ({"kind": "add", "configurations": [{"from_trial": True}]}, "request add: configurations.0.from_trial: True: "),
        ({"kind": "add", "configurations": [{"params": {"lr": [1]}}]}, "request add: configurations.0.params.lr"),
    ],
)
def test_data_that_is_no_request_is_refused_in_a_line(content, message):
    with pytest.raises(InputError) as error:
        from_json(content)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize("request_", [
    StopSearch(False), StopTrials((0, 1)), PauseTrials(), ContinueTrials((3,)), ChangeSettings({"trials": "+20"}),
    AddTrials((Configuration({"lr": 1e-3, "layers": 2, "cell": "a b", "bias": True, "none": None}, 0, True),)),
])  # fmt: skip
def test_request_survives_json_with_the_types_of_its_values(request_):
    again = from_json(json.loads(json.dumps(to_json(request_))))
    assert again == request_ and repr(again) == repr(request_)


def test_added_values_add_to_numbers_and_durations():
    study = study_of("search.time_budget=30m", "search.concurrency=2")
    wanted = ChangeSettings({"trials": "+20", "time-budget": "+1h", "search.concurrency": "+1"})
    assert settle(wanted, study.config, study.state) == {
        "search": {"trials": 29, "time_budget": "1h30m", "concurrency": 3}
    }
    take(study, wanted)
    assert (study.config.search.trials, study.config.search.time_budget, study.total) == (29, "1h30m", 29)


def test_added_trials_do_not_count_against_the_number_of_trials():
    study = study_of("search.trials=3", trials=3)
    take(study, AddTrials((Configuration({"lr": 0.001}), Configuration({"lr": 0.002}))))
    study.apply(study.propose())
    assert (len(study.state.trials), study.total) == (4, 5)
    take(study, ChangeSettings({"trials": "+2"}))
    assert (study.config.search.trials, study.total) == (5, 7)
    with pytest.raises(InputError, match="trials=2: 3 trials have begun already"):
        settle(ChangeSettings({"trials": 2}), study.config, study.state)


@pytest.mark.parametrize("searcher", ["ranks", "tpe", "gp"])
def test_paused_trials_outside_a_narrower_range_continue(searcher):
    study = study_of("search.scheduler=asha-predict", "search.grace_period=1", "search.reduction_factor=2",
                     f"search.searcher={searcher}", "search.trials=16", trials=8)  # fmt: skip
    for number in range(8):
        report(study, number, 1, 1.0 + number / 10)
    lr = sorted(trial.params["lr"] for trial in study.state.trials.values())
    take(study, ChangeSettings({"space.lr": {"loguniform": [lr[3] * 1.01, lr[4] * 0.99]}}))
    events = []
    while (event := study.propose()) is not None:
        events.append(event["event"])
        study.apply(event)
    assert events.count("promoted") >= 2
    assert events.count("trial") == 8


def test_added_values_stay_when_the_range_narrows_before_they_start():
    study = study_of()
    take(study, AddTrials((Configuration({"lr": 0.002, "hidden": 32}),)))
    take(study, ChangeSettings({"space.lr": {"loguniform": [0.004, 0.008]}}))
    event = study.propose()
    assert (event["params"]["lr"], event["params"]["hidden"]) == (0.002, 32)


def test_added_trial_keeps_its_balanced_value_and_is_compared_with_trials_of_that_value():
    study = study_of("search.balance=variant", "search.scheduler=asha", "search.grace_period=1", trials=3)
    assert [study.state.trials[number].params["variant"] for number in range(3)] == ["vanilla", "truncated", "padded"]
    take(study, AddTrials((Configuration({"lr": 0.004}, from_trial=1), Configuration({"variant": "truncated"}))))
    for _ in range(2):
        study.apply(study.propose())
    for number in range(5):
        report(study, number, 1)
    assert [study.state.trials[number].params["variant"] for number in (3, 4)] == ["truncated", "truncated"]
    assert [sorted(view.losses[1]) for view in study._views] == [[0], [1, 3, 4], [2]]


def test_concurrency_of_a_deterministic_search_is_refused():
    study = study_of("search.deterministic=true", "search.concurrency=2", "search.scheduler=asha")
    with pytest.raises(InputError, match="deterministic"):
        settle(ChangeSettings({"concurrency": 3}), study.config, study.state)


def test_new_range_keeps_condition_and_prior():
    config = load_config("rnn", list(SETS), profile="data")
    study = Study(config, Objective("mse", "min"))
    (before,) = [p for p in config.space.parameters if p.name == "lr"]
    take(study, ChangeSettings({"space.lr": {"loguniform": [before.prior / 2, before.prior * 2]}}))
    (after,) = [p for p in study.config.space.parameters if p.name == "lr"]
    assert (after.low, after.prior) == (before.prior / 2, before.prior)
    take(study, ChangeSettings({"space.lr": {"loguniform": [before.prior * 3, before.prior * 4]}}))
    assert not next(p for p in study.config.space.parameters if p.name == "lr").has_prior


@pytest.mark.parametrize("searcher", ["ranks", "tpe", "random"])
def test_searcher_learns_from_trials_inside_a_new_range_alone(searcher):
    study = study_of(f"search.searcher={searcher}", "lr={loguniform: [1e-4, 1e-1]}", trials=6)
    for number in range(6):
        report(study, number, 8, loss=float(number))
    rates = sorted((trial.params["lr"], number) for number, trial in study.state.trials.items())
    take(study, ChangeSettings({"space.lr": {"loguniform": [1e-4, rates[3][0]]}}))
    again = Study(study.config, study.objective)
    for number in sorted(number for _, number in rates[:4]):
        again.searcher.replay(study.state.trials[number])
        again.searcher.tell(study.state.trials[number])
    proposed = study.propose()["params"]
    assert proposed["lr"] <= rates[3][0]
    assert proposed == again.searcher.ask(6)
    assert "4 results" in study.propose()["reason"] or searcher == "random" or "drawn" in study.propose()["reason"]


def test_study_of_the_changed_configuration_replays_to_the_same_proposal():
    """A reader has the latest configuration from search.json, and applies the change once more."""
    study = study_of("lr={loguniform: [1e-4, 1e-1]}", "activation={choice: [tanh, relu]}", trials=3)
    events: list[Any] = []
    apply = study.apply
    study.apply = lambda event: (events.append(event), apply(event))  # type: ignore[method-assign]
    for number in range(3):
        report(study, number, 8, loss=float(number))
    take(study, ChangeSettings({"space.activation": "relu", "trials": "+1"}))
    wanted = study.propose()
    first = study_of("lr={loguniform: [1e-4, 1e-1]}", "activation={choice: [tanh, relu]}", trials=3)
    proposals = [
        {"event": "trial", "number": n, "params": t.params, "seed": t.seed} for n, t in first.state.trials.items()
    ]
    for config in (first.config, study.config):
        again = Study(config, study.objective, events=[*proposals, *events])
        assert again.propose() == wanted and again.total == 10
    assert after_requests(first.config, events).raw == study.config.raw
    assert with_changes(study.config, {}).raw == study.config.raw


def test_added_configuration_comes_next_and_keeps_its_values():
    study = study_of()
    name = take(study, AddTrials((Configuration({"lr": 0.005}), Configuration({"hidden": 32}, from_trial=1))))
    assert study.total == 11
    first = study.propose()
    assert first["params"]["lr"] == 0.005 and (first["request"], first["part"]) == (name, 0)
    study.apply(first)
    second = study.propose()
    assert second["params"] == {**study.state.trials[1].params, "hidden": 32}
    study.apply(second)
    assert not study.state.added and "request" not in study.propose()


def test_grid_tries_each_point_once_although_one_was_added():
    study = study_of(
        "search.searcher=grid", "lr={choice: [0.1, 0.2]}", "dropout={choice: [0.0, 0.1]}", "variant=vanilla",
        "keep=last", "align=end", "hidden=16", "layers=1", "activation=tanh", "init=uniform", "optimizer=adam",
        "weight_decay=0.1", "clip_norm=1.0", "batch_size=32", "search.trials=4", trials=1,
    )  # fmt: skip
    left = [point for point in study.searcher._left if point != study.state.trials[0].params]  # type: ignore[attr-defined]
    take(study, AddTrials((Configuration({"lr": left[-1]["lr"], "dropout": left[-1]["dropout"]}),)))
    while (event := study.propose()) is not None:
        study.apply(event)
    tried = [(trial.params["lr"], trial.params["dropout"]) for trial in study.state.trials.values()]
    assert len(tried) == len(set(tried)) == 4


def test_stopped_trial_is_over_at_once_and_a_late_report_is_ignored():
    study = study_of()
    report(study, 0, 1)
    take(study, StopTrials((0,)))
    assert study.state.trials[0].outcome == "stopped_early"
    assert report(study, 0, 2) is None and study.state.trials[0].epoch == 1
    with pytest.raises(InputError, match="trial 0: is over"):
        settle(StopTrials((0,)), study.config, study.state)


def test_paused_trial_waits_for_its_request_whatever_the_scheduler_says():
    study = study_of("search.scheduler=asha-promote", "search.grace_period=1", "search.trials=2")
    take(study, PauseTrials((0,)))
    assert report(study, 0, 2).request is not None and report(study, 1, 1).kind == "pause"
    assert study.promote() == 1, "no other trial is left, and trial 0 is held"
    take(study, ContinueTrials((0,)))
    promoted = study.propose()
    assert (promoted["event"], promoted["number"]) == ("promoted", 0) and "by a request at" in promoted["reason"]


def test_paused_search_proposes_nothing_until_it_continues():
    study = study_of()
    take(study, PauseTrials())
    assert study.propose() is None
    assert report(study, 0, 1).kind == "pause" and study.state.paused() == {}
    take(study, ContinueTrials())
    assert study.propose()["event"] == "promoted"


def test_search_ends_when_each_running_trial_has_finished_its_epoch():
    study = study_of()
    take(study, StopSearch())
    assert study.propose() is None and not study.ends_now
    report(study, 0, 1)
    assert study.is_ending(0) and not study.is_ending(1)
    report(study, 1, 1)
    assert study.ends_now
    study.apply({"event": "ended", "status": "finished", "rungs": {}})
    assert study.state.stopped_by is None and study.propose() is not None


def test_mailbox_gives_requests_in_their_order_and_each_answer_once(tmp_path):
    mail = Mailbox(tmp_path / "requests")
    assert mail.waiting() == []
    names = [mail.put(StopTrials((number,))) for number in range(3)]
    assert mail.waiting() == names and mail.read(names[1]) == StopTrials((1,))
    mail.answer(names[0], False, "trial 0 ended")
    mail.answer(names[1], True, "trial 1: no such trial")
    assert mail.waiting() == names[2:]
    assert mail.take_answer(names[0]).text == "trial 0 ended" and mail.take_answer(names[0]) is None
    with pytest.raises(InputError, match="no such trial"):
        mail.take_answer(names[1])


@pytest.mark.parametrize("content", ["", "[]", '{"kind": "dance"}', '{"kind": "stop", "trials": ["x"]}', "{" * 5000])
def test_file_that_is_no_request_is_refused(tmp_path, content):
    mail = Mailbox(tmp_path)
    (tmp_path / "1.json").write_text(content)
    with pytest.raises(InputError):
        mail.read("1")


def test_words_of_the_command_line():
    assert configuration(["lr=1e-3", "model.pretrained=null"]) == {"lr": 0.001, "model.pretrained": None}
    words = settings_of(["trials=+20", "time-budget=2h", "space.lr={loguniform: [1e-4, 1e-2]}"])
    assert words == {"trials": "+20", "time-budget": "2h", "space.lr": {"loguniform": [0.0001, 0.01]}}
    with pytest.raises(InputError, match="lr: expected KEY=VALUE"):
        configuration(["lr"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "lr,width\n1e-3,64\n0.01,\n"),
        ("a.json", '[{"lr": 0.001, "width": 64}, {"lr": 0.01}]'),
        ("a.yaml", "- {lr: 1e-3, width: 64}\n- lr: 0.01\n"),
    ],
)
def test_configurations_of_a_file(tmp_path, name, content):
    path = Path(tmp_path / name)
    path.write_text(content)
    assert read_configurations(path) == [{"lr": 0.001, "width": 64}, {"lr": 0.01}]


def test_file_without_configurations_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("- 3\n")
    for path in (tmp_path / "a.yaml", tmp_path / "missing.csv"):
        with pytest.raises(InputError, match=path.name):
            read_configurations(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr=", "lr=: expected a value after ="),
        ("lr={loguniform:[0,1]}", "write a space after each colon"),
    ],
)
def test_setting_that_cannot_be_read_says_what_to_write(text, message):
    for read in (configuration, settings_of):
        with pytest.raises(InputError, match=re.escape(message)):
            read([text])


@pytest.fixture
def resting(tmp_path):
    """A folder of a search that no driver runs, with the given status."""

    def made(status: str, **fields: Any) -> SearchFolder:
        store = Store(tmp_path)
        study, folder = study_of(), store.search("s")
        with Journal(folder.journal) as journal:
            trial = {"event": "trial", "number": 0, "params": study.state.trials[0].params, "seed": 0}
            journal.append({"event": "session"}, trial, {"event": "ended", "status": status, "rungs": {}})
        folder.write(SearchRecord("rnn", study.config.raw, "here", **fields))
        return folder

    return made


@pytest.mark.parametrize("request_", [StopSearch(), StopTrials((0,)), PauseTrials(), ContinueTrials()])
def test_request_that_ends_or_pauses_a_finished_search_is_refused(resting, request_):
    folder = resting("finished")
    with pytest.raises(
        InputError, match=r"^s: is finished, so there is nothing to \w+; more trials: `python -m search r"
    ):
        send(folder, request_)
    assert not Mailbox.of(folder).waiting()
    assert "next `resume`" in send(folder, ChangeSettings({"trials": "+2"})).text


def test_continue_withdraws_a_pause_that_waits(resting):
    folder = resting("interrupted")
    send(folder, PauseTrials())
    answer = send(folder, ContinueTrials())
    assert answer.text == "s is not running: the waiting `pause` is withdrawn"
    assert not Mailbox.of(folder).waiting()


def test_study_of_ask_and_tell_takes_no_requests(resting):
    with pytest.raises(InputError, match="is a study, whose trials your own programs ask for and train, so no driver"):
        send(resting("interrupted", asked=True), StopSearch())
