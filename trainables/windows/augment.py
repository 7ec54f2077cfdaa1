"""Augments whole batches of pictures on the device."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F


def augmenter(strength: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that augments pictures in [0, 1], (batch, 3, size, size): flips, affine maps, colours, erasing.

    Args:
        strength: 0 leaves pictures as they are; 1 turns up to 20 degrees, shifts 15 %, scales 30 %.
    """
    if strength == 0:
        return lambda images: images
    import kornia.augmentation as K

    pipeline = K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomAffine(
            degrees=20 * strength,
            translate=(0.15 * strength, 0.15 * strength),
            scale=(1 - 0.3 * strength, 1 + 0.3 * strength),
            padding_mode="reflection",
            p=0.8,
        ),
        K.ColorJiggle(0.4 * strength, 0.4 * strength, 0.4 * strength, 0.0, p=0.8),
        K.RandomErasing(scale=(0.02, 0.15), ratio=(0.5, 2.0), p=0.5 * strength),
        data_keys=["input"],
    )
    return lambda images: pipeline(images)


def mixed(images: torch.Tensor, truth: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """With probability `share` mixes each picture with another of the batch; draws from torch's global generator.

    Half of the time the pictures are added (mixup, Zhang et al. 2018, arXiv:1710.09412), else a square of one is put
    into the other (CutMix, Yun et al. 2019, arXiv:1905.04899).

    Args:
        images: (batch, 3, size, size).
        truth: probabilities of the classes, (batch, classes); they are mixed in the same proportion.
    """
    if not share or torch.rand(()).item() >= share:
        return images, truth
    other = torch.randperm(len(images)).to(images.device)
    kept, size = torch.rand(()).item(), images.shape[-1]
    if torch.rand(()).item() < 0.5:
        images = kept * images + (1 - kept) * images[other]
    else:
        side = round(size * math.sqrt(1 - kept))
        top, left = (int(torch.randint(size - side + 1, ())) for _ in range(2))
        inside = F.pad(images.new_ones(side, side), (left, size - side - left, top, size - side - top)).bool()
        images, kept = torch.where(inside, images[other], images), 1 - (side / size) ** 2
    return images, kept * truth + (1 - kept) * truth[other]
