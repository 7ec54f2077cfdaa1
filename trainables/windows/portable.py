"""Writes a window classifier as a file that PyTorch alone loads, and as a file that onnxruntime alone loads."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from trainables.base import onnx_file
from trainables.base.errors import first_line
from trainables.windows.model import resized

#: The file that `write` makes, and the program that shows its use.
FILE = "model.pt2"
USAGE = """\
import numpy as np, torch
from PIL import Image

classes = {classes}
model = torch.export.load("model.pt2").module()
picture = Image.open("photo.jpg").convert("RGB").resize(({size}, {size}), Image.BICUBIC)
probabilities = model(torch.from_numpy(np.array(picture).transpose(2, 0, 1))[None])[0]
print(classes[int(probabilities.argmax())])
"""


USAGE_ONNX = """\
import numpy as np
import onnxruntime
from PIL import Image

classes = {classes}
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
picture = Image.open("photo.jpg").convert("RGB").resize(({size}, {size}), Image.BICUBIC)
probabilities = session.run(None, {{"images": np.array(picture).transpose(2, 0, 1)[None]}})[0][0]
print(classes[int(probabilities.argmax())])
"""


class Portable(nn.Module):
    """Decoded pictures uint8 (n, 3, size, size) -> probabilities (n, classes)."""

    def __init__(self, model: nn.Module, image_size: int) -> None:
        super().__init__()
        self.model, self.image_size = model, image_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.float()
        if images.shape[-1] != self.image_size:
            pixels = resized(pixels, self.image_size)
        return self.model(pixels / 255).softmax(1)


def write(portable: Portable, classes: tuple[str, ...], decode_size: int, folder: Path) -> None:
    """Writes `model.pt2` by torch.export, and an example `usage.py`, or the reason why there is no `model.pt2`.

    With the extra `onnx` also `model.onnx` and `usage_onnx.py`; see `base.onnx_file.write`.
    """
    pictures = torch.randint(0, 256, (3, 3, decode_size, decode_size), dtype=torch.uint8)
    usage = USAGE.format(classes=list(classes), size=decode_size)
    program: torch.export.ExportedProgram | None = None
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch warns about weights in channels_last
        try:
            shapes = ({0: torch.export.Dim("batch")},)
            program = torch.export.export(portable, (pictures,), dynamic_shapes=shapes)
            torch.export.save(program, folder / FILE)
            loaded = torch.export.load(folder / FILE).module()
            for batch in (pictures, pictures[:1]):
                torch.testing.assert_close(loaded(batch), portable(batch), atol=1e-5, rtol=1e-4)
        except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
            (folder / FILE).unlink(missing_ok=True)  # the code of some checkpoints cannot be exported
            usage = f"# torch.export does not take this network: {first_line(error)}\n"
    (folder / "usage.py").write_text(usage)

    def convert(path: Path) -> None:
        if program is None:
            raise ValueError(usage.removeprefix("# "))
        onnx_file.convert(program, ["images"], "probabilities", path)

    with torch.no_grad():
        checks = [({"images": batch.numpy()}, portable(batch).numpy()) for batch in (pictures, pictures[:1])]
    # Resized pixels are rounded. A pixel that onnxruntime rounds the other way changed probabilities by up to 7e-4.
    atol = 1e-4 if decode_size == portable.image_size else 5e-3
    onnx_file.write(folder, USAGE_ONNX.format(classes=list(classes), size=decode_size), convert, checks, atol=atol)
