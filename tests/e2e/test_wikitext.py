"""The language model's search from the command line."""

import json

import pytest

from tests.serving import assert_served_and_reported

TINY = (
    "--trials", "3", "--epochs", "2", "--set", "search.grace_period=2", "--set", "data.corpus=demo",
    "--set", "embedding=24", "--set", "heads=2", "--set", "hidden=16", "--set", "layers=1", "--set", "optimizer=sgd",
    "--set", "dropout=0.1",
    "--set", "sgd_lr={choice: [1.0, 1.0e+30]}", "--searcher", "grid",
)  # fmt: skip


@pytest.fixture(scope="module")
def searched(module_here):
    return module_here, module_here.call("run", "wikitext", "--name", "w", *TINY)


def test_samples_of_each_epoch(searched):
    command, output = searched
    final = [e for e in command.events("w") if e["event"] == "final_result"]
    assert all(len(e["samples"]) == 3 for e in final)
    for event in final:
        for sentence in event["samples"]:
            assert f"  epoch {event['epoch']}: {sentence}" in output
    written = (
        next((command.folder / "mlruns/searches/w/final").glob("*-seed-0/artifacts/samples.txt"))
        .read_text()
        .splitlines()
    )
    assert written == final[-1]["samples"]
    end = output.partition("test_perplexity")[2]
    assert all(sentence in end for sentence in written[:2]) and "and 1 more in" in end
    assert "<unk>" not in "".join(written)
    client, runs = command.runs("wikitext")
    run = next(r for r in runs if r.data.tags["role"] == "final")
    names = {a.path for a in client.list_artifacts(run.info.run_id, "samples")}
    assert names == {f"samples/epoch-{e['epoch']:04d}.txt" for e in final}


def test_diverged_trial_and_baseline(searched):
    command, output = searched
    outcomes = {}
    for event in command.events("w"):
        if event["event"] == "trial":
            outcomes[event["number"]] = event["params"]["sgd_lr"]
    ended = {e["number"]: e["outcome"] for e in command.events("w") if e["event"] == "result" and e["outcome"]}
    assert {outcomes[n]: outcome for n, outcome in ended.items()} == {1.0: "completed", 1e30: "diverged"}
    assert "baselines (test_perplexity): 2-gram " in output
    assert "the searched model does NOT beat the baseline '5-gram'" in output
    assert "note: train as (" in output
    assert output.count("note: sample ") == 2


def test_predict_continues_prompt(searched):
    command, _ = searched
    (row,) = json.loads(command.call("predict", "wikitext", "the name of the", "--format", "json"))
    assert 10 <= len(row["continuation"].split()) <= 25
    assert row["perplexity"] > 1


@pytest.mark.nightly
def test_wikitext_champion_served_and_reported(searched):
    command, _ = searched
    assert_served_and_reported(
        command, "wikitext", "w", "Learning curves", "What the final model says", "sgd_lr", "1 diverged"
    )
