import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.core.config import check_config, check_space, digest, load_config, parse_duration, parse_objective
from search.core.program_config import loop_config, read_space
from search.core.replay import extend
from trainables import TASKS, get_task, register_task
from trainables.base.errors import InputError


def test_flags_win_over_set_and_set_over_the_file():
    config = load_config("windows", ["search.trials=3", "lr=1e-2"], {"search.trials": 5, "search.seed": None})
    assert config.search.trials == 5
    assert config.search.seed == 0
    assert config.space.fixed()["lr"] == 0.01


def test_set_replaces_a_parameter_whole():
    config = load_config("windows", ["lr={uniform: [0.1, 0.2]}", "model.backbone=some/id"])
    lr = next(p for p in config.space.parameters if p.name == "lr")
    assert (lr.kind, lr.low, lr.high) == ("uniform", 0.1, 0.2)
    assert config.space.fixed()["model.backbone"] == "some/id"


def test_slow_sections_leave_given_values():
    config = load_config("windows", ["search.grace_period=2"], {"search.seed": 5}, profile="data")
    slow = config.for_slow_machine()
    assert slow.space.fixed()["model.unfreeze"] == 0 and "model.unfreeze" not in config.space.fixed()
    assert (slow.search.epochs, slow.search.grace_period, slow.search.seed) == (1, 1, 5)
    for own in ("model.unfreeze=4", "model.unfreeze=0", "model.backbone=none"):
        assert load_config("windows", [own], profile="data").slow == {}
    assert load_config("windows").slow == {}, "the demo has its own space"


@pytest.mark.parametrize("task", ["tweets", "lyrics"])
def test_given_number_lays_its_sections_over_the_file(task):
    fine_tuned, frozen = (load_config(task, sets, profile="data") for sets in ([], ["model.unfreeze=0"]))
    assert (fine_tuned.search.epochs, frozen.search.epochs) == (4, 40)
    assert frozen.space.fixed()["schedule"] == "cosine"
    slow = fine_tuned.for_slow_machine()
    assert (slow.raw["space"], slow.search) == (frozen.raw["space"], frozen.search)


