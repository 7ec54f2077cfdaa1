"""Pretrained networks for pictures: the packaged one, and every image classifier of transformers."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainables.base.dropout import Dropout
from trainables.base.finetuning import ALL
from trainables.windows import efficientnet

#: The value of `model.backbone` for the network of the package, and for a network without pretrained weights.
PACKAGED, NONE = "packaged", "none"
#: ImageNet's channel mean and standard deviation, the usual normalisation of photographs.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: The learning rate of the head, divided by that of the last opened block.
HEAD_FACTOR = 5.0


class Normalise(nn.Module):
    """Subtracts the mean of each channel and divides by its standard deviation."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


class Backbone(nn.Module):
    """Pictures in [0, 1], (n, 3, size, size) -> features (n, `width`).

    Attributes:
        blocks: the parts that can be opened for training, in the order in which data passes them.
        in_parts: whether `until` and `after` can compute the features in two parts.
    """

    blocks: list[nn.Module]
    width: int
    in_parts = False

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.normalise, self.network = Normalise(mean, std), network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(self.normalise(images))

    def until(self, images: torch.Tensor, blocks: int) -> torch.Tensor:
        """Pictures in [0, 1] -> the maps (n, channels, height, width) behind the first blocks."""
        raise NotImplementedError

    def after(self, maps: torch.Tensor, blocks: int) -> torch.Tensor:
        """The maps behind the first blocks -> features (n, `width`)."""
        raise NotImplementedError

    def fixed(self) -> list[nn.Parameter]:
        """The parameters that no training changes."""
        return []


