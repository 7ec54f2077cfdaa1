"""The file `model.onnx` of an exported model: written if the extra `onnx` is installed, and checked by onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from trainables.base.errors import first_line

if TYPE_CHECKING:
    import torch

#: The file with the model, and the program that shows its use.
FILE, USAGE = "model.onnx", "usage_onnx.py"
#: What the extra `onnx` of this project installs: the format, the runtime that checks it, and the exporter of torch.
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
#: The command that installs the extra.
INSTALL = 'pip install "trial-search[onnx]"'

#: The inputs of a model by name.
Inputs = Mapping[str, np.ndarray]


@runtime_checkable
class ConvertedToOnnx(Protocol):
    """A task whose `export` calls `write`. Without the extra `onnx` its model cards say how to get `model.onnx`."""

    onnx: bool


def installed() -> bool:
    """Whether the extra `onnx` is installed."""
    return all(find_spec(package) for package in PACKAGES)


def write(
    folder: Path, usage: str, make: Callable[[Path], None], checks: Sequence[tuple[Inputs, np.ndarray]],
    atol: float = 1e-5, rtol: float = 1e-4,
) -> None:  # fmt: skip
    """Writes `model.onnx` and `usage_onnx.py`; without the extra `onnx` it writes nothing.

    onnxruntime computes the file's outputs for `checks`. If the network cannot be converted, or if the outputs differ
    from the expected ones, there is no `model.onnx`, and `usage_onnx.py` says why.

    Args:
        usage: a program that uses `model.onnx`.
        make: writes the model to a path.
        checks: inputs with the expected values of the first output.
        atol, rtol: the largest allowed difference is `atol + rtol * |expected|`.
    """
    if not installed():
        return
    try:
        make(folder / FILE)
        for inputs, expected in checks:
            np.testing.assert_allclose(run(folder / FILE, inputs), expected, atol=atol, rtol=rtol)
    except Exception as error:  # the exporter and the runtime raise classes of their own for each unknown operation
        (folder / FILE).unlink(missing_ok=True)
        usage = f"# there is no {FILE}, as this network cannot be converted: {first_line(error)}\n"
    (folder / USAGE).write_text(usage, encoding="utf-8")


def run(path: Path, inputs: Inputs) -> np.ndarray:
    """The first output of the model at `path`, computed by onnxruntime on one core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # an error is raised too
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    output: np.ndarray = session.run(None, dict(inputs))[0]
    return output


def convert(program: torch.export.ExportedProgram, inputs: Sequence[str], output: str, path: Path) -> None:
    """Converts an exported program to ONNX. Its dynamic sizes stay dynamic.

    Args:
        inputs, output: names of its inputs and of its output.
    """
    import torch

    with _quiet():
        converted = torch.onnx.export(
            program, (), dynamo=True, input_names=[*inputs], output_names=[output], verbose=False
        )
        assert converted is not None
        converted.save(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter, which names packages that no model here needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