def test_given_value_lays_its_sections_over_the_file():
    plain, scratch = (load_config("windows", sets, profile="data") for sets in ([], ["model.backbone=none"]))
    assert (plain.search.epochs, scratch.search.epochs) == (13, 80)
    assert plain.space.fixed()["image_size"] == 160 and "image_size" not in scratch.space.fixed()
    other = load_config("windows", ["model.backbone=some/id"], profile="data")
    assert other.search.epochs == 13 and other.space.fixed()["model.backbone"] == "some/id"
    shorter = load_config("windows", ["model.backbone=none", "search.epochs=20"], profile="data")
    assert shorter.search.epochs == 20


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["lrr=1"], "--set lrr=1: lrr: unknown key; did you mean 'lr'? space has model, "),
        (["qqqq=1"], "--set qqqq=1: qqqq: unknown key; space has model, "),
        (["search.grace=1"], "search.grace: unknown key; did you mean 'grace_period'? search has searcher, "),
        (["search.time_budget=120"], "--set search.time_budget=120: expected a duration, such as '120s'"),
        (["search.stall_timeout=[1]"], "expected a duration, such as '90s'"),
        (["lrr=1"], "did you mean 'lr'?"),
        (["search.trails=1"], "did you mean 'trials'?"),
        (["search.trials=0"], "--set search.trials=0: input should be greater than or equal to 1"),
        (["search.trials=many"], "--set search.trials=many: input should be a valid integer"),
        (
            ["search.searcher=magic"],
            "--set search.searcher=magic: allowed are ranks, tpe, gp, random, grid, nsga2",
        ),
        (["search.grace_period=99"], "search.grace_period: 99: must be <= search.epochs (12)"),
        (["search.time_budget=soon"], "--set search.time_budget=soon: 'soon': expected a positive duration"),
        (["resources.gpus=1.5"], "resources.gpus: 1.5: expected a share of one GPU, or a whole number of GPUs"),
        (["resources.processes=2", "resources.gpus=3"], "gpus: 3: expected 0 or a multiple of resources.processes (2)"),
        (["resources.processes=2", "resources.gpus=0.5"], "gpus: 0.5: expected 0 or a multiple of"),
        (["resources.processes=2", "resources.gpus=auto"], "gpus: auto: measures the share of one process"),
        (["resources.processes=3", "resources.nodes=2"], "nodes: 2: each machine has the same number of processes"),
        (["resources.nodes=2"], "nodes: 2: each machine has the same number of processes, and there are 1"),
        (["data.size=big"], "'big': expected a whole number such as the default 96"),
        (["data.val_fraction=[1]"], "expected a number such as the default 0.15"),
        (["data.val_fraction=1.5"], "1.5: expected a number > 0 and < 1, such as the default 0.15"),
        (["data.test_fraction=0"], "0: expected a number > 0 and < 1, such as the default 0.2"),
        (["data.demo=3"], "expected keys inside"),
        (["model=3"], "space.model is a group; set one of backbone, unfreeze in it"),
        (["lr={loguniform: [0, 0.1]}"], "configs/windows.yaml with --set: space.lr: loguniform [0, 0.1]"),
        (["lr=abc"], "--set lr=abc: 'abc': expected a number, such as 0.001"),
        (["width={choice: [4, wide]}"], "'wide': expected a whole number, such as"),
        (["width=16.5"], "--set width=16.5: 16.5: expected a whole number, such as 12"),
        (["width={uniform: [8, 16]}"], "expected a whole number >= 1, such as {int: [LOW, HIGH]} gives"),
        (["width=0"], "--set width=0: expected a whole number >= 1"),
        (["dropout=-0.1"], "--set dropout=-0.1: expected a number >= 0 and < 1"),
        (["dropout={uniform: [0.5, 1.5]}"], "1.5: expected a number >= 0 and < 1"),
        (["norm=bacth"], "--set norm=bacth: allowed are batch, group; did you mean 'batch'?"),
        (["norm=null"], "--set norm=null: None: allowed are batch, group"),
        (["norm={choice: [batch, grup]}"], "'grup': allowed are batch, group; did you mean 'group'?"),
        (["width={value: 8, when: {norm: grup}}"], "when: norm: 'grup': allowed are batch, group"),
        (["optimizer=adamm"], "--set optimizer=adamm: allowed are adamw, adam, sgd; did you mean 'adam'?"),
        (["norm={choice: [batch, group], prior: grup}"], "prior 'grup': must be a value of {batch, group}"),
        (["model.unfreeze=perhaps"], "--set model.unfreeze=perhaps: expected a whole number >= 0, or all"),
        (["search=3"], "--set search=3: search is a section; set one of its keys: searcher, trials, "),
        (["search=null"], "--set search=null: search is a section; set one of its keys: "),
        (["space=null"], "--set space=null: space is a section; set one of its keys: "),
        (["data={}"], "--set data={}: data is a section; set one of its keys: "),
        (["search.epochs=many"], "--set search.epochs=many: input should be a valid integer"),
        ([f"lr={'9' * 5000}"], "the value is not YAML: "),
        (["lr"], "--set lr: expected KEY=VALUE"),
        (["lr={"], "the value is not YAML"),
    ],
)
def test_wrong_setting_is_refused_with_key_value_and_what_is_allowed(sets, message):
    with pytest.raises(InputError) as error:
        load_config("windows", sets)
    assert message in str(error.value)


@pytest.mark.parametrize("profile", ["data", "demo"])
@pytest.mark.parametrize("task", TASKS)
def test_misspelt_text_of_any_parameter_is_refused_before_anything_starts(task, profile):
    space = load_config(task, profile=profile).space
    free = {"model.pretrained", "model.backbone"}  # the name of any checkpoint
    texts = {p.name for p in space.parameters if any(isinstance(v, str) for v in p.choices)} - free
    assert texts
    for name in texts:
        for value in ("x-y", "{choice: [x-y]}"):
            with pytest.raises(InputError, match=rf"--set {name}=.*x-y.*: (allowed are \w+, \w+|.* or all)"):
                load_config(task, [f"{name}={value}"], profile=profile)


