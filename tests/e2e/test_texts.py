"""The text searches from the command line: a grid of tweets, the lyrics' comparison, and what they leave behind."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer, DistilBertForSequenceClassification

from tests.conftest import Command
from tests.outcomes import assert_logged_once, outcome_of, results
from tests.serving import assert_served_and_reported
from tests.trainables.text import families
from trainables import get_task

TINY = ("--epochs", "2", "--set", "search.grace_period=2", "--set", "data.encoder=auto")


@pytest.fixture(scope="module")
def tweets(module_command):
    output = module_command.run(
        "run", "tweets", "--name", "t", *TINY, "--set", "data.demo.size=600", "--set", "lr=0.001",
        "--set", "weighting={choice: [balanced, focal]}", "--set", "model.tfidf=false", "--set", "model.pooling=cls",
        "--set", "dropout=0.1", HF_HUB_OFFLINE="1", HF_HOME=str(module_command.folder / "hub"),
    )  # fmt: skip
    return module_command, output


def champion(command, task: str) -> tuple[str, Path]:
    uri = f"sqlite:///{command.folder / 'mlruns' / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    uri = f"models:/{task}@champion"
    return uri, Path(mlflow.artifacts.download_artifacts(uri))


def test_packaged_encoder_without_network(tweets):
    command, output = tweets
    assert "encoder: packaged MiniLM, as neither the local cache nor the hub has distilbert-base-uncased" in output
    _, runs = command.runs("tweets")
    assert {r.data.tags["data.encoder"] for r in runs} == {"packaged"}
    description = json.loads((command.folder / "mlruns" / "searches" / "t" / "search.json").read_text())
    assert description["config"]["data"]["encoder"] == "packaged"


def test_tweets_grid_and_baseline(tweets):
    command, output = tweets
    assert {e["params"]["weighting"] for e in command.events("t") if e["event"] == "trial"} == {"balanced", "focal"}
    assert "baselines (test_macro_f1): tfidf 0." in output
    samples = next((command.folder / "mlruns/searches/t/final").glob("*-seed-0/artifacts/samples.txt")).read_text()
    assert samples.count(" was predicted to be class ") == 10
    assert output.count(" was predicted to be class ") == 2 and "and 8 more in" in output
    final = next(e for e in command.events("t") if e["event"] == "final_started")
    best = [e for e in command.events("t") if e["event"] == "result" and e["number"] == final["trial"]]
    tuned = next(e["metrics"]["val_threshold"] for e in best if e["epoch"] == final["epochs"])
    assert final["params"]["threshold"] == tuned, "the threshold was chosen on validation, not on test"


def test_registered_model_equals_trained_model(tweets):
    command, _ = tweets
    final = command.folder / "mlruns/searches/t/final"
    own = pd.read_csv(next(final.glob("*-seed-0/artifacts/predictions.csv"))).head(100)
    uri, folder = champion(command, "tweets")
    served = mlflow.pyfunc.load_model(uri).predict(own[["text"]])
    assert len(served) == 100
    assert served["class"].tolist() == own["predicted"].tolist()
    assert np.allclose(served["probability"], own["probability"], atol=1e-5)
    exported = next(folder.rglob("net.pt")).parent
    tokenizer = AutoTokenizer.from_pretrained(exported)
    model = DistilBertForSequenceClassification.from_pretrained(exported).eval()
    inputs = tokenizer(list(own["text"]), truncation=True, max_length=64, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(inputs["input_ids"], inputs["attention_mask"]).logits
    assert np.allclose(logits.softmax(1)[:, 0], served[model.config.id2label[0]], atol=1e-5)


def test_predict_texts_and_files(tweets):
    command, _ = tweets
    file = command.folder / "in.txt"
    file.write_text("started chemo today\ngreat match\n")
    rows = json.loads(command.call("predict", "tweets", "my arm is broken", str(file), "--format", "json"))
    assert [row["input"] for row in rows] == ["my arm is broken", f"{file}:1", f"{file}:2"]
    assert all(row["class"] in ("medical", "other") for row in rows)


@pytest.mark.nightly
def test_lyrics_weighting_comparison(command):
    data = command.folder / "songs"
    data.mkdir()
    for singer, words in (("Ana", "river moon"), ("Bo", "money car"), ("Cleo", "crown dance")):
        first, second = words.split()
        text = "".join(
            f"{n} times the {first if n % 3 else second} is mine\n" for n in range(60 if singer == "Ana" else 30)
        )
        (data / f"{singer}.txt").write_text(text)
    output = command.run(
        "run", "lyrics", "--name", "l", "--data", str(data), "--trials", "2", *TINY, "--set", "search.compare_seeds=2",
        "--set", "search.balance=weighting", "--set", "data.encoder=packaged", "--set", "batch_size=16",
    )  # fmt: skip
    assert "| weighting | val_accuracy/Ana | val_accuracy/Bo | val_accuracy/Cleo |" in output
    samples = next((command.folder / "mlruns/searches/t/final").glob("*-seed-0/artifacts/samples.txt")).read_text()
    assert samples.count(" was predicted to be class ") == 10
    assert output.count(" was predicted to be class ") == 2 and "and 8 more in" in output
    final = next((command.folder / "mlruns/searches/l/final").glob("*-seed-0"))
    task, started = get_task("lyrics"), next(e for e in command.events("l") if e["event"] == "final_started")
    model = task.load(final / "model")
    before = task.predict(model, pd.DataFrame({"text": ["the river is mine"]}))
    model.model.load_state_dict(torch.load(final / "checkpoint.pt", weights_only=True)["model"])
    assert task.predict(model, pd.DataFrame({"text": ["the river is mine"]})).equals(before)
    assert torch.load(final / "checkpoint.pt", weights_only=True)["epoch"] == started["epochs"]
    assert_served_and_reported(
        command, "lyrics", "l", "Learning curves", "confusion matrix", "was predicted to be class", "val_accuracy/Ana"
    )


@pytest.mark.slow
def test_tweets_champion_served_and_reported(tweets):
    command, _ = tweets
    assert_served_and_reported(
        command, "tweets", "t", "Learning curves", "confusion matrix", "was predicted to be class", "weighting"
    )


@pytest.mark.nightly  # each change runs the same test of pictures (test_finetuning.py)
def test_fine_tuning_killed_in_a_trial_and_in_the_final_training_and_resumed(command, tmp_path):
    """The defaults for own texts: the whole encoder trains, and the learning rate changes with each step."""
    encoder = families.save("bert", tmp_path / "encoder")
    texts = tmp_path / "texts.csv"
    labels = ["first" if text.lower() < "m" else "second" for text in families.TEXTS]
    pd.DataFrame({"text": families.TEXTS, "label": labels}).to_csv(texts, index=False)
    search = (
        "run", "tweets", "--name", "s", "--data", str(texts), "--trials", "3", "--epochs", "3", "--concurrency", "1",
        "--set", f"data.encoder={encoder}", "--set", "data.max_length=24", "--set", "resources.dashboard=false",
    )  # fmt: skip
    whole = Command(tmp_path / "whole", command.env, command.empty_store)
    whole.folder.mkdir()
    whole.run(*search)
    trials = [e["params"] for e in whole.events("s") if e["event"] == "trial"]
    assert {(t["model.unfreeze"], t["schedule"]) for t in trials} == {("all", "one_cycle")}

    command.kill_when("s", lambda events: len(results(events)) >= 2, *search)
    command.kill_when("s", lambda events: any(e["event"] == "final_result" for e in events), "resume", "s")
    command.run("resume", "s")
    assert outcome_of(command, "s") == outcome_of(whole, "s")
    assert_logged_once(command, "tweets", "s")
