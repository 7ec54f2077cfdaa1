"""Augments whole batches of pictures on the device."""

from __future__ import annotations

from collections.abc import Callable

import torch


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
