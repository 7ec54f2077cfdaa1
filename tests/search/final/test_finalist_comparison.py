import math

import numpy as np
import pytest
from scipy import stats

from search.final import finalist_comparison
from search.final.finalist_comparison import compare_finalists, estimate, holm, resample
from trainables.base.task import Objective

ACCURACY = Objective("accuracy", "max")


def classifiers(skills, rng, seeds=5, units=400, of_seed=0.01):
    """Classifiers of these skills: each seed a little better or worse, all tested on the same pictures, of which some
    are hard for everyone. Returns what `compare_finalists` takes."""
    hard = rng.normal(size=units)

    def right(skill):
        own = skill + of_seed * rng.normal()
        chance = 1 / (1 + np.exp(-(math.log(own / (1 - own)) + hard)))
        return np.stack([rng.random(units) < chance, np.ones(units)], 1)

    models = {number: [right(skill) for _ in range(seeds)] for number, skill in enumerate(skills)}
    flat = [one for group in models.values() for one in group]
    drawn = resample(flat, lambda sums: sums[..., 0] / sums[..., 1], draws=300).reshape(len(skills), seeds, -1)
    test = {number: np.array([one[:, 0].mean() for one in group]) for number, group in models.items()}
    return dict.fromkeys(test, 0.9), test, dict(zip(test, drawn, strict=True))


@pytest.mark.parametrize("count", [2, 4])
def test_equal_configurations_have_no_winner_in_ninety_of_a_hundred_cases(count):
    rng = np.random.default_rng(count)
    claimed = [compare_finalists(*classifiers([0.8] * count, rng), ACCURACY)["winner"] for _ in range(100)]
    assert sum(claimed) <= 10


def test_better_configuration_is_found():
    rng = np.random.default_rng(0)
    decisions = [compare_finalists(*classifiers([0.7, 0.85, 0.7], rng), ACCURACY) for _ in range(20)]
    assert [d["champion"] for d in decisions] == [1] * 20
    assert sum(d["winner"] for d in decisions) >= 18


def test_test_set_is_part_of_the_doubt():
    # Both seeds of each agree to the last digit: only the small test set says that the difference may be chance.
    test = {0: np.array([0.80, 0.80]), 1: np.array([0.81, 0.81])}
    rng = np.random.default_rng(0)
    resampled = {n: np.tile(value[:1, None] + 0.02 * rng.normal(size=200), (2, 1)) for n, value in test.items()}
    assert compare_finalists({0: 0.8, 1: 0.8}, test, None, ACCURACY)["winner"]
    assert not compare_finalists({0: 0.8, 1: 0.8}, test, resampled, ACCURACY)["winner"]


def test_interval_is_students():
    # By the book: mean 3, s = sqrt(2.5), t(0.975, 4) = 2.776.
    found = estimate(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert found.mean == 3
    assert found.low == pytest.approx(3 - 2.776 * math.sqrt(2.5 / 5), abs=1e-3)
    assert found.high == pytest.approx(3 + 2.776 * math.sqrt(2.5 / 5), abs=1e-3)
    assert math.isnan(estimate(np.array([1.0])).low)


@pytest.mark.parametrize("sampling", [0.0, 0.2])
def test_interval_covers_the_mean_in_nineteen_of_twenty(sampling):
    rng = np.random.default_rng(0)
    found = [
        estimate(rng.normal(size=5) + math.sqrt(sampling) * rng.normal(), sampling) for _ in range(2000)
    ]  # fmt: skip
    assert 0.935 < np.mean([one.low < 0 < one.high for one in found]) < 0.965


def test_resampled_sets_spread_as_theory_has_it():
    units = np.stack([np.arange(1000) % 4 == 0, np.ones(1000)], 1)
    (drawn,) = resample([units], lambda sums: sums[..., 0] / sums[..., 1])
    assert drawn.mean() == pytest.approx(0.25, abs=0.002)
    assert drawn.std() == pytest.approx(math.sqrt(0.25 * 0.75 / 1000), rel=0.05)


def test_holm_by_hand():
    # Sorted .01, .02, .04 times 3, 2, 1, never falling; 1 at most.
    assert holm({7: 0.02, 8: 0.01, 9: 0.04}) == {7: pytest.approx(0.04), 8: pytest.approx(0.03), 9: pytest.approx(0.04)}
    assert holm({1: 0.7, 2: 0.9}) == {1: 1.0, 2: 1.0}


def test_words_say_what_is_noise_and_what_is_not():
    rows = [
        {"trial": 3, "val": 0.92, "test": 0.9, "low": 0.88, "high": 0.92},
        {"trial": 1, "val": 0.92, "test": 0.89, "low": 0.87, "high": 0.91, "p": 0.4},
        {"trial": 2, "val": 0.92, "test": 0.7, "low": 0.68, "high": 0.72, "p": 0.001},
    ]
    decision = {"champion": 3, "winner": False, "resampled": True, "seeds": 5, "finalists": rows}
    said = finalist_comparison.finalists_paragraph(decision, ACCURACY)
    assert "difference to 1 is within noise" in said
    assert "better than 2" in said
    assert "looked 0.09 better on average" in said
    assert finalist_comparison.finalists_grid(decision, "accuracy").rows[1] == [
        "1",
        "0.9200",
        "0.8900",
        "0.8700 to 0.9100",
        "0.400",
    ]


def test_estimate_equals_scipy():
    values = np.array([0.01, 0.03, -0.01, 0.04, 0.0])
    found, expected = estimate(values), stats.ttest_1samp(values, 0)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, expected.pvalue), rel=1e-12)
    # Welch's test beside a sample so large that its variance is known: the variance of the test set.
    many = 10**12
    welch = stats.ttest_ind_from_stats(
        values.mean(), values.std(ddof=1), 5, 0.0, math.sqrt(1e-4 * many), many, equal_var=False
    )
    assert estimate(values, 1e-4).p == pytest.approx(welch.pvalue, rel=1e-9)