@pytest.mark.parametrize("profile", ["data", "demo"])
@pytest.mark.parametrize("task", TASKS)
def test_every_value_of_a_file_is_one_that_its_code_takes(task, profile):
    config, allowed = load_config(task, profile=profile), get_task(task).allowed
    check_space(config, allowed, {})
    assert {p.name for p in config.space.parameters} - set(allowed) <= {"model.pretrained", "model.backbone"}
    given = {"model.unfreeze", "model.lora"}  # of wikitext: hyperparameters of the section `given` of its file
    assert set(allowed) - {"lr", "momentum", *given} <= {p.name for p in config.space.parameters}


@pytest.mark.parametrize("task", TASKS)
def test_text_that_only_the_full_space_lists_is_taken_in_the_demo(task):
    full = load_config(task, profile="data").space
    for parameter in full.parameters:
        for value in parameter.choices if any(isinstance(c, str) for c in parameter.choices) else ():
            load_config(task, [f"{parameter.name}={value}"])


def test_choice_of_numbers_lists_examples_and_others_are_taken():
    assert load_config("windows", ["batch_size=256"]).space.fixed()["batch_size"] == 256


def test_flag_is_named_where_its_value_is_wrong():
    with pytest.raises(InputError, match=r"^--trials 0: input should be greater"):
        load_config("rnn", [], {"search.trials": 0})
    with pytest.raises(InputError, match=r"^--time-budget soon: 'soon': expected a positive duration"):
        load_config("rnn", [], {"search.time_budget": "soon"})


SPACE = {"opt": {"choice": ["sgd", "adam"]}, "momentum": {"uniform": [0, 1], "when": {"opt": "sgd"}}}


@pytest.mark.parametrize(
    ("space", "sets", "message"),
    [
        (SPACE, ["opt=adm"], "--set opt=adm: allowed are sgd, adam; did you mean 'adam'?"),
        (SPACE, ["opt={choice: [sdg]}"], "'sdg': allowed are sgd, adam; did you mean 'sgd'?"),
        (SPACE | {"beta": {"value": 1, "when": {"opt": "adm"}}}, [], "when: opt: 'adm'"),
        (
            SPACE | {"beta": {"value": 1, "when": {"opt": ["sgd", "adm"]}}},
            [],
            "when: opt: 'adm' is not a value of opt; allowed: ['sgd', 'adam']",
        ),
    ],
)
def test_misspelt_text_in_a_space_of_a_users_own_is_refused(space, sets, message):
    with pytest.raises(InputError) as error:
        loop_config("mine", space, "loss min", {}, sets, "here")
    assert message in str(error.value)


def test_space_file_in_another_encoding_is_refused_in_a_line(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_bytes("größe: {int: [1, 2]}\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"--space .*space.yaml: not in UTF-8 \(byte 2\)"):
        read_space(file)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("0.5h", 1800)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "10", "-5m", "m", "1d"])
def test_wrong_durations_are_refused(text):
    with pytest.raises(InputError, match="expected a positive duration"):
        parse_duration(text)


@pytest.mark.parametrize("task", TASKS)
def test_demo_is_short_and_real_data_has_a_budget_and_priors(task):
    demo, data = load_config(task), load_config(task, profile="data")
    assert demo.search.trials and demo.search.time_budget is None and not demo.search.fit_epochs
    assert data.search.trials is None and data.search.time_budget == "1h" and data.search.fit_epochs
    searched = [p for p in data.space.parameters if p.searched]
    assert searched and all(p.has_prior for p in searched if p.name != "sgd_lr")
    assert not any(p.has_prior for p in demo.space.parameters)
    assert set(demo.raw["space"]) == set(data.raw["space"])


@pytest.mark.parametrize(
    ("sets", "flags", "ends"),
    [
        ([], {}, (None, "1h", None)),
        ([], {"search.time_budget": "10m"}, (None, "10m", None)),
        ([], {"search.trials": 8}, (8, None, None)),
        (["search.epoch_budget=100"], {}, (None, None, 100)),
        (["search.trials=8"], {"search.time_budget": "10m"}, (8, "10m", None)),
    ],
)
def test_default_budget_holds_only_where_nothing_else_says_when_to_end(sets, flags, ends):
    search = load_config("rnn", sets, flags, "data").search
    assert (search.trials, search.time_budget, search.epoch_budget) == ends


def test_epochs_that_are_given_are_not_fitted_to_the_budget():
    assert load_config("rnn", profile="data").search.fit_epochs
    assert not load_config("rnn", [], {"search.epochs": 7}, "data").search.fit_epochs
    assert load_config("rnn", ["search.fit_epochs=true"], {"search.epochs": 7}, "data").search.fit_epochs


