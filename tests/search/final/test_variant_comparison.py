import numpy as np
import pandas as pd
import pytest

from search.core.state import Repeat
from search.final import variant_comparison as comparison
from trainables.base.task import Objective

MSE, F1 = Objective("mse", "min"), Objective("f1", "max")


def repeat(value, seed, test, val, train=None, metric="mse", parameters=10):
    train = train or [v / 2 for v in val]
    curve = {
        epoch: {f"val_{metric}": v, f"train_{metric}": t, "epoch_seconds": 0.5}
        for epoch, (v, t) in enumerate(zip(val, train, strict=True), 1)
    }
    best = (min if metric == "mse" else max)(curve, key=lambda epoch: curve[epoch][f"val_{metric}"])
    tested = None if test is None else {metric: test, "rmse": 2.0}
    return Repeat(value, seed, 0, {}, curve, best, parameters, tested)


def test_figures_by_hand():
    repeats = [
        repeat("b", 0, 4.0, [10.0, 4.1, 4.0, 8.0], [8.0, 3.0, 2.0, 1.0]),
        repeat("b", 1, 6.0, [10.0, 5.0, 4.0, 4.5], [8.0, 3.0, 2.0, 1.0]),
        repeat("a", 0, 1.0, [2.0, 1.0, 1.0, 1.0], parameters=20),
        repeat("a", 1, None, [2.0, 1.0, 1.0, 1.0]),
    ]
    frame = comparison.variant_figures(repeats, MSE)
    assert list(frame.index) == ["a", "b"], "the best first"
    b = frame.loc["b"]
    assert (b["test"], b["epochs_to_near"], b["seconds"], b["seeds"]) == (5.0, 2.5, 2.0, 2)
    assert (b["gap_at_best"], b["gap_at_end"]) == (2.0, (7.0 + 3.5) / 2)
    assert frame.loc["a", "seeds"] == 1, "a seed that diverged has no part in it"
    assert frame.loc["a", "test_rmse"] == 2.0


def test_where_more_is_better_gaps_and_order_turn():
    repeats = [repeat(v, s, t, [0.5, 0.9], [0.6, 1.0], "f1") for v, t in (("x", 0.8), ("y", 0.9)) for s in (0, 1)]
    frame = comparison.variant_figures(repeats, F1)
    assert list(frame.index) == ["y", "x"]
    assert frame.loc["x", "gap_at_best"] == pytest.approx(0.1), "validation is worse than training"
    assert frame.loc["x", "epochs_to_near"] == 2


def test_words_claim_a_difference_only_where_intervals_are_apart():
    def said(*values):
        repeats = [
            repeat(name, seed, test, [1.0, 0.5])
            for name, tests in zip("ab", values, strict=True)
            for seed, test in enumerate(tests)
        ]
        return comparison.variants_paragraph(comparison.variant_figures(repeats, MSE), "kind", MSE)

    clear, vague = said([1.0, 1.01, 1.02], [2.0, 2.01, 2.02]), said([1.0, 2.0, 3.0], [2.0, 2.5, 3.5])
    assert "kind a has the best test_mse: 1.01" in clear
    assert "the intervals do not touch" in clear
    assert "does not tell the two apart" in vague
    assert "do not touch" not in vague


def test_files_are_written_with_pictures(tmp_path):
    repeats = [repeat(v, s, 1.0 + s, [3.0, 2.0, 1.0]) for v in "ab" for s in (0, 1)]
    lengths = np.arange(50)
    errors = {(v, s): pd.DataFrame({"length": lengths, "squared error": lengths * 0.1}) for v in "ab" for s in (0, 1)}
    comparison.write_variant_comparison(tmp_path / "c", repeats, errors, "kind", MSE)
    assert {p.name for p in (tmp_path / "c").iterdir()} == {
        "comparison.csv", "comparison.md", "learning_curves.png", "errors.png",
    }  # fmt: skip
    assert "| a | 1.500 |" in (tmp_path / "c" / "comparison.md").read_text()
    assert len(pd.read_csv(tmp_path / "c" / "comparison.csv")) == 2


def test_nothing_is_written_where_every_seed_diverged(tmp_path):
    comparison.write_variant_comparison(tmp_path / "c", [repeat("a", 0, None, [1.0])], {}, "kind", MSE)
    assert not (tmp_path / "c").exists()
