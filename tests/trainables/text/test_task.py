"""The text tasks' network, training, decisions and exported models, on the packaged encoder."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from transformers import DistilBertForSequenceClassification

from search.core.config import load_config
from tests.trainables.conftest import assert_is_timed, assert_units_add_up
from trainables.base import training
from trainables.base.batches import rows_on, shuffled_batches
from trainables.base.device import Device
from trainables.base.errors import InputError
from trainables.base.task import Objective
from trainables.text import encoders
from trainables.text.batches import batch
from trainables.text.encoders import Frozen
from trainables.text.models import TextBatch, TokenHalving, classification_loss
from trainables.text.tfidf import Terms
from trainables.tweets.task import TASK

CPU = Device(torch.device("cpu"))
SMALL = ("data.demo.size=120", "data.encoder=packaged", "data.max_length=24")


def quiet(done, total, what):
    pass


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The demo tweets with features for every kind of network here."""
    sets = ("model.unfreeze={choice: [0, 2]}", "model.pooling={choice: [cls, mean]}")
    sets += ("model.head={choice: [classifier, tokens, cnn]}", "model.mask_padding={choice: [true, false]}")
    config = load_config("tweets", [*SMALL, *sets], {})
    cache = tmp_path_factory.mktemp("cache")
    splits = TASK.prepare(config.data, None, cache, quiet)
    return TASK.precompute(splits, config.space.choices(), CPU, cache, quiet)


def params(**changes):
    config = load_config("tweets", ["model.tfidf=false", "weighting=none", "lr=0.001", "dropout=0.1"], {})
    rates = {"model.filters": 4, "tfidf_lr": 0.01, "encoder_lr": 3e-5, "encoder_lr_decay": 0.8}
    settings = config.space.grid("")[0] | rates | changes
    if settings["model.lora"] == "earlier":
        del settings["model.lora"]
    return settings


def train(splits, settings, epochs=2, seed=0):
    training.seed_everything(seed)
    learner = TASK.build(settings, splits, epochs, CPU)
    return learner, [training.run_epoch(TASK, learner, splits.train, splits.val) for _ in range(epochs)]


