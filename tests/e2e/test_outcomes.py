"""Trials that diverge or raise are recorded as that and hold nothing else up."""

from collections import Counter


def test_search_with_diverging_and_raising_trials(here):
    output = here.call(
        "run", "toy", "--name", "faulty", "--epochs", "3",
        "--set", "index={int: [0, 9]}", "--set", "data.fault=some", "--set", "search.max_failures=1",
    )  # fmt: skip
    expected = {}
    for index in range(10):
        expected[index] = "diverged" if index % 3 == 2 else "failed" if index % 5 == 4 else "completed"

    client, runs = here.runs("toy")
    trials = {int(r.data.tags["trial"]): r for r in runs if r.data.tags["role"] == "trial"}
    assert {n: r.data.tags["outcome"] for n, r in trials.items()} == expected
    assert len(trials) == sum(1 for r in runs if r.data.tags["role"] == "trial")

    for number, run in trials.items():
        history = client.get_metric_history(run.info.run_id, "val_score")
        if expected[number] == "completed":
            assert [m.step for m in history] == [1, 2, 3]
            assert run.info.status == "FINISHED"
        else:
            assert [m.step for m in history] == [1]
        if expected[number] == "diverged":
            assert run.data.tags["diverged"].startswith("epoch 2: ")
        if expected[number] == "failed":
            assert run.info.status == "FAILED"
            names = [a.path for a in client.list_artifacts(run.info.run_id)]
            assert "traceback.txt" in names
            retries = [e for e in here.events("faulty") if e["event"] == "retry" and e["number"] == number]
            assert len(retries) == 1

    counts = Counter(expected.values())
    assert f"{counts['completed']} completed, {counts['diverged']} diverged, {counts['failed']} failed" in output
    parent = next(r for r in runs if r.data.tags["role"] == "parent")
    assert parent.info.status == "FINISHED"
    assert expected[int(parent.data.metrics["best_trial"])] == "completed"
    assert not [r for r in runs if r.info.status == "RUNNING"]


def test_search_without_a_successful_trial_exits_1(here):
    output = here.call(
        "run", "toy", "--name", "hopeless", "--set", "index={choice: [2, 4]}", "--set", "data.fault=always",
        "--set", "search.max_failures=0", "--epochs", "3", code=1,
    )  # fmt: skip
    assert "2 failed" in output
    assert "no trial succeeded" in output
