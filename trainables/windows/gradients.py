"""Histograms of oriented gradients and of colours, for the baseline of a network that is trained from nothing.

No dependency computes histograms of oriented gradients; scikit-image would be another one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from trainables.windows.model import resized

#: The sides in pixels of a picture and of a cell; 8 pixels and 9 orientations are the choice of Dalal and Triggs 2005.
SIZE, CELL, ORIENTATIONS = 64, 8, 9
#: The number of bins of the histogram of a colour.
COLOUR_BINS = 16
FEATURES = (SIZE // CELL - 1) ** 2 * 4 * ORIENTATIONS + 3 * COLOUR_BINS
#: The number of pictures that are described at a time; it bounds the memory.
CHUNK = 256


def describe(pixels: torch.Tensor) -> torch.Tensor:
    """Pictures (n, 3, size, size), floats with whole values from 0 to 255 -> features (n, `FEATURES`)."""
    pixels = resized(pixels, SIZE)
    return torch.cat([_gradients(pixels), _colours(pixels)], 1)


@torch.no_grad()
def described(images: np.ndarray) -> np.ndarray:
    """Pictures uint8 (n, 3, size, size) -> features (n, `FEATURES`)."""
    chunks = torch.from_numpy(np.ascontiguousarray(images)).split(CHUNK)
    return torch.cat([describe(chunk.float()) for chunk in chunks]).numpy()


def _gradients(pixels: torch.Tensor) -> torch.Tensor:
    """Histograms of oriented gradients (Dalal and Triggs 2005), (n, blocks x 4 x ORIENTATIONS).

    The gradient of a pixel is that of the colour with the strongest gradient. Blocks of 2 x 2 cells overlap; the
    histograms of a block have the L2 norm 1.
    """
    pixels = pixels / 255
    across = F.pad(pixels[..., 2:] - pixels[..., :-2], (1, 1))
    down = F.pad(pixels[..., 2:, :] - pixels[..., :-2, :], (0, 0, 1, 1))
    strength, colour = (across**2 + down**2).sqrt().max(1)
    across, down = (gradient.gather(1, colour[:, None])[:, 0] for gradient in (across, down))
    # Opposite directions are one orientation. A gradient is divided between the two nearest orientations: at distance d
    # (in steps between orientations) an orientation gets the share 1 - d.
    angle, half = torch.atan2(down, across) / torch.pi * ORIENTATIONS, ORIENTATIONS / 2
    distances = [((angle - orientation + half) % ORIENTATIONS - half).abs() for orientation in range(ORIENTATIONS)]
    cells = torch.stack([F.avg_pool2d((1 - d).clamp_min(0) * strength, CELL) for d in distances], 1)
    blocks = F.unfold(cells, 2)  # (n, 4 x ORIENTATIONS, blocks)
    return F.normalize(blocks, dim=1).flatten(1)


def _colours(pixels: torch.Tensor) -> torch.Tensor:
    """The histogram of each colour, as shares of the pixels: (n, 3 x COLOUR_BINS)."""
    bins = (pixels.flatten(2) * COLOUR_BINS).long() // 256
    return F.one_hot(bins, COLOUR_BINS).float().mean(2).flatten(1)
