"""Fused trials: each its own run, curve and outcome, as if it had trained alone."""

import os

import pytest

from tests.conftest import CODE, ROOT, Command
from tests.outcomes import assert_logged_once, results

#: Four trials of one shape, differing in learning rate, weight decay, initialisation and seed.
FOUR = (
    "run", "rnn", "--name", "s", "--searcher", "random", "--trials", "4", "--epochs", "4", "--concurrency", "1",
    "--set", "resources.dashboard=false", "--set", "variant=vanilla", "--set", "hidden=8", "--set", "layers=1",
    "--set", "activation=tanh", "--set", "optimizer=adam", "--set", "batch_size=16", "--set", "search.grace_period=1",
    "--set", "search.reduction_factor=3",
    "--set", "data.demo.train=200", "--set", "data.demo.test=50", "--set", "data.demo.longest=12",
)  # fmt: skip
FUSED = (*FOUR, "--set", "search.fuse=4")


def curves(command: Command) -> dict:
    return {(e["number"], e["epoch"]): e["metrics"]["val_mse"] for e in results(command.events("s"))}


def outcomes(command: Command) -> dict:
    return {e["number"]: e["outcome"] for e in results(command.events("s")) if e["outcome"]}


@pytest.fixture(scope="module")
def fused(module_command):
    module_command.call(*FUSED, "--no-retrain")
    return module_command


def test_fused_curves_equal_single_curves(command, fused):
    command.call(*FOUR, "--scheduler", "none", "--no-retrain")
    alone, together = curves(command), curves(fused)
    assert len(alone) == 16
    assert {number for number, _ in together} == {0, 1, 2, 3}
    for point, value in together.items():
        assert value == pytest.approx(alone[point], rel=1e-3), point


def test_fused_members_stopped_early(fused):
    # At a rung all four stand beside each other: of 4, 2 go on from epoch 1 and 1 from epoch 3.
    ended = outcomes(fused)
    assert sorted(ended.values()) == ["completed", "stopped_early", "stopped_early", "stopped_early"]
    together = {(e["epoch"], e["metrics"]["fused_with"]) for e in results(fused.events("s")) if e["epoch"] <= 3}
    assert together == {(1, 4.0), (2, 2.0), (3, 2.0)}
    _, runs = fused.runs("rnn")
    logged = {int(r.data.tags["trial"]): r.data.tags["outcome"] for r in runs if r.data.tags["role"] == "trial"}
    assert logged == ended
    assert_logged_once(fused, "rnn", "s")


def test_fused_search_killed_and_resumed(command, fused):
    command.kill_when("s", lambda events: len(results(events)) >= 5, *FUSED, "--no-retrain")
    command.run("resume", "s")
    assert outcomes(command) == outcomes(fused)
    assert curves(command) == pytest.approx(curves(fused), rel=1e-3)
    assert_logged_once(command, "rnn", "s")


FRAIL = """
from trainables.rnn.task import RnnTask


class FrailTask(RnnTask):
    name = "frail"

    def build(self, params, splits, epochs, device):
        if params["init"] == "xavier":
            raise ValueError("init xavier: no network is made of it")
        return super().build(params, splits, epochs, device)


TASK = FrailTask()
"""


@pytest.mark.slow
def test_fused_group_with_a_failing_trial(command):
    (command.folder / "frail.py").write_text(FRAIL)
    (command.folder / "frail.yaml").write_text((ROOT / "configs" / "rnn.yaml").read_text())
    env = {"SEARCH_TASKS": "frail=frail:TASK", "PYTHONPATH": os.pathsep.join([CODE, str(command.folder)])}
    arguments = ["run", "frail", *FUSED[2:], "--set", "init={choice: [uniform, xavier]}", "--no-retrain"]
    output = command.run(*arguments, "--set", "search.max_failures=0", **env)
    params = {e["number"]: e["params"] for e in command.events("s") if e["event"] == "trial"}
    failed = {e["number"] for e in command.events("s") if e["event"] == "failed"}
    assert failed == {number for number, p in params.items() if p["init"] == "xavier"}
    assert 1 <= len(failed) <= 3
    assert set(outcomes(command)) == set(range(4)) - failed
    assert "trials 0, 1, 2, 3 failed together; each goes on alone: " in output
    assert "init xavier: no network is made of it" in output


def test_fuse_refused_by_task(command):
    output = command.call("run", "toy", "--set", "search.fuse=4", code=2)
    assert "search.fuse: 4: toy trains its trials one by one; allowed is 1" in output
