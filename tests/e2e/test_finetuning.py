"""A search of a pretrained language model from the command line."""

import json

import pytest

from tests.trainables.wikitext.test_pretrained import LINES, save

SHORT = (
    "--trials", "3", "--epochs", "2", "--set", "search.grace_period=2", "--set", "data.batch=2", "--set", "data.bptt=8",
    "--set", "batch_size=4", "--set", "bptt=8", "--set", "parts=1", "--set", "search.concurrency=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("gpt2", tmp_path_factory.mktemp("model"))


def written(folder):
    (folder / "text").mkdir(exist_ok=True)
    for split, lines in LINES.items():
        (folder / "text" / f"{split}.txt").write_text("\n".join(lines * 2))
    return str(folder / "text")


def results(command, name):
    measured = ("epoch_seconds", "samples_per_second", "peak_memory_mib")
    return [
        (e["number"], e["epoch"], {key: value for key, value in e["metrics"].items() if key not in measured})
        for e in command.events(name)
        if e["event"] == "result"
    ]


def test_search_of_a_pretrained_model(here, model):
    data = written(here.folder)
    output = here.call(
        "run", "wikitext", "--name", "w", "--data", data, "--set", f"model.pretrained={model}",
        "--set", "model.lora={choice: [0, 2]}", *SHORT,
    )  # fmt: skip
    assert "3 blocks" in output and "baselines (test_perplexity): 2-gram " in output
    trials = [e["params"] for e in here.events("w") if e["event"] == "trial"]
    assert {t["model.pretrained"] for t in trials} == {model}
    assert all((t["model.unfreeze"] is None) == bool(t["model.lora"]) and t["embedding"] is None for t in trials)
    (row,) = json.loads(here.call("predict", "wikitext", "The cat sat", "--format", "json"))
    assert row["perplexity"] > 1 and row["continuation"]
    final = [e for e in here.events("w") if e["event"] == "final_result"]
    assert all(len(e["samples"]) == 3 for e in final)
    config = json.loads((here.folder / "mlruns/searches/w/search.json").read_text())["config"]
    assert list(config["data"]["pretrained"]) == [model]
    refused = here.call("run", "wikitext", "--set", "model.pretrained=./none", code=2)
    assert "model.pretrained: './none' cannot be loaded" in refused
    refused = here.call(
        "run", "wikitext", "--set", f"model.pretrained={model}", "--set", "layers=2", "--dry-run", code=2
    )
    assert "layers: 2: means nothing with model.pretrained" in refused


@pytest.mark.slow
def test_killed_search_resumes_to_the_same_bits(command, model):
    data = written(command.folder)
    run = ("run", "wikitext", "--data", data, "--set", f"model.pretrained={model}", *SHORT, "--no-retrain")
    command.run(*run, "--name", "whole")
    begun = ("--name", "killed")
    command.kill_when("killed", lambda events: any(e["event"] == "result" for e in events), *run, *begun)
    command.run("resume", "killed")
    assert results(command, "killed") == results(command, "whole")
