"""Claim: from the second epoch on, the windows task has images ready five times as fast as a `DataLoader`.

The `DataLoader` has two workers, decodes each JPEG in every epoch (Pillow, with `draft`, so that it decodes no more
than it needs) and stacks batches of 64; the task has decoded each picture once and gathers batches from memory.
Without augmentation, which would cost both the same; what it takes is told beside. Pictures of 512 x 384 for a model
of 96: those of a folder (`--data`), else made ones. Exits with 1 where the pictures differ or the ratio is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from search.core.config import load_config
from trainables import get_task, seed_everything, shuffled_batches
from trainables.windows.augment import augment
from trainables.windows.data import decode

CLAIM, SIZE, BATCH = 5.0, 96, 64


class Jpegs(Dataset):
    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(decode(self.files[index].read_bytes(), SIZE)).float() / 255


def made(folder: Path) -> Path:
    """The demo's pictures at 512 x 384, as JPEG files."""
    config = load_config("windows", ["data.size=128", "data.demo.train=512", "data.demo.test=20"])
    splits = get_task("windows").prepare(config.data, None, folder / "cache", lambda *_: None)
    for number, (image, label) in enumerate(zip(splits.train.images, splits.train.labels, strict=True)):
        path = folder / "data" / "train" / splits.info.classes[label] / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.moveaxis(image, 0, 2)).resize((512, 384)).save(path, quality=90)
    return folder / "data"


def rate(batches: Iterator[torch.Tensor]) -> float:
    """Images a second."""
    begun = time.perf_counter()
    count = sum(len(batch) for batch in batches)
    return count / (time.perf_counter() - begun)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with train/<class>/*.jpg")
    parser.add_argument("--pairs", type=int, default=5, help="how often both are run")
    options = parser.parse_args()
    seed_everything(0)
    with tempfile.TemporaryDirectory() as folder:
        source = options.data or made(Path(folder))
        task, config = get_task("windows"), load_config("windows", [f"data.size={SIZE}"])
        splits = task.prepare(config.data, source, Path(folder) / "read", lambda *_: None)
        images = torch.from_numpy(np.asarray(splits.train.images))
        files = [source / name if (source / name).exists() else Path(name) for name in splits.train.names]
        loader = DataLoader(Jpegs(files), BATCH, shuffle=True, num_workers=2, persistent_workers=True)

        def ours() -> Iterator[torch.Tensor]:
            return (images[index].float() / 255 for index in shuffled_batches(len(images), BATCH))

        list(loader), list(ours())  # the first epoch
        ratios = []
        for pair in range(options.pairs):
            mine, theirs = (rate(ours()), rate(iter(loader))) if pair % 2 == 0 else (rate(iter(loader)), rate(ours()))
            mine, theirs = (mine, theirs) if pair % 2 == 0 else (theirs, mine)
            ratios.append(mine / theirs)
            print(f"pair {pair}: {mine:.0f} images/s, DataLoader {theirs:.0f}: {ratios[-1]:.1f} x", flush=True)
        print(
            f"with the task's augmentation (strength 0.5): {rate(augment(batch, 0.5) for batch in ours()):.0f} images/s"
        )
        apart = max((Jpegs(files)[i] - images[i].float() / 255).abs().max().item() for i in range(0, len(files), 50))
    if apart > 0:
        print(f"the two do not show the model the same pictures: {apart}")
        return 1
    print(f"median of {options.pairs}: {median(ratios):.1f} x, claimed {CLAIM:g} x")
    return 0 if median(ratios) >= CLAIM else 1


if __name__ == "__main__":
    sys.exit(main())
