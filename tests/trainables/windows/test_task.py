import copy
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.trainables.conftest import assert_is_timed, assert_units_add_up
from trainables.base import onnx_file
from trainables.base.device import choose_device
from trainables.base.task import DataInfo, Splits
from trainables.base.training import run_epoch, seed_everything
from trainables.windows import demo
from trainables.windows.augment import mixed
from trainables.windows.data import ImageSplit
from trainables.windows.gradients import ORIENTATIONS, _gradients
from trainables.windows.model import ResidualNet
from trainables.windows.task import TASK

PARAMS = {
    "model.backbone": "none", "model.unfreeze": 0, "width": 8, "depth": 2, "norm": "batch", "dropout": 0.1,
    "optimizer": "adamw", "lr": 3e-3, "momentum": None, "weight_decay": 0.01, "schedule": "cosine", "batch_size": 16,
    "image_size": 24, "augment": 0.3, "label_smoothing": 0.1, "class_weights": "balanced",
}  # fmt: skip


@pytest.fixture(scope="module")
def splits() -> Splits:
    labels = np.arange(120) % 5
    images = demo.draw_all(labels, 32, 0, lambda *_: None)
    parts = []
    for part in (slice(0, 60), slice(60, 90), slice(90, 120)):
        names = tuple(f"{i}.png" for i in range(120))[part]
        parts.append(ImageSplit(images[part], labels[part].astype(np.int64), names))
    info = DataInfo("test", "f", "t", {"train": 60, "val": 30, "test": 30}, demo.CLASSES)
    return Splits(*parts, info)


def learner(splits, **changes):
    seed_everything(0)
    return TASK.build({**PARAMS, **changes}, splits, 4, choose_device(1, 0, "auto"))


@pytest.mark.parametrize(
    "changes",
    [{}, {"norm": "group", "width": 12, "optimizer": "sgd", "momentum": 0.9}, {"depth": 4, "augment": 0.0},
     {"class_weights": "none", "schedule": "constant", "optimizer": "adam"},
     {"mix": 1.0, "schedule": "warmup_cosine"}],
)  # fmt: skip
def test_an_epoch_gives_finite_metrics_of_every_kind(splits, changes):
    metrics = run_epoch(TASK, learner(splits, **changes), splits.train, splits.val)
    assert set(metrics) == {
        "train_loss", "train_accuracy", "val_loss", "val_accuracy", "epoch_seconds", "samples_per_second",
        "peak_memory_mib", "learning_rate", "gradient_norm", "dead_relu_fraction", "parameters",
    }  # fmt: skip
    assert all(np.isfinite(v) for v in metrics.values())
    assert 0 <= metrics["train_accuracy"] <= 1


def test_state_saved_after_an_epoch_continues_to_the_last_bit(splits):
    whole = learner(splits)
    run_epoch(TASK, whole, splits.train, splits.val)
    saved = copy.deepcopy(whole.state_dict())
    after = run_epoch(TASK, whole, splits.train, splits.val)
    resumed = learner(splits)
    torch.rand(100)  # whatever drew random numbers in between
    resumed.load_state_dict(saved)
    again = run_epoch(TASK, resumed, splits.train, splits.val)
    for key in ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "gradient_norm", "learning_rate"):
        assert again[key] == after[key]


def test_pictures_add_up_to_the_objective(splits):
    trained = learner(splits)
    run_epoch(TASK, trained, splits.train, None)
    assert_units_add_up(TASK, trained, splits.test)


