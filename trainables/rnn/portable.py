"""Writes a sequence regressor as a file that PyTorch alone loads, and as a file that onnxruntime alone loads.

torch.export would fix the number of steps, so that PyTorch's file is TorchScript.
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables.base import onnx_file
from trainables.rnn import onnx_graph
from trainables.rnn.model import SequenceRegressor
from trainables.rnn.plain import Portable
from trainables.rnn.ridge import Ridge

#: The file that `write` makes, and the program that shows its use.
FILE = "model.ts"
USAGE = """\
import torch

model = torch.jit.load("model.ts")
sequence = torch.tensor(rows)  # float32 (length, {features}): a row for each step, as in training
print(model(sequence[None], torch.tensor([len(sequence)])))
"""


USAGE_ONNX = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
sequence = np.array(rows, dtype=np.float32)  # (length, {features}): a row for each step, as in training
inputs = {{"sequences": sequence[None], "lengths": np.array([len(sequence)], dtype=np.int64)}}
print(session.run(None, inputs)[0])
"""
#: Some lengths of the random sequences that check `model.onnx`; others are near the network's number of steps.
LENGTHS = (1, 2, 5, 11, 17)


def write(
    model: SequenceRegressor, steps: int | None, params: dict[str, Any], ridge: Ridge | None, folder: Path
) -> None:
    """Writes `model.ts`, TorchScript for sequences of any length, and an example `usage.py`.

    With the extra `onnx` also `model.onnx` and `usage_onnx.py`; see `base.onnx_file.write`.
    """
    portable, features = Portable(model, steps, params, ridge).cpu().eval(), len(model.x_mean)  # type: ignore[arg-type]
    with warnings.catch_warnings():  # torch.jit is deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(portable).save(str(folder / FILE))
    (folder / "usage.py").write_text(USAGE.format(features=features))
    usage, scale = USAGE_ONNX.format(features=features), float(portable.y_std)
    onnx_file.write(folder, usage, partial(onnx_graph.write, portable), _checks(portable), atol=1e-4 * scale)


@torch.no_grad()
def _checks(portable: Portable) -> list[tuple[onnx_file.Inputs, np.ndarray]]:
    """Random sequences on the scale of training, and their predictions: several of different lengths, and a single."""
    generator = torch.Generator().manual_seed(0)
    checks: list[tuple[onnx_file.Inputs, np.ndarray]] = []
    for lengths in ([*LENGTHS, portable.steps + 3], [max(1, portable.steps - 1)]):
        drawn = torch.randn(len(lengths), max(lengths), len(portable.x_mean), generator=generator)
        sequences, counts = drawn * portable.x_std + portable.x_mean, torch.tensor(lengths)
        inputs = {"sequences": sequences.numpy(), "lengths": counts.numpy()}
        checks.append((inputs, portable(sequences, counts).numpy()))
    return checks