class Packaged(Backbone):
    """EfficientNet-Lite0 with the weights of the package.

    Its depthwise kernels and their biases are fixed. PyTorch takes half of a training step for their gradient: of the
    last eight blocks 18 of 29 ms a picture on one core.
    """

    in_parts = True

    def __init__(self, weights: bool = True) -> None:
        network = efficientnet.load_packaged() if weights else efficientnet.EfficientNetLite0()
        super().__init__(network, efficientnet.MEAN, efficientnet.STD)
        self.blocks, self.width = list(network.blocks), efficientnet.WIDTH

    def until(self, images: torch.Tensor, blocks: int) -> torch.Tensor:
        return self.network.until(self.normalise(images), blocks)  # type: ignore[operator]

    def after(self, maps: torch.Tensor, blocks: int) -> torch.Tensor:
        return self.network.after(maps, blocks)  # type: ignore[operator]

    def fixed(self) -> list[nn.Parameter]:
        depthwise = [m for m in self.network.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
        return [p for module in depthwise for p in module.parameters()]


class Transformers(Backbone):
    """An image classifier of transformers, without its head: the features are the input of the last linear layer."""

    def __init__(self, name: str, weights: bool = True) -> None:
        """
        Args:
            name: a hub id or a folder.
            weights: whether to load the weights; otherwise they are random.
        """
        from transformers import AutoModelForImageClassification as Auto

        config, mean, std = pretrained_config(name)
        network: Any = Auto.from_pretrained(name, dtype=torch.float32) if weights else Auto.from_config(config)
        super().__init__(network, mean, std)
        self._head, linear = last_linear(network)
        self.width = linear.in_features
        network.set_submodule(self._head, nn.Identity())
        self.blocks = repeated_blocks(network)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(pixel_values=self.normalise(images)).logits

    def save(self, folder: Path, head: nn.Linear, classes: tuple[str, ...]) -> None:
        """Writes the whole classifier with `head` as a checkpoint of transformers."""
        network: Any = copy.deepcopy(self.network).cpu()
        network.set_submodule(self._head, copy.deepcopy(head).cpu())
        network.config.num_labels = len(classes)
        network.config.id2label = dict(enumerate(classes))
        network.config.label2id = {label: index for index, label in enumerate(classes)}
        network.save_pretrained(folder)
        mean, std = (value.flatten().tolist() for value in (self.normalise.mean, self.normalise.std))
        about = json.dumps({"image_mean": mean, "image_std": std})
        (folder / "preprocessor_config.json").write_text(about)


def last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    """The name and the module of the last linear layer, which maps features to classes.

    Raises:
        ValueError: the network has none.
    """
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError("its head is not a linear layer")
    return linear[-1]


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks or stages of a network: the members of the outermost list of modules with the most parameters."""
    lists = [m for m in network.modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m) > 1]
    if not lists:
        return []
    return list(max(lists, key=_parameters).children())  # the outermost of equal lists comes first


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


class FineTuned(nn.Module):
    """A backbone with a new linear head. The last blocks of the backbone are open: they train.

    In evaluation mode with `mirror`, the features of a picture are the mean of those of the picture and of its mirror
    image. Frozen features of TrashNet at 160 pixels: test accuracy 0.893 without and 0.900 with the mirror image.
    """

    def __init__(self, backbone: Backbone, classes: int, dropout: float, unfreeze: int | str, mirror: bool) -> None:
        """
        Args:
            unfreeze: the number of blocks to open, counted from the last, or `all`. Parts after the first opened block
                are open too.
        """
        super().__init__()
        self.backbone, self.mirror = backbone, mirror
        #: The number of the first blocks, which are frozen; None if the features cannot be computed in two parts.
        self.frozen = None if unfreeze == ALL or not backbone.in_parts else len(backbone.blocks) - int(unfreeze)
        self.dropout, self.head = Dropout(dropout), nn.Linear(backbone.width, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._freeze(unfreeze)

    def _freeze(self, unfreeze: int | str) -> None:
        backbone = self.backbone
        for parameter in backbone.fixed():
            parameter.requires_grad = False
        if unfreeze == ALL:
            return
        opened = backbone.blocks[len(backbone.blocks) - int(unfreeze) :] if unfreeze else []
        first = next((p for block in opened for p in block.parameters()), None)
        for parameter in backbone.parameters():
            if parameter is first:
                break
            parameter.requires_grad = False

    @property
    def views(self) -> int:
        """The number of views of a picture that it reads: without `mirror` the picture alone."""
        return 2 if self.mirror else 1

    def train(self, mode: bool = True) -> FineTuned:
        """Frozen parts stay in evaluation mode: their dropout and batch statistics do not change."""
        super().train(mode)
        for module in self.backbone.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()
        return self

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures in [0, 1] -> features (n, width)."""
        features = self.backbone(images)
        if self.training or not self.mirror:
            return features
        return (features + self.backbone(images.flip(3))) / 2

    def classify_maps(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps behind the frozen blocks -> logits (n, classes), of the mean of the features of several views."""
        assert self.frozen is not None
        return self.classify(torch.stack([self.backbone.after(view, self.frozen) for view in maps]).mean(0))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Features -> logits (n, classes)."""
        return self.head(self.dropout(features))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures in [0, 1], (n, 3, size, size) -> logits (n, classes)."""
        return self.classify(self.features(images))

    def groups(self, rate: float, decay: float) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer: the head, then the open blocks from the last to the first.

        Args:
            rate: the learning rate of the last open block; the head has `HEAD_FACTOR` times as much.
            decay: the factor of the learning rate from a block to the block before it.
        """
        depth = {
            id(p): len(self.backbone.blocks) - 1 - i
            for i, block in enumerate(self.backbone.blocks)
            for p in block.parameters()
        }
        rates, last = {rate * HEAD_FACTOR: list(self.head.parameters())}, 0
        for parameter in reversed([p for p in self.backbone.parameters() if p.requires_grad]):
            last = depth.get(id(parameter), last)  # a part between two blocks trains as the block after it
            rates.setdefault(rate * decay**last, []).append(parameter)
        groups = []
        for own, parameters in rates.items():
            # Weight decay of norms and biases would bias the network.
            decayed, free = [p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() <= 1]
            groups += [{"params": decayed, "lr": own}, {"params": free, "lr": own, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]


def pretrained_config(name: str) -> tuple[Any, tuple[float, ...], tuple[float, ...]]:
    """A checkpoint's configuration, and the mean and standard deviation of each channel.

    Raises:
        OSError, ValueError: there is no such checkpoint, or it is not one for image classification.
    """
    from transformers import AutoConfig
    from transformers.image_processing_base import ImageProcessingMixin
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    config = AutoConfig.from_pretrained(name)
    if type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise ValueError(f"{config.model_type} is no image classification model")
    try:
        processor, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:  # a checkpoint saved without its processor
        processor = {}
    mean, std = processor.get("image_mean", MEAN), processor.get("image_std", STD)
    return config, tuple(mean), tuple(std)


def load_backbone(name: str, weights: bool = True) -> Backbone:
    """The backbone of a name: `packaged`, a hub id or a folder."""
    return Packaged(weights) if name == PACKAGED else Transformers(name, weights)
