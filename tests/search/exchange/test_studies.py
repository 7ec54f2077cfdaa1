"""Optuna's studies: what is read is what the study holds, and what is written is what the search holds."""

import math

import optuna
import pytest

from search.core.program_config import loop_config
from search.core.replay import open_search, replay
from search.core.searchers.optuna_searcher import distribution
from search.core.space import parse_space
from search.core.store import Store
from search.core.warm_start import from_search
from search.exchange.imported import keep_imported
from search.exchange.studies import read_study, write_study
from trainables import InputError

SPACE = {
    "optimizer": {"choice": ["sgd", "adam"]},
    "lr": {"loguniform": [1e-4, 1e-1]},
    "momentum": {"uniform": [0.5, 0.9], "when": {"optimizer": ["sgd"]}},
    "width": {"int": [16, 64], "step": 16},
    "dropout": {"uniform": [0.0, 0.5], "step": 0.25},
    "depth": {"int": [1, 4]},
}


def objective(trial):
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "sgd":
        trial.suggest_float("momentum", 0.5, 0.9)
    width = trial.suggest_int("width", 16, 64, step=16)
    dropout = trial.suggest_float("dropout", 0.0, 0.5, step=0.25)
    trial.suggest_int("depth", 1, 4)
    if trial.number == 5:
        raise ValueError("mine")
    for epoch in range(6):
        loss = (math.log10(lr) + 2.5) ** 2 + dropout + width / 100 + 1 / (epoch + 1)
        trial.report(loss, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = f"sqlite:///{tmp_path_factory.mktemp('study')}/study.db"
    made = optuna.create_study(
        storage=url, study_name="mine: first", sampler=optuna.samplers.TPESampler(seed=1),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    )  # fmt: skip
    made.optimize(objective, n_trials=24, catch=(ValueError,))
    made.ask()  # one that never ends
    return url, made


@pytest.fixture(scope="module")
def kept(study, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    said = []
    name, state = keep_imported(store, None, read_study(study[0], None, "val_loss"), said.append)
    assert not said
    return store, name, state


def states(made):
    return [trial.state.name for trial in made.get_trials(deepcopy=False)]


def test_space_trials_and_intermediate_values_are_those_of_the_study(study, kept):
    _, made = study
    store, name, state = kept
    assert name == "mine-first"
    folder, _, config = open_search(store, name)
    assert {p.name: p for p in config.space.parameters} == {p.name: p for p in parse_space(SPACE, "here").parameters}
    assert "loguniform" in (folder.path / "space.yaml").read_text()
    over = [trial for trial in made.get_trials(deepcopy=False) if trial.state.is_finished()]
    assert len(state.trials) == len(over) == 24
    outcomes = {"COMPLETE": "completed", "PRUNED": "stopped_early", "FAIL": "failed"}
    assert {trial.state.name for trial in over} == set(outcomes)
    for mine, theirs in zip(state.trials.values(), over, strict=True):
        assert mine.params == theirs.params
        assert mine.outcome == outcomes[theirs.state.name]
        values = {epoch - 1: metrics["val_loss"] for epoch, metrics in mine.curve.items()}
        assert values == theirs.intermediate_values
    assert (state.best().number, state.best().best_value) == (made.best_trial.number, made.best_value)


def test_imported_search_is_in_mlflow_once(kept):
    from mlflow.tracking import MlflowClient

    store, name, state = kept
    client = MlflowClient(store.tracking_uri)
    runs = client.search_runs([client.get_experiment_by_name(f"imported-{name}").experiment_id], max_results=1000)
    trials = [run for run in runs if "trial" in run.data.tags]
    assert len(trials) == len(state.trials)
    best = next(run for run in trials if run.data.tags["trial"] == str(state.best().number))
    assert best.data.metrics["val_loss"] >= state.best().best_value


def test_search_of_a_function_begins_with_what_a_study_found_out(kept):
    store, name, state = kept
    config = loop_config("train", {**SPACE, "width": {"int": [16, 32], "step": 16}}, "loss min", {}, (), "here")
    warm, said = from_search(store, name, config, "other data")
    able = [t for t in state.trials.values() if t.outcome != "failed" and t.params["width"] <= 32]
    assert [one["params"] for one in warm["trials"]] == [trial.params for trial in able]
    assert len(said) == 1 and "lie outside this space" in said[0]
    with pytest.raises(InputError, match="its loss is better where it is min, not max"):
        from_search(store, name, loop_config("train", SPACE, "accuracy max", {}, (), "here"), "other data")


def test_written_study_has_the_same_best_trial_values_and_pruned_states(study, kept, tmp_path):
    _, made = study
    store, name, state = kept
    url = f"sqlite:///{tmp_path}/out.db"
    _, _, config = open_search(store, name)
    assert write_study(config, state, name, url) == [f"24 trials written to {url} as study {name}"]
    out = optuna.load_study(study_name=name, storage=url)
    assert states(out) == states(made)[:24]
    assert out.best_trial.number == made.best_trial.number and out.best_value == made.best_value
    for mine, theirs in zip(out.trials, made.trials, strict=False):
        assert mine.params == theirs.params
        if mine.state.name != "FAIL":
            assert {step - 1: value for step, value in mine.intermediate_values.items()} == theirs.intermediate_values
    assert optuna.importance.get_param_importances(out)
    with pytest.raises(InputError, match="has a study mine-first already"):
        write_study(config, state, name, url)


def test_best_trial_that_was_stopped_is_the_best_there_too(tmp_path, kept):
    store, name, _ = kept
    folder, _, config = open_search(store, name)
    state, _ = replay(folder)
    state.best().outcome = "stopped_early"
    said = write_study(config, state, "x", f"sqlite:///{tmp_path}/out.db")
    assert said[1:] == [f"trial {state.best().number}, the best, is written as complete although it was stopped_early"]
    out = optuna.load_study(study_name="x", storage=f"sqlite:///{tmp_path}/out.db")
    assert out.best_trial.user_attrs["number"] == state.best().number


def test_value_that_was_never_reported_is_one_more_epoch(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    made = optuna.create_study(storage=url, direction="maximize")

    def train(trial):
        x = trial.suggest_int("x", 1, 100, log=True)
        trial.report(x / 2, 3)
        return float(x)

    made.optimize(train, n_trials=2)
    read = read_study(url, None, None)
    assert (read.metric, read.mode) == ("value", "max")
    assert read.space == {"x": {"int": [1, 100], "log": True}}
    assert read.notes == []
    x = read.trials[0].params["x"]
    assert read.trials[0].curve == {3: {"value": x / 2}, 4: {"value": float(x)}}


def layers(trial):
    """The commonest example of Optuna: as many widths as layers; the first trials fail before they ask for anything."""
    if trial.number < 2:
        raise ValueError("no data yet")
    count = trial.suggest_int("n_layers", 1, 4)
    widths = [trial.suggest_int(f"n_units_l{layer}", 4, 128, log=True) for layer in range(count)]
    if trial.number == 5:
        raise ValueError("before the optimizer")
    if trial.suggest_categorical("optimizer", ["adam", "sgd"]) == "sgd":
        trial.suggest_float("momentum", 0.5, 0.9)
    return sum(widths)


def test_conditions_on_integers_and_choices_survive_trials_that_failed_early(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    made = optuna.create_study(storage=url, sampler=optuna.samplers.RandomSampler(seed=0))
    made.set_metric_names(["loss"])
    made.optimize(layers, n_trials=30, catch=(ValueError,))
    read = read_study(url, None, None)
    assert read.metric == "loss"
    assert {name: spec.get("when") for name, spec in read.space.items()} == {
        "n_layers": None, "n_units_l0": None, "n_units_l1": {"n_layers": [2, 3, 4]}, "n_units_l2": {"n_layers": [3, 4]},
        "n_units_l3": {"n_layers": [4]}, "optimizer": None, "momentum": {"optimizer": ["sgd"]},
    }  # fmt: skip
    parse_space(read.space, "here")
    assert not any("lack it" in note for note in read.notes)
    assert [trial.outcome for trial in read.trials].count("failed") == 3


def test_condition_holds_for_a_number_between_those_that_were_tried(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    made = optuna.create_study(storage=url)

    def train(trial):
        if trial.suggest_int("n", 1, 9) >= 4:
            trial.suggest_float("x", 0.0, 1.0)
        return 1.0

    for value in (1, 2, 4, 7):
        made.enqueue_trial({"n": value})
    made.optimize(train, n_trials=4)
    # Whether 3 has it was not tried.
    assert read_study(url, None, None).space["x"]["when"] == {"n": [4, 5, 6, 7, 8, 9]}


def test_written_trials_have_the_times_of_the_journal(kept, tmp_path):
    store, name, _ = kept
    folder, _, config = open_search(store, name)
    state, events = replay(folder)
    begun = 1_700_000_000_000
    moved = [{**event, "time": begun + 60_000 * place} for place, event in enumerate(events)]
    url = f"sqlite:///{tmp_path}/out.db"
    write_study(config, state, "x", url, moved)
    for trial in optuna.load_study(study_name="x", storage=url).trials:
        own = [event["time"] for event in moved if event.get("number") == trial.user_attrs["number"]]
        assert trial.datetime_start.timestamp() * 1000 == own[0]
        assert trial.duration.total_seconds() * 1000 == own[-1] - own[0]


def files_with(root, secret: str) -> list[str]:
    return [str(path) for path in root.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_secret_of_a_storage_is_neither_kept_nor_said(tmp_path):
    secret = "cor-rect/horse"
    url = f"sqlite:///file:{tmp_path}/s.db?uri=true&token={secret}"
    made = optuna.create_study(storage=url, study_name="theirs")
    made.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    store, said = Store(tmp_path / "store"), []
    read = read_study(url, None, None)
    name, state = keep_imported(store, None, read, said.append)
    _, _, config = open_search(store, name)
    said += write_study(config, state, "out", url)
    assert said and secret not in " ".join([*said, read.source, repr(read)])
    assert not files_with(store.root, secret)


@pytest.mark.parametrize("secret", ["correct horse", "p@ss/word?x=1&y#z", "a:b@c d'e\"f"])
def test_secret_of_a_storage_that_does_not_open_is_not_said(secret):
    for url in (f"postgresql+psycopg2://ann:{secret}@127.0.0.1:1/x", f"mysql+pymysql://ann:{secret}@127.0.0.1:1/x"):
        with pytest.raises(InputError) as refused:
            read_study(url, None, None)
        assert secret not in str(refused.value) and "\n" not in str(refused.value)


def test_missing_driver_of_a_database_is_told_with_what_to_install():
    with pytest.raises(
        InputError,
        match=r"oracle://\*\*\*@h/x: the driver of this database is not installed \(No module named .*\); install it",
    ):
        read_study("oracle://ann:secret@h/x", None, None)


def test_mistakes_are_told_in_a_line(study, tmp_path):
    with pytest.raises(InputError, match="there is none of that name; there are mine: first"):
        read_study(study[0], "yours", None)
    with pytest.raises(InputError, match="cannot be opened as a storage of Optuna"):
        read_study("nonsense://x", None, None)
    url = f"sqlite:///{tmp_path}/s.db"
    optuna.create_study(storage=url, directions=["minimize", "maximize"])
    with pytest.raises(InputError, match="has 2 objectives; one is read"):
        read_study(url, None, None)
    store = Store(tmp_path)
    optuna.create_study(storage=f"sqlite:///{tmp_path}/empty.db", study_name="e")
    with pytest.raises(InputError, match="e has no trial that ended"):
        keep_imported(store, None, read_study(f"sqlite:///{tmp_path}/empty.db", None, None), print)


def test_steps_and_log_integers_come_and_go(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    study = optuna.create_study(storage=url)
    study.optimize(
        lambda trial: trial.suggest_int("n", 8, 1024, log=True) * trial.suggest_float("mix", 0, 0.5, step=0.1),
        n_trials=9,
    )
    read = read_study(url, None, None)
    assert read.space == {"n": {"int": [8, 1024], "log": True}, "mix": {"uniform": [0, 0.5], "step": 0.1}}
    n, mix = parse_space(read.space, "here").parameters
    assert all(n.allows(trial.params["n"]) and mix.allows(trial.params["mix"]) for trial in read.trials)
    assert {p.name: distribution(p) for p in (n, mix)} == study.trials[0].distributions