def test_exported_model_predicts_what_evaluation_saw(splits, tmp_path):
    trained = learner(splits)
    run_epoch(TASK, trained, splits.train, None)
    accuracy = TASK.evaluate(trained, splits.test)["accuracy"]
    TASK.artifacts(trained, splits.test, splits.info, tmp_path)
    model = tmp_path / "model"
    model.mkdir()
    TASK.export(trained, splits.info, model)

    table = pd.read_csv(tmp_path / "predictions.csv")
    everything = TASK.example(ImageSplit(splits.test.images, splits.test.labels, splits.test.names), splits.info)
    predicted = TASK.predict(TASK.load(model), everything)
    assert list(predicted["class"]) == list(table["predicted"][: len(predicted)])
    assert (table["class"] == table["predicted"]).mean() == pytest.approx(accuracy)
    for name in ("confusion_matrix.csv", "confusion_matrix.png", "per_class.csv", "per_class.png", "mistakes.png"):
        assert (tmp_path / name).stat().st_size > 0
    matrix = pd.read_csv(tmp_path / "confusion_matrix.csv", index_col=0)
    assert np.trace(matrix.to_numpy()) / matrix.to_numpy().sum() == pytest.approx(accuracy)

    whole = TASK.load(model).model
    for images in (splits.test.images, splits.test.images[:1]):
        by_onnx = onnx_file.run(model / "model.onnx", {"images": images})
        assert by_onnx == pytest.approx(whole(torch.from_numpy(images)).numpy(), abs=1e-5)
    Image.fromarray(splits.test.images[3].transpose(1, 2, 0)).save(model / "photo.jpg", format="PNG")
    said = subprocess.run(
        [sys.executable, "-I", "usage_onnx.py"], check=True, cwd=model, capture_output=True, text=True
    )
    assert said.stdout.strip() == table["predicted"][3]


def test_without_the_extra_no_onnx_is_written(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "PACKAGES", ("onnx", "a_package_that_nobody_has"))
    trained = learner(splits)
    run_epoch(TASK, trained, splits.train, None)
    TASK.export(trained, splits.info, tmp_path)
    assert {"model.pt2", "usage.py"} <= {path.name for path in tmp_path.iterdir()}
    assert not list(tmp_path.glob("*onnx*"))


def test_network_halves_its_map_a_stage_and_takes_any_size():
    net = ResidualNet(3, 8, 4, 0.0, "group").eval()
    assert net(torch.rand(2, 3, 40, 40)).shape == (2, 3)
    assert [block.conv1.out_channels for block in net.blocks] == [8, 16, 32, 64]


@pytest.mark.parametrize("seed", range(6))
def test_mixed_labels_match_shares_of_pixels(seed):
    torch.manual_seed(seed)
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 10, 10).clone()
    truth = torch.eye(8)
    assert mixed(images, truth, 0.0) == (images, truth)
    after, shares = mixed(images, truth, 1.0)
    assert torch.allclose(shares.sum(1), torch.ones(8))
    for picture, share in zip(after, shares, strict=True):
        assert picture.mean().item() == pytest.approx((share * torch.arange(8.0)).sum().item(), abs=1e-4)


def stripes(across: bool, brightness: float = 1.0) -> torch.Tensor:
    wave = (torch.arange(64) % 8 < 4).float() * 200 * brightness
    one = wave.expand(64, 64) if across else wave[:, None].expand(64, 64)
    return one.expand(1, 3, 64, 64)


def test_gradients_direction_not_brightness():
    lying, standing = (_gradients(stripes(across)).view(ORIENTATIONS, -1).sum(1) for across in (True, False))
    assert lying.argmax() == 0, "changes from left to right"
    assert set(standing.argsort()[-2:].tolist()) == {ORIENTATIONS // 2, ORIENTATIONS // 2 + 1}, (
        "a right angle is between two"
    )
    torch.testing.assert_close(_gradients(stripes(True, 0.5)), _gradients(stripes(True)), atol=1e-5, rtol=0)


def test_baseline_is_far_from_chance_and_needs_no_second_class(splits):
    assert TASK.baselines(splits)["hog"] > 0.4, "one in five by chance"
    one = Splits(
        *(part.take(np.flatnonzero(part.labels == 0)) for part in (splits.train, splits.val, splits.test)), splits.info
    )
    assert TASK.baselines(one) == {}


def test_latency_of_a_picture(splits):
    assert_is_timed(TASK, learner(splits), splits.val)
