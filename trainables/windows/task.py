"""Classifies photographs of windows, or any other pictures, by class."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.nn import functional as F

from trainables import (
    Allowed,
    DataInfo,
    Device,
    Finding,
    InputError,
    Learner,
    Objective,
    Params,
    Progress,
    Splits,
    check_params,
    fit_batches,
    make_optimizer,
    make_schedule,
)  # fmt: skip
from trainables.base import plots
from trainables.base.batches import Rows, read_only, shuffled_rows
from trainables.base.classifiers import balanced_weights, predictions, write_reports
from trainables.base.errors import first_line
from trainables.base.exported import load_weights, read_about, write_model
from trainables.base.files import files_below, read_whole
from trainables.base.finetuning import ALL, Rates, trains_head
from trainables.base.optimizers import ALLOWED as OPTIMIZED
from trainables.base.splitting import SPLITS
from trainables.base.survey import classes_found
from trainables.base.task import Choices
from trainables.base.values import BELOW_ONE, COUNT, SHARE, Numbers
from trainables.windows import data as reading
from trainables.windows import features, heads, look, portable
from trainables.windows.augment import augment, mixed
from trainables.windows.backbones import NONE, PACKAGED, FineTuned, Transformers, load_backbone, pretrained_config
from trainables.windows.baselines import baselines
from trainables.windows.data import ImageSplit
from trainables.windows.model import NORMS, build_model, resize
from trainables.windows.portable import Portable

#: The number of pictures of a batch of the evaluation; it bounds the memory.
EVAL_BATCH = 256
#: The number of most confident mistakes that are drawn, and of columns of the drawing.
MISTAKES, COLUMNS = 20, 5


@dataclass(frozen=True)
class LoadedModel:
    """An exported classifier; pictures are decoded to `decode_size` pixels."""

    model: Portable
    classes: tuple[str, ...]
    decode_size: int


#: The allowed values of the hyperparameters.
ALLOWED: Allowed = {
    **OPTIMIZED, "model.unfreeze": Numbers(whole=True, words=(ALL,)), "head_lr": Numbers(), "lr_decay": SHARE,
    "width": COUNT, "depth": COUNT, "norm": NORMS, "dropout": BELOW_ONE,
    "batch_size": COUNT, "image_size": COUNT, "augment": SHARE, "mix": SHARE, "label_smoothing": SHARE,
    "class_weights": ("none", "balanced"),
}  # fmt: skip


class WindowsTask:
    name = "windows"
    objective = Objective("accuracy", "max")
    allowed = ALLOWED
    onnx = True

    def prepare(self, data: dict[str, Any], source: Path | None, cache: Path, progress: Progress) -> Splits:
        return reading.prepare(data, source, cache, progress)

    def describe_source(self, data: dict[str, Any]) -> str:
        demo = data["demo"]
        return f"demo: {demo['train']} + {demo['test']} pictures drawn by code (--data FOLDER|ZIP for photographs)"

    def check(self, params: Params) -> None:
        name = params.get("model.backbone", PACKAGED)
        if name in (PACKAGED, NONE):
            return
        try:
            pretrained_config(name)
        except (OSError, ValueError) as error:
            reason = first_line(error)
            raise InputError(
                f"model.backbone: {name!r} cannot be loaded ({reason}); allowed are packaged (EfficientNet-Lite0), "
                "none (a small network that is trained from nothing), and a hub id or a folder of a transformers "
                "image-classification checkpoint"
            ) from error

    def leaks(self, splits: Splits) -> list[Finding]:
        return look.same_pictures(splits)

    def overview(self, splits: Splits) -> list[Finding]:
        return [classes_found(splits), look.some_pictures(splits)]

    def precompute(self, splits: Splits, choices: Choices, device: Device, cache: Path, progress: Progress) -> Splits:
        """Adds the features of frozen backbones, and on a processor what the frozen blocks make of the pictures."""
        opened = sorted({int(n) for n in choices["model.unfreeze"] or () if n != ALL})
        for name, size in itertools.product(choices["model.backbone"] or (), choices["image_size"] or ()):
            if name != NONE:
                splits = _with_features(splits, str(name), int(size), opened, device, cache, progress)
        return splits

    def build(self, params: Params, splits: Splits, epochs: int, device: Device) -> Learner:
        check_params(self.allowed, params)
        model = build_model(params, splits.info.classes).to(device.torch_device)
        decode_size = splits.train.images.shape[-1]
        if isinstance(model, FineTuned):
            optimizer = make_optimizer(model.groups(params["lr"], params["lr_decay"]), params)
            return Learner(model, optimizer, None, device, params, extra={"epochs": epochs, "decode_size": decode_size})
        # Weight decay of norms and biases would bias the network.
        decayed = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
        free = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
        optimizer = make_optimizer([{"params": decayed}, {"params": free, "weight_decay": 0.0}], params)
        schedule = make_schedule(optimizer, params["schedule"], epochs)
        return Learner(model, optimizer, schedule, device, params, extra={"decode_size": decode_size})

    def train_epoch(self, learner: Learner, split: ImageSplit) -> dict[str, float]:
        params, model = learner.params, learner.model
        classes, weights = int(split.labels.max()) + 1, None
        if params["class_weights"] == "balanced":
            weights = balanced_weights(split.labels, classes).to(learner.device.torch_device)
        if isinstance(model, FineTuned) and trains_head(learner):
            return heads.train_head(learner, model, split, weights)
        labels, batch_of, network = _inputs(learner, split)
        advance = Rates(learner, len(split)).advance if isinstance(model, FineTuned) else lambda samples: None

        def forward(index: Rows) -> tuple[torch.Tensor, int, dict[str, torch.Tensor]]:
            truth = labels[index.there]
            advance(len(truth))
            batch, target = batch_of(index), truth
            if share := params.get("mix"):
                batch, target = mixed(batch, F.one_hot(truth, classes).float(), share)
            logits = network(batch)
            loss = F.cross_entropy(logits, target, weight=weights, label_smoothing=params["label_smoothing"])
            return loss, len(truth), {"accuracy": (logits.argmax(1) == truth).sum().float()}

        return fit_batches(learner, shuffled_rows(len(split), params["batch_size"], labels.device), forward)

    def evaluate(self, learner: Learner, split: ImageSplit) -> dict[str, float]:
        log_p, labels = _log_probabilities(learner, split), torch.as_tensor(split.labels)
        return {
            "loss": F.nll_loss(log_p, labels).item(),
            "accuracy": (log_p.argmax(1) == labels).float().mean().item(),
        }

    def answer(self, learner: Learner, split: ImageSplit) -> Callable[[], object]:
        image = resize(torch.from_numpy(split.images[:1]), learner.params["image_size"], learner.device.torch_device)
        return lambda: learner.model(image.float() / 255)

    def units(self, learner: Learner, split: ImageSplit) -> np.ndarray:
        """(pictures, 2): for each picture 1 if it is classified correctly, else 0; and 1."""
        correct = _log_probabilities(learner, split).argmax(1).numpy() == split.labels
        return np.stack([correct, np.ones_like(correct)], 1).astype(np.float32)

    def objective_of(self, sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / sums[..., 1]

    def merge(self, splits: Splits) -> ImageSplit:
        train, val = splits.train, splits.val
        return ImageSplit(
            np.concatenate([train.images, val.images]),
            np.concatenate([train.labels, val.labels]),
            (*train.names, *val.names),
            {key: np.concatenate([train.features[key], val.features[key]], 1) for key in train.features},
            {key: np.concatenate([train.maps[key], val.maps[key]], 1) for key in train.maps},
        )

    def baselines(self, splits: Splits) -> dict[str, float]:
        return baselines(splits.train, splits.val, splits.test)

    def artifacts(self, learner: Learner, split: ImageSplit, info: DataInfo, folder: Path) -> None:
        probabilities = _log_probabilities(learner, split).exp().numpy()
        predicted = probabilities.argmax(1)
        write_reports({"file": split.names}, split.labels, probabilities, predicted, info.classes, folder)
        wrong = np.flatnonzero(predicted != split.labels)
        worst = wrong[np.argsort(-probabilities[wrong].max(1))][:MISTAKES]
        captions = [f"{info.classes[predicted[i]]}\nis {info.classes[split.labels[i]]}" for i in worst]
        if len(worst):
            figure = plots.picture_grid(split.images[worst], captions, COLUMNS, "Most confident mistakes")
            plots.save_figure(figure, folder / "mistakes.png")

    def export(self, learner: Learner, info: DataInfo, folder: Path) -> None:
        model, params = learner.model, dict(learner.params)
        if isinstance(model, FineTuned) and isinstance(model.backbone, Transformers):
            model.backbone.save(folder / "backbone", model.head, info.classes)
            params["model.backbone"] = "backbone"  # the export holds the checkpoint's configuration, not its address
        about = {"params": params, "classes": info.classes, "decode_size": learner.extra["decode_size"]}
        write_model(folder, about, model)
        loaded = self.load(folder)  # on the CPU
        portable.write(loaded.model, loaded.classes, loaded.decode_size, folder)

    def load(self, folder: Path) -> LoadedModel:
        about = read_about(folder)
        params, classes = about["params"], tuple(about["classes"])
        if params["model.backbone"] == "backbone":
            params["model.backbone"] = str(folder / "backbone")
        model = build_model(params, classes, weights=False)
        load_weights(model, folder / "weights.pt")
        whole = Portable(model, params["image_size"])
        return LoadedModel(whole.eval().requires_grad_(False), classes, about["decode_size"])

    def inputs(self, arguments: Sequence[str]) -> pd.DataFrame:
        """A frame with a column `image`, the bytes of picture files, indexed by path; folders are searched."""
        paths: list[Path] = []
        for argument in arguments:
            path = Path(argument)
            if path.is_dir():
                paths += [p for p in files_below(path) if p.suffix.lower() in reading.SUFFIXES]
            elif path.is_file():
                paths.append(path)
            else:
                raise InputError(f"{argument}: no such file or folder")
        if not paths:
            raise InputError(f"{', '.join(arguments)}: no JPEG, PNG or WebP image there")
        return pd.DataFrame({"image": [read_whole(p) for p in paths]}, index=[str(p) for p in paths])

    @torch.no_grad()
    def predict(self, model: LoadedModel, frame: pd.DataFrame) -> pd.DataFrame:
        """A frame with a column `image` of file contents -> `class`, `probability` and a column for each class."""
        contents = list(frame["image"])
        images = reading.decode_all(
            [str(i) for i in frame.index], [partial(bytes, c) for c in contents], model.decode_size,
            lambda *_: None, "input",
        )  # fmt: skip
        probabilities = torch.cat([model.model(chunk) for chunk in torch.from_numpy(images).split(EVAL_BATCH)]).numpy()
        return predictions(probabilities, probabilities.argmax(1), model.classes, frame.index)

    def example(self, split: ImageSplit, info: DataInfo) -> pd.DataFrame:
        return pd.DataFrame({"image": [_png(image) for image in split.images[:2]]})


def _with_features(
    splits: Splits, name: str, size: int, opened: Sequence[int], device: Device, cache: Path, progress: Progress
) -> Splits:
    """Adds the features of one backbone, and the maps of train and validation for each number of opened blocks.

    Raises:
        InputError: the backbone has fewer blocks than the search opens.
    """
    backbone = load_backbone(name)
    if (most := max(opened, default=0)) > len(backbone.blocks):
        raise InputError(f"space.model.unfreeze: {most}: {name} has {len(backbone.blocks)} blocks")
    parts: dict[str, ImageSplit] = {split: getattr(splits, split) for split in SPLITS}
    done, total = 0, features.VIEWS * sum(map(len, parts.values()))

    def report(count: int) -> None:
        nonlocal done
        done += count
        progress(done // features.VIEWS, total // features.VIEWS, f"computing features of {size} pixels with {name}")

    frozen = features.Frozen(backbone, size, device.torch_device, cache)
    cuts = [len(backbone.blocks) - count for count in opened if count]
    kept = len(parts["train"]) + len(parts["val"])
    if not backbone.in_parts or device.torch_device.type != "cpu":
        cuts = []
    cuts = [blocks for blocks in cuts if frozen.bytes_of_maps(kept, blocks) <= features.MOST_BYTES]
    for split, part in parts.items():
        rows, maps = frozen.computed(part.images, [] if split == "test" else cuts, report)
        parts[split] = replace(
            part, features={**part.features, (name, size): rows},
            maps={**part.maps, **{(name, size, blocks): of_cut for blocks, of_cut in maps.items()}},
        )  # fmt: skip
    return Splits(parts["train"], parts["val"], parts["test"], splits.info)


def _maps_of(learner: Learner, model: FineTuned, split: ImageSplit) -> np.ndarray | None:
    """What the frozen blocks of the model make of the pictures; None if the search did not compute it.

    Without `augment` the only view is the picture itself; otherwise the second is its mirror image.
    """
    if model.frozen is None or learner.device.torch_device.type != "cpu":
        return None
    params = learner.params
    maps = split.maps.get((params["model.backbone"], params["image_size"], model.frozen))
    return None if maps is None else maps[: model.views]


def _inputs(
    learner: Learner, split: ImageSplit
) -> tuple[torch.Tensor, Callable[[Rows], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]:
    """For an epoch of training: the labels; a function that gives a batch; and the network that reads it.

    A batch has augmented pictures. If the search computed what the frozen blocks make of the pictures, it has this
    instead, of each picture or of its mirror image at random, and the network is what follows these blocks.
    """
    params, model = learner.params, learner.model
    if isinstance(model, FineTuned) and (maps := _maps_of(learner, model, split)) is not None:
        rows, views = read_only(maps), torch.randint(len(maps), (len(split),))

        def seen(index: Rows) -> torch.Tensor:
            return rows[views[index.there], index.there].float().permute(0, 3, 1, 2)

        return read_only(split.labels), seen, lambda batch: model.classify_maps([batch])
    images, labels = _on_device(learner, split)
    return labels, lambda index: augment(images[index.there].float() / 255, params["augment"]), model


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def _on_device(learner: Learner, split: ImageSplit) -> tuple[torch.Tensor, torch.Tensor]:
    """The pictures of a split at the trial's image size, and the labels, on its device; copied once for each trial."""
    device = learner.device.torch_device

    def moved() -> tuple[torch.Tensor, torch.Tensor]:
        pixels, labels = read_only(np.asarray(split.images)), read_only(split.labels)
        return resize(pixels, learner.params["image_size"], device), labels.to(device)

    return learner.resident(split, moved)


def _log_probabilities(learner: Learner, split: ImageSplit) -> torch.Tensor:
    """(n, classes) float32 on the CPU, of the model in evaluation mode."""
    return learner.output(split, lambda: _computed_log_probabilities(learner, split))


@torch.no_grad()
def _computed_log_probabilities(learner: Learner, split: ImageSplit) -> torch.Tensor:
    model = learner.model.eval()
    if isinstance(model, FineTuned) and trains_head(learner):
        rows, _ = heads.features_of(learner, model, split)
        return model.classify(rows.mean(0)).log_softmax(1).cpu()
    if isinstance(model, FineTuned) and (maps := _maps_of(learner, model, split)) is not None:
        chunks = read_only(maps).permute(0, 1, 4, 2, 3).split(EVAL_BATCH, dim=1)
        return torch.cat([model.classify_maps(list(chunk.float())) for chunk in chunks]).log_softmax(1)
    images, _ = _on_device(learner, split)
    with learner.device.autocast():
        logits = torch.cat([model(chunk.float() / 255).float() for chunk in images.split(EVAL_BATCH)])
    return logits.log_softmax(1).cpu()


TASK = WindowsTask()
