"""The rnn search from the command line: fair shares, the comparison, baselines, a prediction."""

import json
from collections import Counter

import pandas as pd
import pytest

from search.core.readable import figure
from tests.outcomes import assert_logged_once
from tests.serving import assert_served_and_reported

SMALL = (
    "run", "rnn", "--name", "r", "--trials", "6", "--epochs", "2", "--set", "search.grace_period=2",
    "--set", "resources.dashboard=false", "--set", "search.compare_seeds=2", "--set", "layers=1",
    "--set", "data.demo.train=300", "--set", "data.demo.test=100", "--set", "data.demo.longest=12",
)  # fmt: skip


@pytest.fixture(scope="module")
def searched(module_here):
    return module_here, module_here.call(*SMALL)


def repeats(command):
    return {(e["value"], e["seed"]): e for e in command.events("r") if e["event"] == "repeat_finished"}


def test_variant_shares_and_baselines(searched):
    command, output = searched
    variants = Counter(e["params"]["variant"] for e in command.events("r") if e["event"] == "trial")
    assert variants == {"vanilla": 2, "truncated": 2, "padded": 2}
    assert "the best possible test MSE is 0.0900" in output
    assert "baselines (test_mse): constant " in output
    _, runs = command.runs("rnn")
    final = next(r for r in runs if r.data.tags["role"] == "final")
    figures = {k: final.data.metrics[f"baseline_{k}_test_mse"] for k in ("constant", "ridge")}
    beaten = final.data.metrics["test_mse"] < min(figures.values())
    assert ("does NOT beat the baseline" in output) != beaten


def test_variant_comparison_over_seeds(searched):
    command, output = searched
    tested = repeats(command)
    assert set(tested) == {(v, s) for v in ("vanilla", "truncated", "padded") for s in (0, 1)}
    client, runs = command.runs("rnn")
    parent = next(r for r in runs if r.data.tags["role"] == "parent")
    names = {a.path for a in client.list_artifacts(parent.info.run_id, "comparison")}
    assert names == {
        f"comparison/{n}" for n in ("comparison.md", "comparison.csv", "learning_curves.png", "errors.png")
    }
    for variant in ("vanilla", "truncated", "padded"):
        mean = (tested[variant, 0]["test"]["mse"] + tested[variant, 1]["test"]["mse"]) / 2
        assert parent.data.metrics[f"comparison/{variant}/test"] == pytest.approx(mean)
        assert f"| {variant} | {figure(mean)} |" in output
    assert "Over 2 seeds, variant " in output
    assert Counter(r.data.tags["role"] for r in runs) == {"parent": 1, "trial": 6, "repeat": 6, "final": 1}
    assert_logged_once(command, "rnn", "r")


def test_predict_sequence_from_file(searched):
    command, _ = searched
    table = command.folder / "sequence.csv"
    pd.DataFrame([[0.1 * k] * 10 for k in range(5)], columns=[f"x{i}" for i in range(10)]).to_csv(table, index=False)
    (row,) = json.loads(command.call("predict", "rnn", str(table), "--format", "json"))
    assert row["input"] == str(table)
    assert isinstance(row["prediction"], float)
    pd.DataFrame([[0.0] * 3]).to_csv(table, index=False)
    assert "expected (length, 10)" in command.call("predict", "rnn", str(table), code=2)


@pytest.mark.nightly
def test_comparison_killed_and_resumed(command, searched):
    command.kill_when(
        "r", lambda events: any(e["event"] == "repeat_finished" for e in events), *SMALL, "--concurrency", "1"
    )
    command.run("resume", "r")
    assert set(repeats(command)) == set(repeats(searched[0]))
    finished = [(e["value"], e["seed"]) for e in command.events("r") if e["event"] == "repeat_finished"]
    assert len(finished) == len(set(finished)), "what was done is not done again"
    assert sum(e["event"] == "compared" for e in command.events("r")) == 1
    assert_logged_once(command, "rnn", "r")


@pytest.mark.nightly
def test_rnn_champion_served_and_reported(searched):
    command, _ = searched
    assert_served_and_reported(command, "rnn", "r", "Learning curves", "Over 2 seeds, variant", "errors", "Importance")
