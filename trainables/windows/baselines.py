"""A simple method that a network has to beat; fitted in seconds with every search."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from trainables.windows.data import ImageSplit
from trainables.windows.model import resize

#: Pixels of a side that gradients are taken at, and of a cell; orientations of a cell; values of a colour.
SIZE, CELL, ORIENTATIONS, VALUES = 64, 8, 9, 16
#: Pictures that the machine is fitted to, at most: its time grows with their square.
FITTED = 5000
#: Pictures that are described at a time.
CHUNK = 256


def baselines(train: ImageSplit, val: ImageSplit, test: ImageSplit) -> dict[str, float]:
    """Test accuracy of a support vector machine on histograms of oriented gradients and of colours, fitted to train and
    validation together, as the final model is."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    # They are drawn before the two are put together: all pictures once more may not fit into memory.
    count = len(train) + len(val)
    drawn = np.sort(np.random.default_rng(0).choice(count, min(count, FITTED), replace=False))
    parts = train.take(drawn[drawn < len(train)]), val.take(drawn[drawn >= len(train)] - len(train))
    labels = np.concatenate([part.labels for part in parts])
    if len(np.unique(labels)) < 2:
        return {}
    described = _described(np.concatenate([part.images for part in parts]))
    machine = make_pipeline(StandardScaler(), SVC(C=10.0)).fit(described, labels)
    return {"hog": float(np.mean(machine.predict(_described(test.images)) == test.labels))}


def _described(images: np.ndarray) -> np.ndarray:
    """(n, features) of pictures (n, 3, size, size)."""
    chunks = torch.from_numpy(np.ascontiguousarray(images)).split(CHUNK)
    return np.concatenate([np.hstack([_gradients(one), _colours(one)]) for one in (resize(c, SIZE) for c in chunks)])


def _gradients(images: torch.Tensor) -> np.ndarray:
    """(n, blocks x 4 x ORIENTATIONS): histograms of oriented gradients (Dalal and Triggs 2005), each pixel's of the
    colour that changes most, in overlapping blocks of two by two cells, each of length 1."""
    pixels = images.float() / 255
    across, down = torch.zeros_like(pixels), torch.zeros_like(pixels)
    across[..., 1:-1] = pixels[..., 2:] - pixels[..., :-2]
    down[..., 1:-1, :] = pixels[..., 2:, :] - pixels[..., :-2, :]
    strength, colour = (across**2 + down**2).sqrt().max(1)
    across, down = (gradient.gather(1, colour[:, None])[:, 0] for gradient in (across, down))
    # A gradient counts for the two orientations that it lies between, by how near it is; up is as good as down.
    place, half = torch.atan2(down, across) / torch.pi * ORIENTATIONS, ORIENTATIONS / 2
    apart = [((place - orientation + half) % ORIENTATIONS - half).abs() for orientation in range(ORIENTATIONS)]
    cells = torch.stack([F.avg_pool2d((1 - far).clamp_min(0) * strength, CELL) for far in apart], 1)
    blocks = F.unfold(cells, 2)  # (n, 4 x ORIENTATIONS, blocks)
    return F.normalize(blocks, dim=1).flatten(1).numpy()


def _colours(images: torch.Tensor) -> np.ndarray:
    """(n, 3 x VALUES): for each colour, the shares of pixels by value."""
    values = (images.flatten(2).long() * VALUES) // 256
    counts = torch.zeros(*values.shape[:2], VALUES)
    counts.scatter_add_(2, values, torch.ones_like(values, dtype=counts.dtype))
    return (counts / values.shape[2]).flatten(1).numpy()
