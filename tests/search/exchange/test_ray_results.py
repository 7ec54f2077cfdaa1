"""Experiment folders as Ray Tune itself writes them."""

import json
import math

import numpy as np
import pytest

from search.core.store import Store
from search.exchange.imported import keep_imported
from search.exchange.ray_results import read_experiment
from trainables import InputError

TUNE = """
import sys
from ray import tune

def train(config):
    if config["model"]["width"] == 32 and config["kind"] == "b":
        raise ValueError("mine")
    for epoch in range(9):
        tune.report({"loss": abs(config["lr"] - 0.01) + 1 / (epoch + 1), "nested": {"accuracy": 0.5}})

tune.Tuner(
    train,
    param_space={
        "lr": tune.loguniform(1e-4, 1e-1), "kind": tune.choice(["a", "b"]), "model": {"width": tune.choice([16, 32])},
        "seed": 3,
    },
    tune_config=tune.TuneConfig(
        metric="loss", mode="min", num_samples=12, scheduler=tune.schedulers.ASHAScheduler(grace_period=1)
    ),
    run_config=tune.RunConfig(name="theirs", storage_path=sys.argv[1], verbose=0),
).fit()
"""


def write(folder, number, params, losses, failed=False):
    place = folder / f"train_{number}"
    place.mkdir(parents=True)
    (place / "params.json").write_text(json.dumps(params))
    if failed:
        (place / "error.txt").write_text("mine")
    lines = [
        json.dumps({"loss": loss, "training_iteration": i, "time_this_iter_s": 0.5, "pid": 7, "done": False,
                    "config": params, "nested": {"accuracy": 0.25}})
        for i, loss in enumerate(losses, 1)
    ]  # fmt: skip
    (place / "result.json").write_text("\n".join(lines) + "\n")


def test_trials_ranges_and_outcomes_are_those_of_the_folder(tmp_path):
    write(tmp_path / "theirs", 0, {"lr": 0.0001, "kind": "a", "model": {"width": 16}, "seed": 3}, [3.0, 2.0, 1.0])
    write(tmp_path / "theirs", 1, {"lr": 0.1, "kind": "b", "model": {"width": 48}, "seed": 3}, [4.0])
    write(tmp_path / "theirs", 2, {"lr": 0.01, "kind": "a", "model": {"width": 32}, "seed": 3}, [], failed=True)
    read = read_experiment(tmp_path / "theirs", "loss", "min")
    assert read.space == {
        "lr": {"loguniform": [0.0001, 0.1]}, "kind": {"choice": ["a", "b"]}, "model.width": {"int": [16, 48]},
        "seed": 3,
    }  # fmt: skip
    assert [trial.outcome for trial in read.trials] == ["completed", "stopped_early", "failed"]
    assert read.trials[0].curve[3] == {"loss": 1.0, "nested/accuracy": 0.25, "epoch_seconds": 0.5}
    name, state = keep_imported(Store(tmp_path / "store"), None, read, pytest.fail)
    assert name == "theirs" and state.best().number == 0 and state.best().seconds == 1.5


def test_mistakes_are_told_in_a_line(tmp_path):
    with pytest.raises(InputError, match=r"no folders with a params.json in it"):
        read_experiment(tmp_path, "loss", "min")
    write(tmp_path, 0, {"lr": 1.0}, [1.0])
    with pytest.raises(InputError, match=r"no trial reported 'los'; there are .*loss, nested/accuracy"):
        read_experiment(tmp_path, "los", "min")
    (tmp_path / "train_0" / "params.json").write_text("{")
    with pytest.raises(InputError, match="train_0: cannot be read"):
        read_experiment(tmp_path, "loss", "min")


GOOD = {"loss": 1.0, "training_iteration": 1}


