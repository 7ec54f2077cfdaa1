"""Features of pictures from a frozen backbone. A search computes them once, and trains heads on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from trainables import array_digest
from trainables.base.batches import read_only
from trainables.base.storage import cached_array
from trainables.windows.backbones import Backbone
from trainables.windows.model import resize

#: The number of pictures that a backbone sees at a time; it bounds the memory.
CHUNK = 32
#: The views of a picture: as it is, and mirrored.
VIEWS = 2


def of_pictures(
    backbone: Backbone, images: np.ndarray, image_size: int, device: torch.device, report: Callable[[int], None]
) -> np.ndarray:
    """The features of pictures and of their mirror images.

    Args:
        images: uint8 (n, 3, size, size).
        report: called with the number of pictures that are done.

    Returns:
        float16 (`VIEWS`, n, width).
    """
    backbone = backbone.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    features = np.empty((VIEWS, len(images), backbone.width), dtype=np.float16)

    @torch.no_grad()
    def compute(begin: int) -> int:
        rows = slice(begin, begin + CHUNK)
        pixels = resize(read_only(np.ascontiguousarray(images[rows])), image_size, device).float() / 255
        for view, seen in enumerate((pixels, pixels.flip(3))):
            features[view, rows] = backbone(seen).half().cpu().numpy()
        return len(pixels)

    done = 0
    with _side_by_side(device) as apply:
        for count in apply(compute, range(0, len(images), CHUNK)):
            done += count
            report(done)
    return features


@contextmanager
def _side_by_side(device: torch.device) -> Iterator[Callable[[Callable[[int], int], range], Iterator[int]]]:
    """A `map` that works on several chunks at once on a CPU, each with one thread.

    Threads that share an operation wait for each other after each of its parts.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu":
        yield map
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)


def cached(
    backbone: Backbone, images: np.ndarray, image_size: int, device: torch.device, cache: Path,
    report: Callable[[int], None],
) -> np.ndarray:  # fmt: skip
    """`of_pictures`, kept in a file by the pictures, the weights and the size."""
    weights = array_digest([value.numpy() for value in backbone.cpu().state_dict().values()])
    key = array_digest([images, f"{weights} {image_size}".encode()])
    file = cache / f"features-{key}.npy"
    return cached_array(file, lambda: of_pictures(backbone, images, image_size, device, report))
