"""The command under "Again" leads to the search's own configuration, whatever flags it was started with."""

import ast
import shlex
from dataclasses import replace

import pytest
import yaml
from typer.testing import CliRunner

from search.cli.app import app
from search.core.program_config import loop_config, read_space
from search.core.store import Store
from search.reports.repeat_command import again
from tests.search.reports.made import made, made_of_task

FLAGS = {
    "search.trials": 8, "search.epochs": 3, "search.searcher": "random", "search.scheduler": "asha",
    "search.concurrency": 1, "search.time_budget": "1h30m", "search.seed": 7, "resources.cpus": 0.5,
    "search.audit_stopping": 2,
}  # fmt: skip


def dry_run(command: str) -> dict:
    """The configuration that `run` prints for a command line."""
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "search"]
    result = CliRunner().invoke(app, [*words[3:], "--dry-run"])
    assert result.exit_code == 0, result.output
    return yaml.safe_load(result.output.split("configuration:")[0])


@pytest.mark.parametrize(("sets", "flags", "data"), [
    ((), {}, None),
    ((), {}, "/data/it's here.npz"),
    ((), FLAGS, None),
    ((), {"search.trials": 8}, "/d.npz"),  # which ends the default time budget
    ((), {"search.epochs": 40}, "/d.npz"),  # which takes the fitting of epochs along
    ((), {"search.deterministic": True, "search.concurrency": 2}, "/d.npz"),  # which takes the scheduler along
    (("search.fit_epochs=true", "search.time_budget=30m"), {"search.epochs": 40, "search.trials": 9}, "/d.npz"),
    (("search.trials=null", "search.time_budget=10m", "search.grace_period=1"), {}, None),
    (("search.epoch_budget=90", "search.trials=null"), {}, None),
    (("search.notify=[http://127.0.0.1:9]", "search.on_end='echo \"$X\"'", "search.writers=[tensorboard]"), {}, None),
    (("lr=0.01", "variant=vanilla", "layers={int: [1, 9], step: 2}", "clip_norm={choice: [1, 5]}"), {}, "/d.npz"),
    (("search.objective=[mse min, parameters min]", "search.searcher=nsga2", "data.demo.train=500"), {}, None),
    (("data.target='it''s a \"name\" $HOME \\ é \U0001f600'", "resources.gpus=1"), {}, None),
    (("search.balance=null", "search.max_epoch_seconds=1e-3"), {"search.seed": 1}, None),
    (("weight_decay={value: 1e-5, when: {optimizer: adamw}}",), {"resources.gpus": "auto"}, None),
])  # fmt: skip
def test_again_leads_to_the_same_configuration(tmp_path, monkeypatch, sets, flags, data):
    monkeypatch.setattr("search.runs.check_source", lambda path: None)  # the data of the search are not on this machine
    _, folder, record, config = made_of_task(tmp_path, "rnn", sets, flags, data)
    command = again(folder, record, config, None).command
    assert ("--data" in command) == (data is not None)
    assert_same(dry_run(command), config.raw)


