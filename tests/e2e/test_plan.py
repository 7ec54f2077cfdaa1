"""The forecast of a search, and what it then took."""

import re

import pytest

pytestmark = pytest.mark.slow

SEARCH = (
    "run", "toy", "--name", "s", "--searcher", "random", "--trials", "8", "--set", "index={value: 1}",
    "--set", "lr={loguniform: [0.001, 0.2]}", "--set", "data.pause=0.2", "--no-retrain",
)  # fmt: skip


def test_plan_starts_no_search(here):
    arguments = (*SEARCH, "--epochs", "6", "--scheduler", "asha", "--set", "search.reduction_factor=2")
    output = here.call(*arguments, "--plan")
    low, high = map(int, re.search(r"about \d+ epochs \((\d+) to (\d+)\)", output).groups())
    assert 8 <= low < high <= 48
    assert "on disk" in output and not (here.folder / "mlruns" / "searches").exists()
    output = here.call(*arguments)
    trained = sum(e["event"] == "result" for e in here.events("s"))
    assert re.search(rf"planned: \d+ epochs in [\d.]+ s; it took {trained} in [\d.]+ s", output)
    assert low <= trained <= high


@pytest.mark.nightly
def test_without_early_stopping_every_epoch_is_planned(here):
    output = here.call(*SEARCH, "--epochs", "5", "--plan")
    assert "8 trials train about 40 epochs (40 to 40)" in output
    seconds = float(re.search(r"in about ([\d.]+) s", output).group(1))
    assert seconds >= 40 * 0.2 / 2
    assert "planned" not in here.call(*SEARCH, "--epochs", "4"), "another search was planned"


def test_plan_of_what_always_fails_says_why(here):
    output = here.call(*SEARCH, "--plan", "--set", "data.fault=always", code=2)
    assert "--plan: no trial got through its first epoch" in output and "the cause is not the configuration" in output
