"""Trials that break, hang or take too much: each is dealt with as its limit in the YAML says, and the rest goes on."""

import pytest

from tests.outcomes import assert_logged_once, outcome_of, results

pytestmark = pytest.mark.slow

TOY = ("run", "toy", "--name", "s", "--epochs", "3", "--no-retrain")


def test_out_of_memory_halves_micro_batch(command):
    output = command.call(*TOY, "--set", "data.fault=memory")
    assert output.count("is taken up again, in 2 parts a batch: torch.OutOfMemoryError") == 4
    assert "4 completed" in output
    _, runs = command.runs("toy")
    trials = [r for r in runs if r.data.tags["role"] == "trial"]
    assert {r.data.tags["micro_batches"] for r in trials} == {"2"}
    assert_logged_once(command, "toy", "s")


def run_with_one_that_hangs(command, limit: str) -> str:
    once = command.folder / "once"
    return command.run(
        *TOY, "--set", "data.fault=hang", "--set", f"data.once={once}", "--set", limit, "--concurrency", "2"
    )


def test_stall_timeout_retries_from_checkpoint(command):
    output = run_with_one_that_hangs(command, "search.stall_timeout=4s")
    assert "trial 1 ended no epoch within 4s (search.stall_timeout)" in output
    assert "4 completed" in output
    assert sorted((e["number"], e["epoch"]) for e in results(command.events("s"))) == [
        (number, epoch) for number in range(4) for epoch in (1, 2, 3)
    ]
    assert_logged_once(command, "toy", "s")


def test_trial_timeout_in_an_epoch(command):
    output = run_with_one_that_hangs(command, "search.trial_timeout=8s")
    assert "trial 1 is over its time" in output
    assert "3 completed, 1 out of time" in output
    _, runs = command.runs("toy")
    (run,) = [r for r in runs if r.data.tags.get("outcome") == "timed_out"]
    assert run.info.status == "FINISHED"
    assert_logged_once(command, "toy", "s")


def test_max_failed_in_a_row_stops_search(command):
    output = command.call(*TOY, "--set", "data.fault=raise", "--set", "search.max_failed_in_a_row=2", code=1)
    assert "2 trials failed in a row, the last one so:" in output
    assert "toy_faults.py" in output and "RuntimeError: the cause is not the configuration" in output
    assert len([e for e in command.events("s") if e["event"] == "trial"]) == 2


def test_unclean_worker_is_replaced(command):
    output = command.run(*TOY, "--set", "data.fault=thread")
    assert "trial 1 left behind: 1 threads" in output
    assert "4 completed" in output
    assert_logged_once(command, "toy", "s")


def test_epoch_budget_ends_search(command):
    output = command.call("run", "toy", "--name", "s", "--epochs", "3", "--set", "search.epoch_budget=5")
    assert "stopping (epoch budget)" in output
    assert "1 interrupted, 1 completed" in output
    assert "is the first champion" in output
    assert_logged_once(command, "toy", "s")


def test_final_training_killed_and_resumed(command, module_command):
    """It goes on from its last epoch."""
    arguments = ("run", "toy", "--name", "s", "--epochs", "6", "--set", "index={value: 0}", "--set", "data.pause=0.5")
    module_command.run(*arguments)
    command.kill_when("s", lambda es: len([e for e in es if e["event"] == "final_result"]) >= 3, *arguments)
    command.run("resume", "s")
    final = [e["time"] for e in command.events("s") if e["event"] == "final_result"]
    (resumed,) = [e["time"] for e in command.events("s") if e["event"] == "session"][1:]
    assert len([t for t in final if t > resumed]) <= 3, "its first epochs were not trained again"
    assert outcome_of(command, "s") == outcome_of(module_command, "s")
    assert_logged_once(command, "toy", "s")


def test_target_ends_search_and_a_resume_trains_no_more(command):
    output = command.call("run", "toy", "--name", "s", "--epochs", "3", "--target", "-1000")
    assert "stopping (target: trial 0 has val_score" in output and "at epoch 1; the target is -1000): running" in output
    assert "ended by its target: trial 0" in output and "is the first champion" in output
    assert [(e["number"], e["epoch"]) for e in results(command.events("s"))] == [(0, 1)]
    assert "search s is finished, ended by its target: trial 0" in command.call("resume", "s")
    assert len(results(command.events("s"))) == 1
    assert_logged_once(command, "toy", "s")


def test_cost_budget_ends_search(command):
    prices = ("--set", "resources.price_cpu_hour=1e9")
    output = command.call("run", "toy", "--name", "s", "--epochs", "3", "--cost-budget", "1", *prices)
    assert "stopping (cost budget: the trials cost" in output
    assert "and the final training will cost about" in output
    assert_logged_once(command, "toy", "s")


def test_cost_budget_without_a_price_is_refused(command):
    output = command.call("run", "toy", "--name", "s", "--cost-budget", "1", code=2)
    assert "--cost-budget 1.0: trials cost nothing without a price; give resources.price_cpu_hour" in output


def test_worth_ends_search_that_brings_nothing_any_more(command):
    space = ("--searcher", "random", "--set", "lr={loguniform: [0.001, 0.1]}", "--trials", "60", "--epochs", "1")
    output = command.call("run", "toy", "--name", "s", *space, "--worth", "1e9")
    assert "stopping (worth: one more hour: +" in output and "; worth is 1e+09): running" in output
    assert "ended by its worth: one more hour: +" in output
    (limit,) = [e for e in command.events("s") if e["event"] == "limit"]
    assert limit["why"] == "worth"
    assert 20 <= len(results(command.events("s"))) < 30
    assert "search s is finished, ended by its worth" in command.call("resume", "s")
    assert_logged_once(command, "toy", "s")
