"""The window classifiers: a small residual network, or a pretrained backbone with a new head."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from trainables.base.dropout import Dropout
from trainables.base.task import Params
from trainables.windows.backbones import NONE, FineTuned, Normalise, load_backbone

NORMS = ("batch", "group")


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


def build_model(params: Params, classes: tuple[str, ...], weights: bool = True) -> nn.Module:
    """The model of a configuration. Without `weights` a backbone gets random weights, to be loaded later."""
    name = params["model.backbone"]
    if name == NONE:
        net: nn.Module = ResidualNet(len(classes), params["width"], params["depth"], params["dropout"], params["norm"])
    else:
        backbone = load_backbone(name, weights)
        mirror = params["augment"] > 0
        net = FineTuned(backbone, len(classes), params["dropout"], params["model.unfreeze"], mirror)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
