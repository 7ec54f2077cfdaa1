"""The window classifiers: a small residual network, or a pretrained transformers checkpoint."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from trainables.base.dropout import Dropout

NORMS = ("batch", "group")
#: ImageNet's channel mean and standard deviation, the usual normalisation of photographs.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resize(images: torch.Tensor, size: int, device: torch.device | None = None) -> torch.Tensor:
    """Copies uint8 pictures (n, 3, s, s) to a device and resizes them to (n, 3, size, size), antialiased.

    Args:
        device: None: the device of the pictures.
    """
    if images.shape[-1] == size:
        return images.to(device)
    chunks = images.split(256)  # bounds the memory
    return torch.cat([resized(chunk.to(device).float(), size).to(torch.uint8) for chunk in chunks])


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """Resizes pictures (n, 3, s, s), floats with whole values from 0 to 255, to (n, 3, size, size), antialiased."""
    pixels = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return pixels.round().clamp(0, 255)


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


def norm_layer(kind: str, channels: int) -> nn.Module:
    """Batch normalisation, or group normalisation with up to 8 groups; `kind` is one of `NORMS`."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(8, channels), channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, basic block)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = norm_layer(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = norm_layer(norm, outputs)
        # Average pooling before the 1x1 shortcut uses all pixels; a strided shortcut drops 3 of 4 (ResNet-D, He et al.
        # 2019).
        pool = [nn.AvgPool2d(stride, ceil_mode=True)] if stride > 1 else []
        shortcut = [*pool, nn.Conv2d(inputs, outputs, 1, bias=False), norm_layer(norm, outputs)]
        self.shortcut = nn.Sequential(*shortcut) if stride > 1 or inputs != outputs else nn.Identity()
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResidualNet(nn.Module):
    """A 3x3 stem with stride 2, then `depth` stages that each halve the map and double the width (up to 8x)."""

    def __init__(self, classes: int, width: int, depth: int, dropout: float, norm: str) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), norm_layer(norm, width), nn.ReLU())
        blocks, channels = [], width
        for stage in range(depth):
            wider = min(width * 2**stage, width * 8)
            blocks.append(ResidualBlock(channels, wider, 1 if stage == 0 else 2, norm))
            channels = wider
        self.blocks = nn.Sequential(*blocks)
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures in [0, 1], (batch, 3, size, size) -> logits (batch, classes)."""
        maps = self.blocks(self.stem(self.normalise(images)))
        return self.classifier(self.dropout(maps.mean(dim=(2, 3))))


class Pretrained(nn.Module):
    """A transformers image classifier with a new head; its backbone trains, or is frozen."""

    def __init__(self, backbone: Any, mean: tuple[float, ...], std: tuple[float, ...], frozen: bool) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.backbone = backbone
        if frozen:
            # The head is every module outside the base model; architectures give it different names.
            for parameter in backbone.base_model.parameters():
                parameter.requires_grad = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone(pixel_values=self.normalise(images)).logits


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


def build_model(params: dict[str, Any], classes: tuple[str, ...], weights: bool = True) -> nn.Module:
    """The model of a configuration. Without `weights` a pretrained model gets random weights, to be loaded later."""
    name = params["model.pretrained"]
    if name is None:
        return ResidualNet(len(classes), params["width"], params["depth"], params["dropout"], params["norm"]).to(
            memory_format=torch.channels_last
        )  # type: ignore[call-overload]
    from transformers import AutoModelForImageClassification as Auto

    config, mean, std = pretrained_config(name)
    config.num_labels = len(classes)
    config.id2label = dict(enumerate(classes))
    config.label2id = {label: index for index, label in enumerate(classes)}
    if weights:
        backbone = Auto.from_pretrained(name, config=config, ignore_mismatched_sizes=True, dtype=torch.float32)
    else:
        backbone = Auto.from_config(config)
    return Pretrained(backbone, mean, std, params["model.freeze"])
