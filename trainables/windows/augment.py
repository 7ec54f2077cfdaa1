"""Augments batches of pictures on their device, without waiting for it.

torchvision cannot be imported beside a CPU build of torch. kornia takes 70 ms for 64 pictures of 96 pixels, and on a
GPU each of its transforms waits for the device.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

#: The largest changes at strength 1: the rotation in degrees; shift and scale as shares of the side; the change of
#: brightness, contrast and saturation as a share; the range of the erased share of the area.
TURN, SHIFT, SCALE, COLOUR, ERASED = 20.0, 0.15, 0.3, 0.4, (0.02, 0.15)
#: The probabilities of an affine map, of a change of colours, and (at strength 1) of an erased rectangle.
MOVED, COLOURED, HOLED = 0.8, 0.8, 0.5


def augment(images: torch.Tensor, strength: float) -> torch.Tensor:
    """Flips, moves and recolours pictures in [0, 1], (batch, 3, size, size), and sets a rectangle to 0.

    Draws from the global generator of the pictures' device.

    Args:
        strength: 0: no change; 1: rotations up to 20 degrees, shifts up to 15 %, scales up to 30 %.
    """
    if strength == 0:
        return images
    return _erased(_coloured(_moved(images, strength), strength), strength)


def _moved(images: torch.Tensor, strength: float) -> torch.Tensor:
    """Mirrors half of the pictures and applies an affine map to most; the border is continued by reflection."""
    count, device = len(images), images.device
    mirror, moved = (torch.rand(count, device=device) < p for p in (0.5, MOVED))
    angle, zoom, *shift = _uniform(images, 4) * moved
    angle, zoom = angle * math.radians(TURN * strength), 1 + zoom * SCALE * strength
    sign = torch.where(mirror, -1.0, 1.0)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    x, y = (2 * SHIFT * strength * s for s in shift)  # coordinates run from -1 to 1
    maps = torch.stack([torch.stack([cos * sign, -sin, x], 1), torch.stack([sin * sign, cos, y], 1)], 1)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _coloured(images: torch.Tensor, strength: float) -> torch.Tensor:
    """Changes brightness, contrast and saturation of most pictures."""
    coloured = torch.rand(len(images), device=images.device) < COLOURED
    factors = 1 + _uniform(images, 3) * coloured * (COLOUR * strength)
    bright, contrast, saturation = factors.view(3, -1, 1, 1, 1)
    images = images * bright
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + contrast * (images - mean)
    grey = images.mean(1, keepdim=True)
    return torch.lerp(grey, images, saturation).clamp(0, 1)


def _erased(images: torch.Tensor, strength: float) -> torch.Tensor:
    """Erases a rectangle of some pictures; its sides have a ratio from 1:2 to 2:1 (Zhong et al. 2017,
    arXiv:1708.04896)."""
    size, device = images.shape[-1], images.device
    holed = torch.rand(len(images), device=device) < HOLED * strength
    area, shape, *positions = torch.rand(4, len(images), device=device)
    side = (ERASED[0] + (ERASED[1] - ERASED[0]) * area).sqrt() * holed
    stretch = torch.exp2(shape - 0.5)
    inside = []
    for extent, position in zip((side * stretch, side / stretch), positions, strict=True):
        begin = (position * (1 - extent))[:, None]
        pixel = (torch.arange(size, device=device) + 0.5) / size
        inside.append((pixel >= begin) & (pixel < begin + extent[:, None]))
    return images.masked_fill((inside[0][:, :, None] & inside[1][:, None, :]).unsqueeze(1), 0.0)


def _uniform(images: torch.Tensor, count: int) -> torch.Tensor:
    """(count, batch) numbers from -1 to 1."""
    return torch.rand(count, len(images), device=images.device) * 2 - 1


def mixed(images: torch.Tensor, truth: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """With probability `share` mixes each picture with another of the batch; draws from the global generators.

    Half of the time by mixup, a weighted mean of two pictures (Zhang et al. 2018, arXiv:1710.09412); else by CutMix, a
    square of one picture inside the other (Yun et al. 2019, arXiv:1905.04899).

    Args:
        images: (batch, 3, size, size).
        truth: probabilities of the classes, (batch, classes); they are mixed in the same proportion.
    """
    # Numbers that decide on shapes are drawn on the CPU, which then does not wait for the device.
    if not share or torch.rand(()).item() >= share:
        return images, truth
    other = torch.randperm(len(images), device=images.device)
    own_share, size = torch.rand(()).item(), images.shape[-1]
    if torch.rand(()).item() < 0.5:
        images = own_share * images + (1 - own_share) * images[other]
    else:
        side = round(size * math.sqrt(1 - own_share))
        top, left = (int(torch.randint(size - side + 1, ())) for _ in range(2))
        inside = F.pad(images.new_ones(side, side), (left, size - side - left, top, size - side - top)).bool()
        images, own_share = torch.where(inside, images[other], images), 1 - (side / size) ** 2
    return images, own_share * truth + (1 - own_share) * truth[other]