def test_rounds_take_the_scheduler_that_has_rounds():
    assert load_config("rnn", [], {"search.deterministic": True}, "data").search.scheduler == "asha"
    with pytest.raises(InputError, match="asha-promote: has no rounds"):
        load_config("rnn", ["search.scheduler=asha-promote"], {"search.deterministic": True}, "data")


def test_trials_without_a_number_need_a_budget():
    with pytest.raises(InputError, match=r"search\.trials: null: has no end without a budget"):
        load_config("rnn", ["search.time_budget=null"], profile="data")


def test_digest_follows_content_alone():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


@settings(deadline=None)  # a busy machine takes long
@given(st.text(max_size=30))
def test_no_set_makes_a_traceback(text):
    try:
        load_config("windows", [text])
    except InputError as error:
        assert "--set" in str(error)


def test_few_epochs_that_are_given_bring_the_first_rung_forward():
    assert load_config("rnn", [], {"search.epochs": 2}, "data").search.grace_period == 2
    with pytest.raises(InputError, match=r"grace_period: 3: must be <= search\.epochs \(2\)"):
        load_config("rnn", ["search.grace_period=3"], {"search.epochs": 2}, "data")


def own_task(tmp_path, monkeypatch, text: str, profile: str):
    """The configuration of another package's task whose YAML file holds `text`."""
    (tmp_path / "mine.py").write_text("TASK = None")
    (tmp_path / "mine.yaml").write_text(text + "space: {lr: 0.1}\ndata: {}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.setenv("SEARCH_TASKS", "")
    register_task("mine", "mine:TASK")
    return load_config("mine", profile=profile).search


def test_demo_of_the_defaults_wins_over_the_top_level_of_a_task_that_has_a_demo(tmp_path, monkeypatch):
    text = "search: {epochs: 80, grace_period: 9}\ndemo: {search: {trials: 7}}\n"
    demo, data = (own_task(tmp_path, monkeypatch, text, profile) for profile in ("demo", "data"))
    assert (demo.epochs, demo.grace_period, demo.trials, demo.searcher) == (12, 3, 7, "tpe")
    assert (data.epochs, data.grace_period, data.trials, data.searcher) == (80, 9, None, "ranks")


def test_task_without_a_demo_keeps_what_its_file_says(tmp_path, monkeypatch):
    own = own_task(tmp_path, monkeypatch, "search: {epochs: 80, grace_period: 9}\n", "demo")
    assert (own.epochs, own.grace_period) == (80, 9)


@pytest.mark.parametrize(("epochs", "window"), [(12, 1), (20, 1), (21, 3), (80, 3)])
def test_trials_of_21_epochs_or_more_are_ranked_by_the_mean_of_three(epochs, window):
    assert load_config("windows", [f"search.epochs={epochs}"]).window == window


@pytest.mark.parametrize(
    ("sets", "flags", "key", "value"),
    [
        ([], {"search.trials": "2"}, "trials", 2),
        (["search.trials='3'"], {}, "trials", 3),
        (["search.trials=1e6"], {}, "trials", 1_000_000),
        (["search.fit_epochs=no"], {}, "fit_epochs", False),
        ([], {"search.reduction_factor": "3"}, "reduction_factor", 3.0),
    ],
)
def test_configuration_holds_the_checked_value_and_resume_adds_to_it(sets, flags, key, value):
    config = load_config("rnn", sets, flags)
    kept = config.raw["search"][key]
    assert (kept, type(kept)) == (value, type(value)) and getattr(config.search, key) == value
    if key == "trials":
        assert extend(config, {"trials": "+1"}).search.trials == value + 1


def test_record_of_an_older_version_with_a_text_for_a_number_can_be_extended():
    config = load_config("rnn", ["search.trials=2"])
    raw = {**config.raw, "search": {**config.raw["search"], "trials": "2"}}
    assert extend(check_config("rnn", raw, "here"), {"trials": "+1"}).search.trials == 3


@pytest.mark.parametrize("key", ["search.trials", "search.reduction_factor", "resources.cpus", "resources.gpus"])
def test_truth_value_is_no_number(key):
    with pytest.raises(InputError, match=f"--set {key}=true: true is neither a number nor a text"):
        load_config("rnn", [f"{key}=true"])


def test_whole_number_of_a_field_for_floats_stays_as_it_was_given():
    assert repr(load_config("rnn", ["resources.cpus=2"]).raw["resources"]["cpus"]) == "2"


def test_number_of_5000_digits_in_a_space_file_is_refused_in_a_line(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text(f"n: {{int: [1, {'9' * 5000}]}}")
    with pytest.raises(InputError, match=r"^--space .*space.yaml: cannot be read: .*digits"):
        read_space(file)


@pytest.mark.parametrize("content", ["space: [1]", "space: 3", "[1, 2]", "- [x, 1]"])
def test_space_file_without_a_mapping_is_refused_in_a_line(tmp_path, content):
    (tmp_path / "space.yaml").write_text(content)
    with pytest.raises(InputError, match=r"^--space .*space.yaml: .*expected hyperparameters, such as"):
        read_space(tmp_path / "space.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lr: {uniform: [2, 1]}", "space.lr: uniform [2, 1]: the range is empty"),
        ("lr: 1\nx: 2\nlr: 3", "cannot be read: found duplicate key lr (line 3)"),
        ("lr: {uniform: [1, 2}", "cannot be read: did not find expected ',' or ']' (line 1)"),
        (
            "x: [1, 2]",
            "space.x: [1, 2]: expected a string, a finite number, true, false or null; for one of several "
            "values: search.choice([1, 2]) in Python, {choice: [1, 2]} in YAML",
        ),
        (
            "x: {logunifrom: [1, 2]}",
            "space.x.logunifrom: [1, 2]: expected a string, a finite number, true, false or "
            "null; did you mean 'loguniform'?",
        ),
    ],
)
def test_mistake_in_a_space_file_is_named_with_the_file(tmp_path, content, message):
    file = tmp_path / "space.yaml"
    file.write_text(content)
    with pytest.raises(InputError) as error:
        read_space(file)
    assert str(error.value).startswith(f"--space {file}: {message}")