@pytest.mark.parametrize(
    "line",
    [
        b'{"loss": 0.5, "training_iterat',
        b"\xff\xfe\x00",
        b"[1, 2]",
        b"[" * 100_000,
        b'{"loss": 0.5}',
        b'{"loss": 0.5, "training_iteration": null}',
        b'{"loss": 0.5, "training_iteration": "3"}',
        b'{"loss": null, "training_iteration": 2}',
        b'{"loss": "low", "training_iteration": 2}',
        b'{"loss": NaN, "training_iteration": 2}',
        b'{"loss": true, "training_iteration": 2}',
        b'{"loss": 1' + b"0" * 400 + b', "training_iteration": 2}',
    ],
    ids=lambda line: line[:40].decode("latin-1"),
)
def test_line_that_cannot_be_used_is_passed_over_and_told(line, tmp_path):
    write(tmp_path / "theirs", 0, {"lr": 0.1}, [3.0, 2.0])
    write(tmp_path / "theirs", 1, {"lr": 0.2}, [])
    (tmp_path / "theirs" / "train_1" / "result.json").write_bytes(json.dumps(GOOD).encode() + b"\n" + line)
    read = read_experiment(tmp_path / "theirs", "loss", "min")
    assert [sorted(trial.curve) for trial in read.trials] == [[1, 2], [1]]
    assert len(read.notes) == 2 and "1 lines of results are passed over: " in read.notes[1]
    assert "train_1/result.json line 2" in read.notes[1]


def test_nested_nan_and_null_seconds_are_left_out_and_the_line_counts(tmp_path):
    write(tmp_path / "theirs", 0, {"lr": 0.1}, [])
    line = '{"loss": 1, "training_iteration": 1, "nested": {"a": NaN, "b": 2}, "time_this_iter_s": null, "x": null}'
    (tmp_path / "theirs" / "train_0" / "result.json").write_text(line)
    read = read_experiment(tmp_path / "theirs", "loss", "min")
    assert read.trials[0].curve == {1: {"loss": 1.0, "nested/b": 2.0, "epoch_seconds": 0.0}}
    assert len(read.notes) == 1


def test_trial_whose_hyperparameters_are_torn_is_left_out_and_told(tmp_path):
    for number in range(3):
        write(tmp_path / "theirs", number, {"lr": 0.1 * (number + 1)}, [3.0])
    (tmp_path / "theirs" / "train_1" / "params.json").write_text('{"lr": 0.')
    read = read_experiment(tmp_path / "theirs", "loss", "min")
    assert len(read.trials) == 2 and "1 trials are left out: " in read.notes[-1] and "train_1" in read.notes[-1]


def test_trial_with_a_hyperparameter_that_is_no_number_is_left_out_and_told(tmp_path):
    for number, rate in enumerate((0.1, math.nan, 0.3)):
        write(tmp_path / "theirs", number, {"lr": rate}, [3.0])
    read = read_experiment(tmp_path / "theirs", "loss", "min")
    assert read.space == {"lr": {"uniform": [0.1, 0.3]}}
    assert read.notes[-1].endswith("train_1: cannot be read (its lr is nan)")


def test_metric_that_is_never_a_number_is_refused(tmp_path):
    write(tmp_path, 0, {"lr": 0.1}, [])
    (tmp_path / "train_0" / "result.json").write_text('{"loss": null, "training_iteration": 1}\n')
    with pytest.raises(InputError, match="no trial reported a number for 'loss'; there are loss, training_iteration"):
        read_experiment(tmp_path, "loss", "min")


@pytest.mark.parametrize("kind", ["loguniform", "uniform"])
def test_kind_of_a_range_is_inferred_from_twenty_values_over_a_factor_of_a_hundred(kind, tmp_path):
    right = 0
    for seed in range(40):
        drawn = np.random.default_rng(seed).uniform(size=20)
        values = 1e-3 * 100**drawn if kind == "loguniform" else 1e-3 + 0.099 * drawn
        folder = tmp_path / str(seed)
        for number, value in enumerate(values):
            write(folder, number, {"lr": float(value)}, [1.0])
        right += kind in read_experiment(folder, "loss", "min").space["lr"]
    assert right >= 36


@pytest.mark.slow
def test_folder_that_ray_tune_wrote_is_read_as_its_own_results_are(tmp_path):
    import subprocess
    import sys

    import pandas as pd

    code = TUNE.replace(").fit()", ").fit().get_dataframe().to_parquet(sys.argv[1] + '/frame.parquet')")
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    frame = pd.read_parquet(tmp_path / "frame.parquet")
    read = read_experiment(tmp_path / "theirs", "loss", "min")
    assert len(read.trials) == 12
    ended = [trial for trial in read.trials if trial.curve]
    last = sorted((trial.params["lr"], max(trial.curve), trial.curve[max(trial.curve)]["loss"]) for trial in ended)
    theirs = frame.dropna(subset=["loss"])
    assert last == sorted(zip(theirs["config/lr"], theirs["training_iteration"], theirs["loss"], strict=True))
    assert all(trial.params["model.width"] in (16, 32) and trial.params["seed"] == 3 for trial in read.trials)