def assert_same(printed: dict, raw: dict) -> None:
    """Whether a printed configuration is a search's; PyYAML takes the number 1e-05 for text."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, list):
            return [plain(one) for one in value]
        try:
            return value if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            return value

    assert plain(printed) == plain(raw)


def test_again_names_no_flag_that_follows_from_another(tmp_path):
    _, folder, record, config = made_of_task(tmp_path, "rnn", (), {"search.trials": 8, "search.seed": 3}, "/d.npz")
    assert again(folder, record, config, None).command == ("python -m search run rnn --data /d.npz --trials 8 --seed 3")


def test_again_has_what_is_no_part_of_the_configuration(tmp_path):
    _, folder, record, config = made_of_task(
        tmp_path, "rnn", (), {"search.storage": "s3://bucket/x/s-0123abcd"}, retrain=False, address="10.0.0.1:6379"
    )
    assert again(folder, record, config, "earlier").command == (
        "python -m search run rnn --storage s3://bucket/x --from earlier --address 10.0.0.1:6379 --no-retrain"
    )


def test_again_hides_a_password(tmp_path):
    _, folder, record, config = made_of_task(tmp_path, "rnn", data="https://me:secret1@host/d.npz")
    assert "secret1" not in again(folder, record, config, None).command


def test_again_of_a_function_in_a_process_that_does_not_know_it_is_the_same(tmp_path, monkeypatch):
    _, folder, record, config = made(tmp_path, {"lr": {"loguniform": [1e-4, 1e-1]}}, [], objective="loss max")
    known = again(folder, record, config, None)
    monkeypatch.setenv("SEARCH_TASKS", "")
    assert again(folder, record, config, None) == known
    assert "objective='loss max'" in known.command


def test_again_of_a_task_that_is_not_installed_says_so(tmp_path):
    _, folder, record, config = made_of_task(tmp_path, "toy")
    found = again(folder, record, replace(config, task="elsewhere"), None)
    assert found.command == "" and "elsewhere is not installed here" in found.words


def test_again_of_a_command_leads_to_the_same_configuration(tmp_path):
    text, pattern = "python train.py --lr {lr} --name 'a b'", r"loss (?P<loss>\S+)"
    flags = {"search.scheduler": "asha", "search.epochs": 4, "search.seed": 5}
    space = {"lr": {"loguniform": [1e-5, 1e-1]}, "model": {"width": {"int": [4, 8]}}, "flag": True,
             "words": {"choice": ["1e-4", "no", "é \U0001f600", None]}}  # fmt: skip
    _, folder, record, config = made(tmp_path, space, [], flags=flags)
    source = tmp_path / "functions" / "s" / "mine.py"
    source.parent.mkdir(parents=True)
    source.write_text(f"Command(text={text!r}, pattern={pattern!r}, environment={{}}, folder='/work here')\n")
    found = again(folder, record, config, None)
    assert "/work here" in found.words
    words = shlex.split(found.command)
    assert words[:4] == ["python", "-m", "search", "run"]
    given = dict(zip(words[4::2], words[5::2], strict=True))
    assert (given.pop("--command"), given.pop("--pattern"), given.pop("--space")) == (text, pattern, "space.yaml")
    (tmp_path / "space.yaml").write_text(found.space)
    space, objective = read_space(tmp_path / "space.yaml"), given.pop("--objective")
    flags = {f"search.{key.removeprefix('--')}": yaml.safe_load(value) for key, value in given.items()}
    read = loop_config("mine", space, objective, {"search.scheduler": "asha", **flags}, (), "again")
    assert {**read.raw, "data": {}} == {**config.raw, "data": {}}


def test_again_of_a_command_has_all_that_describes_it(tmp_path):
    _, folder, record, config = made(tmp_path, {"lr": {"uniform": [0, 1]}}, [], flags={"search.epochs": 4})
    source = tmp_path / "functions" / "s" / "mine.py"
    source.parent.mkdir(parents=True)
    source.write_text(
        "Command(text='x | y {template}', pattern=('(?P<a>.)', '(?P<loss>.)'), environment={}, folder='/w', "
        "report_at='a', template='c.yaml', shell=True)\n"
    )
    words = shlex.split(again(folder, record, config, None).command)
    given = words[words.index("loss min") + 1 :]
    assert given[:9] == [
        "--pattern", "(?P<a>.)", "--pattern", "(?P<loss>.)", "--report-at", "a", "--template", "c.yaml", "--shell"
    ]  # fmt: skip


@pytest.mark.parametrize("option", [["--pattern", "x"], ["--report-at", "x"], ["--template", "x"], ["--shell"]])
def test_run_of_a_task_refuses_options_of_commands(tmp_path, monkeypatch, option):
    monkeypatch.setenv("SEARCH_STORE", str(tmp_path / "store"))
    result = CliRunner().invoke(app, ["run", "windows", *option, "--dry-run"])
    assert result.exit_code == 2 and f"error: {option[0]}: belongs to --command; a task has its own" in result.output


def test_again_of_a_command_hides_its_secrets(tmp_path):
    _, folder, record, config = made(tmp_path, {"lr": {"uniform": [0, 1]}}, [], flags={"search.epochs": 4})
    source = tmp_path / "functions" / "s" / "mine.py"
    source.parent.mkdir(parents=True)
    for environment in ({"KEY": "sk-5f1d9a77c0ffee"}, {}):  # searches of earlier versions stored the values
        text = "x --token 'sk-5f1d9a77c0ffee b' --lr {lr}"
        source.write_text(f"Command(text={text!r}, environment={environment})\n")
        found = again(folder, record, config, None)
        assert "sk-5f1d" not in found.command and "--token ***" in found.command
        assert ("environment={'KEY': '***'}" in found.command) == bool(environment)
        assert ("values of its environment" in found.words) == bool(environment)


def test_dry_run_of_a_command_prints_its_configuration_and_starts_no_search(tmp_path, monkeypatch):
    monkeypatch.setenv("SEARCH_STORE", str(tmp_path / "store"))
    space = tmp_path / "space.yaml"
    space.write_text("lr: {loguniform: [1.0e-5, 1.0e-1]}")
    line = [
        "python",
        "-m",
        "search",
        "run",
        "--command",
        "false {lr}",
        "--space",
        str(space),
        "--objective",
        "loss min",
    ]
    printed = dry_run(shlex.join([*line, "--trials", "7"]))
    assert printed["search"]["trials"] == 7 and printed["search"]["scheduler"] == "asha"
    assert_same(printed["space"], {"lr": {"loguniform": [1e-5, 1e-1]}})
    assert Store(tmp_path / "store").names() == []
    refused = CliRunner().invoke(app, [*line[3:], "--plan"])
    assert refused.exit_code == 2 and "only a TASK has a forecast" in refused.output
    assert Store(tmp_path / "store").names() == []


@pytest.mark.parametrize(
    ("values", "said"),
    [("[true, false]", "amp: true"), ("[1, 0]", r"{amp:flag}: a flag is true or false: write amp: ")],
)
def test_dry_run_of_a_command_with_a_flag(tmp_path, monkeypatch, values, said):
    monkeypatch.setenv("SEARCH_STORE", str(tmp_path / "store"))
    space = tmp_path / "space.yaml"
    space.write_text(f"amp: {{choice: {values}, when: {{kind: a}}}}\nkind: {{choice: [a, b]}}\n")
    given = ["run", "--command", "x {amp:flag} {kind}", "--space", str(space), "--objective", "loss min", "--dry-run"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == (2 if "flag" in said else 0), result.output
    assert said in result.output or '"amp": true' in result.output


def test_again_of_a_function_leads_to_the_same_configuration(tmp_path):
    flags = {"search.epochs": 4, "search.seed": 5, "search.grace_period": 2, "resources.cpus": 2,
             "search.time_budget": "10m"}  # fmt: skip
    space = {"lr": {"loguniform": [1e-4, 1e-1]}, "momentum": {"uniform": [0, 1], "when": {"opt": "sgd"}},
             "opt": {"choice": ["sgd", "adam"]}}  # fmt: skip
    _, folder, record, config = made(tmp_path, space, [], flags=flags)
    found = again(folder, record, config, None)
    call = ast.parse(found.command, mode="eval").body
    assert ast.unparse(call.func) == "search.run"
    assert [ast.unparse(one) for one in call.args] == ["mine"]
    given = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    settings, resources = given.pop("settings", {}), given.pop("resources", {})
    flags = {f"search.{k}": v for k, v in settings.items()} | {f"resources.{k}": v for k, v in resources.items()}
    flags |= {f"search.{k}": v for k, v in given.items() if k not in ("space", "objective")}
    read = loop_config("mine", given["space"], given["objective"], flags, (), "again")
    assert {**read.raw, "data": {}} == {**config.raw, "data": {}}
    assert str(tmp_path / "functions" / "s" / "mine.py") in found.words


def test_again_of_an_imported_search_says_who_made_it(tmp_path):
    _, folder, record, config = made(tmp_path, {"x": {"uniform": [0, 1]}}, [], imported="study.db")
    found = again(folder, record, config, None)
    assert found.command == ""
    assert "imported from study.db" in found.words


@pytest.mark.parametrize("text", ["def mine(trial): ...", "Command(text='train --lr {lr}', environment={})"])
def test_again_of_a_program_is_the_same_in_a_process_that_does_not_know_it(tmp_path, monkeypatch, text):
    _, folder, record, config = made(tmp_path, {"lr": {"uniform": [0, 1]}}, [], flags={"search.epochs": 4})
    source = tmp_path / "functions" / "s" / "mine.py"
    source.parent.mkdir(parents=True)
    source.write_text(text + "\n")
    found = again(folder, record, config, None)
    monkeypatch.setenv("SEARCH_TASKS", "")
    assert again(folder, record, config, None) == found and "loss min" in found.command