@pytest.mark.parametrize(
    ("text", "example"), [("loss", "loss min"), ("val_loss minimize", "val_loss min"), ("", "val_loss min")]
)
def test_wrong_objective_is_refused_with_the_right_form_of_it(text, example):
    with pytest.raises(
        InputError, match=rf"^objective: '{text}': expected a metric and min or max, such as `{example}`$"
    ):
        parse_objective(text, "objective")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", r"given: \[1\]: expected sections by hyperparameter"),
        ("{lr: 3}", "given: lr: 3: expected the sections"),
        ("{lr: {other: {}}}", "given: lr: .*other.*: expected the sections"),
        ("{lr=1: {}}\nslow: lr=2", "slow: 'lr=2': expected the NAME=VALUE of a part of `given`"),
        ("{lr: {}}\nslow: lr", "slow: 'lr': expected the NAME=VALUE of a part of `given`"),
    ],
)
def test_wrong_section_given(tmp_path, text, message):
    file = tmp_path / "wikitext.yaml"
    file.write_text(f"given: {text}\nspace: {{lr: 1.0}}\ndata: {{}}\n")
    with pytest.raises(InputError, match=message):
        load_config("wikitext", file=file)


def test_section_given_is_laid_over_where_its_hyperparameter_has_a_value(tmp_path):
    file = tmp_path / "wikitext.yaml"
    file.write_text(
        "space: {adam_lr: 1.0}\ndata: {}\ngiven: {model.pretrained: {search: {epochs: 7}, "
        "space: {adam_lr: 0.5, model: {pretrained: null, lora: 0}}}}\n"
    )
    plain = load_config("wikitext", file=file)
    assert plain.space.fixed() == {"adam_lr": 1.0}
    assert load_config("wikitext", ["model.pretrained=null"], file=file).raw == plain.raw
    given = load_config("wikitext", ["model.pretrained=x", "model.lora=3"], file=file)
    assert given.space.fixed() == {"adam_lr": 0.5, "model.pretrained": "x", "model.lora": 3}
    assert given.search.epochs == 7
    assert load_config("wikitext", ["model.pretrained=x", "adam_lr=0.1"], file=file).space.fixed()["adam_lr"] == 0.1
