"""Figures that several tasks draw."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """A figure of `width` by `height` inches, without pyplot: it works in any thread and needs no display."""
    from matplotlib.figure import Figure  # imported here: every worker imports this module, and few draw

    return Figure(figsize=(width, height))


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure in the format of the suffix of `path`."""
    figure.savefig(path, dpi=120, bbox_inches="tight")


def as_png(figure: Figure) -> bytes:
    """A figure as PNG."""
    file = BytesIO()
    figure.savefig(file, dpi=120, bbox_inches="tight", format="png")
    return file.getvalue()


def picture_grid(images: np.ndarray, captions: Sequence[str], columns: int, title: str = "") -> Figure:
    """Pictures uint8 (n, 3, h, w), each with a caption, as one figure."""
    rows = -(-len(images) // columns)
    figure = new_figure(2.4 * columns, 2.8 * rows)
    for position, (image, caption) in enumerate(zip(images, captions, strict=True), 1):
        axes = figure.add_subplot(rows, columns, position)
        axes.imshow(image.transpose(1, 2, 0))
        axes.set_title(caption, fontsize=7)
        axes.axis("off")
    figure.suptitle(title)
    return figure
