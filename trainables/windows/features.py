"""What a frozen backbone, or its frozen blocks, make of pictures. A search computes it once for all its trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache as memoised
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
#: The largest size of the maps of a search, in bytes. They lie in the memory that the workers share.
MOST_BYTES = 1 << 30

#: Called with the number of pictures that are done since the last call.
Report = Callable[[int], None]


class Frozen:
    """A frozen backbone, or its frozen first blocks. The results are kept in files.

    A file is named after the pictures, the weights and the size. Maps are what comes out of the frozen blocks: float16
    (views, n, height, width, channels).
    """

    def __init__(self, backbone: Backbone, size: int, device: torch.device, cache: Path) -> None:
        """
        Args:
            size: of the pictures that the backbone sees, in pixels.
        """
        weights = [value.numpy() for value in backbone.cpu().state_dict().values()]
        self._key = f"{array_digest(weights)} {size}"
        self._backbone = backbone.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._size, self._device, self._cache = size, device, cache

    def computed(
        self, images: np.ndarray, cuts: Sequence[int], report: Report
    ) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """The features of pictures and of their mirror images, and the maps behind the first `blocks` blocks.

        Args:
            images: uint8 (n, 3, size, size).
            cuts: the numbers of first blocks whose maps are needed.

        Returns:
            The features, float16 (`VIEWS`, n, width); and the maps by the number of blocks.
        """

        def parts(pixels: torch.Tensor) -> list[torch.Tensor]:
            if not cuts:
                return [self._backbone(pixels)]
            maps = [self._backbone.until(pixels, blocks) for blocks in cuts]
            return [self._backbone.after(maps[0], cuts[0]), *(part.permute(0, 2, 3, 1) for part in maps)]

        views = memoised(lambda: [self._applied(images, view, parts, report) for view in range(VIEWS)])
        key = array_digest([images, self._key.encode()])

        def kept(name: str, place: int) -> np.ndarray:
            return cached_array(self._cache / f"{name}.npy", lambda: np.stack([view[place] for view in views()]))

        features = kept(f"features-{key}", 0)
        return features, {blocks: kept(f"maps-{key}-{blocks}", place) for place, blocks in enumerate(cuts, 1)}

    def bytes_of_maps(self, count: int, blocks: int) -> int:
        """The size of the maps of `count` pictures."""
        with torch.no_grad():
            maps = self._backbone.until(torch.zeros(1, 3, self._size, self._size, device=self._device), blocks)
        return VIEWS * count * maps.numel() * np.dtype(np.float16).itemsize

    def _applied(
        self, images: np.ndarray, view: int, network: Callable[[torch.Tensor], list[torch.Tensor]], report: Report
    ) -> list[np.ndarray]:
        """The results of a network for a view of all pictures, float16."""
        begins = range(0, len(images), CHUNK)
        results: dict[int, list[np.ndarray]] = {}

        @torch.no_grad()
        def compute(begin: int) -> int:
            chunk = read_only(np.ascontiguousarray(images[begin : begin + CHUNK]))
            pixels = resize(chunk, self._size, self._device).float() / 255
            seen = pixels.flip(3) if view else pixels
            results[begin] = [result.half().contiguous().cpu().numpy() for result in network(seen)]
            return len(pixels)

        with _side_by_side(self._device) as apply:
            for count in apply(compute, begins):
                report(count)
        return [np.concatenate(parts) for parts in zip(*(results[begin] for begin in begins), strict=True)]


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