NETWORKS = {
    "cls": {"model.pooling": "cls"},
    "mean": {"model.pooling": "mean"},
    "tfidf": {"model.tfidf": True},
    "tfidf of pieces": {"model.tfidf": True, "model.characters": True},
    "open blocks": {"model.unfreeze": 2},
    "open blocks, cls": {"model.unfreeze": 2, "model.pooling": "cls"},
    "open blocks of an earlier version": {"model.unfreeze": 2, "model.lora": "earlier"},
    "tokens": {"model.head": "tokens", "model.mask_padding": True},
    "tokens with padding": {"model.head": "tokens", "model.mask_padding": False},
    "tokens, open blocks": {"model.head": "tokens", "model.unfreeze": 2, "model.mask_padding": False},
    "cnn": {"model.head": "cnn"},
}


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_cached_features_train_as_frozen_encoder(prepared, pooling):
    settings = params(**{"model.pooling": pooling, "dropout": 0.3})
    _, cached = train(prepared, settings)

    encoder = prepared.train.encoder.model()

    class Through(nn.Module):
        """The encoder in evaluation mode inside of the network."""

        def __init__(self, head):
            super().__init__()
            self.head = head

        def forward(self, index):
            ids, mask = (torch.from_numpy(a) for a in prepared.train.ids.padded(index))
            with torch.no_grad():
                states = encoder(ids, mask).last_hidden_state
            weight = mask.unsqueeze(-1).float()
            return self.head(states[:, 0] if pooling == "cls" else (states * weight).sum(1) / weight.sum(1))

    training.seed_everything(0)
    learner = TASK.build(settings, prepared, 2, CPU)
    whole = Through(learner.model.head)
    labels = torch.from_numpy(prepared.train.labels)
    for epoch in range(2):
        losses, norms = 0.0, []
        whole.train()
        for index in shuffled_batches(len(labels), settings["batch_size"]):
            loss = nn.functional.cross_entropy(whole(index.numpy()), labels[index])
            learner.optimizer.zero_grad()
            loss.backward()
            norms.append(nn.utils.clip_grad_norm_(whole.head.parameters(), settings["clip_norm"]).item())
            learner.optimizer.step()
            losses += loss.item() * len(index)
        learner.schedule.step()
        assert cached[epoch]["train_loss"] == pytest.approx(losses / len(labels), rel=1e-4)
        assert cached[epoch]["gradient_norm"] == pytest.approx(np.mean(norms), rel=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_interrupted_training_goes_on_exactly(prepared, tmp_path, name):
    settings = params(**NETWORKS[name])
    _, (_, expected) = train(prepared, settings)
    training.seed_everything(0)
    first = TASK.build(settings, prepared, 2, CPU)
    training.run_epoch(TASK, first, prepared.train, prepared.val)
    training.save(first, tmp_path / "c.pt")
    training.seed_everything(99)
    second = TASK.build(settings, prepared, 2, CPU)
    training.load(second, tmp_path / "c.pt")
    resumed = training.run_epoch(TASK, second, prepared.train, prepared.val)
    for key in ("train_loss", "gradient_norm", "val_loss", "val_macro_f1", "val_threshold"):
        assert resumed[key] == expected[key], key


@pytest.mark.parametrize("name", NETWORKS)
def test_exported_model_says_what_the_trained_one_says(prepared, tmp_path, name):
    learner, metrics = train(prepared, params(**NETWORKS[name]), epochs=1)
    learner.params["threshold"] = metrics[0]["val_threshold"]
    TASK.artifacts(learner, prepared.test, prepared.info, tmp_path)
    TASK.export(learner, prepared.info, tmp_path)
    assert not (tmp_path / "usage.py").read_text().startswith("#"), "equal without this project"
    frame = TASK.example(prepared.test, prepared.info)
    loaded = TASK.predict(TASK.load(tmp_path), frame)
    own = pd.read_csv(tmp_path / "predictions.csv")
    assert len(loaded) == len(own) == 24
    assert loaded["class"].tolist() == own["predicted"].tolist()
    assert np.allclose(loaded["probability"], own["probability"], atol=1e-5)
    again = TASK.predict(TASK.load(tmp_path), frame.iloc[5:6])
    assert np.allclose(again["medical"], loaded["medical"].iloc[5:6], atol=1e-5), "alone as in company"


@pytest.mark.parametrize("name", ["cls", "open blocks, cls"])
def test_export_is_sequence_classifier(prepared, tmp_path, name):
    learner, _ = train(prepared, params(**NETWORKS[name]), epochs=1)
    TASK.export(learner, prepared.info, tmp_path)
    theirs = DistilBertForSequenceClassification.from_pretrained(tmp_path).eval()
    assert theirs.config.id2label == {0: "medical", 1: "other"}
    rows = np.arange(len(prepared.test))
    ids, mask = (torch.from_numpy(a) for a in prepared.test.ids.padded(rows))
    learner.model.eval()
    with torch.no_grad():
        ours = learner.model(batch(learner, prepared.test, rows_on(torch.device("cpu"), [rows])[0]))
        assert torch.allclose(theirs(ids, mask.long()).logits, ours, atol=1e-5)


def test_open_blocks_learn_each_at_its_rate_and_frozen_ones_stay(prepared):
    settings = params(**NETWORKS["open blocks"], encoder_lr=1e-4, encoder_lr_decay=0.5)
    before = prepared.train.encoder.model().transformer.layer
    learner, _ = train(prepared, settings, epochs=1)
    initial = [group["initial_lr"] for group in learner.optimizer.param_groups]
    assert initial == pytest.approx([0.001, 1e-4, 0.5e-4]), "head, last block, the one below"
    for old, new in zip(before[4:], learner.model.trained_blocks, strict=True):
        assert not torch.equal(old.ffn.lin1.weight, new.ffn.lin1.weight)
    assert Frozen(4, "tokens") in prepared.train.features
    for old, same in zip(before, prepared.train.encoder.model().transformer.layer, strict=True):
        assert torch.equal(old.ffn.lin1.weight, same.ffn.lin1.weight), "the shared weights are not written to"


def test_masked_padding_has_no_effect():
    torch.manual_seed(0)
    head, states = TokenHalving(16, 6, 3, 0.0), torch.randn(2, 4, 16)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    other = torch.where(mask.unsqueeze(-1), states, torch.full_like(states, 7.0))
    assert torch.equal(head(states, mask), head(other, mask))
    shapes = [tuple(layer[0].weight.shape) for layer in head.halving]
    assert shapes == [(8, 16), (4, 8), (2, 4), (1, 2)], "each layer halves the width"
    assert head.output.weight.shape == (3, 6 * 1)


def test_tfidf_weights_add_to_the_logits(prepared):
    learner, _ = train(prepared, params(**NETWORKS["tfidf"]), epochs=1)
    rows = np.arange(5)
    whole = batch(learner, prepared.val, rows_on(torch.device("cpu"), [rows])[0])
    learner.model.eval()
    difference = learner.model(whole) - learner.model(TextBatch(whole.states, None, None))
    dense = learner.extra["encoding"].terms.transform(prepared.val.texts[:5]).toarray()
    assert torch.allclose(difference, torch.from_numpy(dense) @ learner.model.terms, atol=1e-5)
    assert difference.abs().max() > 0


@pytest.mark.parametrize("characters", [False, True])
def test_precompute_tfidf_terms(tmp_path, monkeypatch, characters):
    config = load_config("tweets", [*SMALL, "model.tfidf=true", "model.characters={choice: [true, false]}"], {})
    plain = TASK.prepare(config.data, None, tmp_path, quiet)
    shared = TASK.precompute(plain, config.space.choices(), CPU, tmp_path, quiet)
    settings = params(**{"model.tfidf": True, "model.characters": characters})
    apart = replace(shared, train=replace(shared.train, counted={}), val=replace(shared.val, counted={}))
    _, expected = train(apart, settings)
    merged = TASK.merge(shared)
    learner, _ = train(replace(shared, train=merged, val=shared.val), settings, epochs=1)
    assert len(learner.extra["encoding"].terms) > len(shared.train.counted[characters][0]), "terms of both"

    monkeypatch.setattr(Terms, "transform", lambda *_: pytest.fail("counted again"))
    _, curve = train(pickle.loads(pickle.dumps(shared)), settings)
    assert [metrics["val_loss"] for metrics in curve] == [metrics["val_loss"] for metrics in expected]


def test_focal_loss_is_weighted_by_how_sure_the_network_is():
    logits, labels = torch.tensor([[2.0, 0.0], [0.5, 1.5]]), torch.tensor([0, 0])
    p = logits.softmax(1)[:, 0]
    expected = (-((1 - p) ** 2) * p.log()).mean()
    assert classification_loss(logits, labels, None, 2.0).item() == pytest.approx(expected.item())
    weights = torch.tensor([3.0, 1.0])
    labels = torch.tensor([0, 1])
    expected = nn.functional.cross_entropy(logits, labels, weights)
    assert classification_loss(logits, labels, weights, 0.0).item() == pytest.approx(expected.item())


def test_threshold_of_a_search_is_kept_when_given(prepared):
    learner, metrics = train(prepared, params(), epochs=1)
    chosen = metrics[0]["val_threshold"]
    assert TASK.evaluate(learner, prepared.val)["macro_f1"] == metrics[0]["val_macro_f1"]
    learner.params["threshold"] = 0.99 if chosen < 0.9 else 0.01
    assert TASK.evaluate(learner, prepared.val)["threshold"] == learner.params["threshold"]
    assert TASK.evaluate(learner, prepared.val)["macro_f1"] < metrics[0]["val_macro_f1"]


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy"])
def test_texts_add_up_to_the_objective(prepared, monkeypatch, metric):
    learner, curve = train(prepared, params(), epochs=1)
    learner.params["threshold"] = curve[0]["val_threshold"]
    monkeypatch.setattr(TASK, "objective", Objective(metric, "max"), raising=False)
    assert_units_add_up(TASK, learner, prepared.test)


def test_artifacts_hold_mistakes_samples_and_curves(prepared, tmp_path):
    learner, _ = train(prepared, params(), epochs=1)
    TASK.artifacts(learner, prepared.test, prepared.info, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "confusion_matrix.csv", "confusion_matrix.png", "per_class.csv", "per_class.png", "predictions.csv",
        "mistakes.csv", "samples.txt", "calibration.csv", "calibration.png", "precision_recall.csv",
        "precision_recall.png",
    }  # fmt: skip
    mistakes = pd.read_csv(tmp_path / "mistakes.csv")
    assert (mistakes["class"] != mistakes["predicted"]).all()
    assert mistakes["probability"].is_monotonic_decreasing
    samples = (tmp_path / "samples.txt").read_text().splitlines()
    assert len(samples) == 10
    assert " was predicted to be class " in samples[0]


def test_merged_split_is_train_then_validation(prepared):
    both = TASK.merge(prepared)
    assert len(both) == len(prepared.train) + len(prepared.val)
    for row in (0, len(prepared.train), len(both) - 1):
        part, at = (prepared.train, row) if row < len(prepared.train) else (prepared.val, row - len(prepared.train))
        assert both.texts[row] == part.texts[at]
        assert both.ids[row].tolist() == part.ids[at].tolist()
        assert np.array_equal(both.features[Frozen(6, "mean")][row], part.features[Frozen(6, "mean")][at])
    learner, _ = train(replace(prepared, train=both), params(**NETWORKS["tokens with padding"]), epochs=1)
    assert learner.epoch == 1


def test_precompute_refuses_space(prepared, tmp_path):
    space = load_config("tweets", ["model.unfreeze=7"], {"search.searcher": "tpe"}).space
    with pytest.raises(InputError, match=r"space.model.unfreeze: 7: the encoder has 6 blocks"):
        TASK.precompute(prepared, space.choices(), CPU, tmp_path, quiet)
    for sets, message in (
        ("model.unfreeze={uniform: [0, 2]}", r"uniform: expected a whole number >= 0, or all"),
        ("model.unfreeze=al", r"model.unfreeze=al: expected a whole number >= 0, or all"),
        ("model.unfreeze={choice: [0, -1, all]}", r"-1: expected a whole number >= 0, or all"),
        ("model.lora=-1", r"model.lora=-1: expected a whole number >= 0"),
        ("model.head={choice: [classifier, lstm]}", r"'lstm': allowed are classifier, tokens, cnn"),
    ):
        with pytest.raises(InputError, match=message):
            load_config("tweets", [sets], {"search.searcher": "tpe"})
    with pytest.raises(InputError, match=r"data.max_length: 1000: allowed are 3 to 512 tokens"):
        TASK.prepare(load_config("tweets", ["data.max_length=1000"], {}).data, None, tmp_path, quiet)


def test_inputs_are_texts_lines_and_columns(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo 🤒\n")
    pd.DataFrame({"id": [1, 2], "Tweet": ["three, four", "five"]}).to_csv(tmp_path / "b.csv", index=False)
    frame = TASK.inputs(["just a text", str(tmp_path / "a.txt"), str(tmp_path / "b.csv")])
    assert frame["text"].tolist() == ["just a text", "one", "two 🤒", "three, four", "five"]
    assert frame.index[2] == f"{tmp_path / 'a.txt'}:3"
    with pytest.raises(InputError, match=r"missing.csv: no such file"):
        TASK.inputs(["missing.csv"])
    (tmp_path / "latin.txt").write_bytes("ok\ncafé\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin.txt: line 2, byte 6: 0xe9"):
        TASK.inputs([str(tmp_path / "latin.txt")])


def test_encoder_that_was_taken_is_said_and_kept(prepared):
    assert prepared.info.chosen == {"encoder": "packaged"}
    assert "encoder: packaged" in prepared.info.notes
    assert json.dumps(prepared.info.chosen)


@pytest.mark.parametrize("network", NETWORKS)
def test_latency_of_a_text(prepared, network):
    learner = TASK.build(params(**NETWORKS[network]), prepared, 1, CPU)
    assert_is_timed(TASK, learner, prepared.val)


def test_latency_of_a_text_includes_its_frozen_encoder(prepared, monkeypatch):
    learner, encoded = TASK.build(params(**NETWORKS["mean"]), prepared, 1, CPU), []
    encode = encoders.encode
    monkeypatch.setattr(encoders, "encode", lambda *given: encoded.append(1) or encode(*given))
    answer = TASK.answer(learner, prepared.val)
    answer()
    answer()
    assert len(encoded) == 2
