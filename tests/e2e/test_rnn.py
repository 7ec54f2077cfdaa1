"""The rnn search from the command line: fair shares, baselines, a prediction."""

import json
from collections import Counter

import pandas as pd


def test_each_variant_gets_its_share_and_baselines_stand_beside_the_result(command):
    output = command.run(
        "run", "rnn", "--name", "r", "--trials", "6", "--epochs", "2", "--set", "search.grace_period=2",
        "--set", "resources.dashboard=false",
        "--set", "data.demo.train=300", "--set", "data.demo.test=100", "--set", "data.demo.longest=12",
    )  # fmt: skip
    variants = Counter(e["params"]["variant"] for e in command.events("r") if e["event"] == "trial")
    assert variants == {"vanilla": 2, "truncated": 2, "padded": 2}
    assert "the best possible test MSE is 0.0900" in output
    assert "baselines (test mse): constant " in output
    _, runs = command.runs("rnn")
    final = next(r for r in runs if r.data.tags["role"] == "final")
    figures = {k: final.data.metrics[f"baseline_{k}_test_mse"] for k in ("constant", "ridge")}
    beaten = final.data.metrics["test_mse"] < min(figures.values())
    assert ("does NOT beat the baseline" in output) != beaten

    table = command.folder / "sequence.csv"
    pd.DataFrame([[0.1 * k] * 10 for k in range(5)], columns=[f"x{i}" for i in range(10)]).to_csv(table, index=False)
    (row,) = json.loads(command.run("predict", "rnn", str(table), "--json"))
    assert row["input"] == str(table)
    assert isinstance(row["prediction"], float)
    pd.DataFrame([[0.0] * 3]).to_csv(table, index=False)
    assert "expected (length, 10)" in command.run("predict", "rnn", str(table), code=2)
