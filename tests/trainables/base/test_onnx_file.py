"""`model.onnx` is written only if onnxruntime computes what the model computes."""

import numpy as np
import pytest
import torch

from trainables.base import onnx_file

INPUT = {"x": np.array([[1.0, 2.0]], dtype=np.float32)}


def doubling(path):
    class Double(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    program = torch.export.export(Double(), (torch.zeros(3, 2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    onnx_file.convert(program, ["x"], "y", path)


def test_extra_is_installed_with_the_tests():
    assert onnx_file.installed(), onnx_file.INSTALL


def test_checked_model_and_its_program_are_written(tmp_path, capfd):
    onnx_file.write(tmp_path, "use it", doubling, [(INPUT, 2 * INPUT["x"])])
    assert onnx_file.run(tmp_path / "model.onnx", {"x": np.ones((5, 2), dtype=np.float32)}).tolist() == [[2.0, 2.0]] * 5
    assert (tmp_path / "usage_onnx.py").read_text() == "use it"
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "usage_onnx.py"}
    assert "torchvision" not in "".join(capfd.readouterr())


def refused(path):
    path.write_bytes(b"half a model")
    raise NotImplementedError("an operation\nthat nobody knows")


@pytest.mark.parametrize(("make", "factor"), [(doubling, 2.001), (refused, 2)])
def test_model_that_computes_something_else_or_cannot_be_converted_is_not_written(tmp_path, make, factor):
    onnx_file.write(tmp_path, "use it", make, [(INPUT, factor * INPUT["x"])])
    assert {path.name for path in tmp_path.iterdir()} == {"usage_onnx.py"}
    usage = (tmp_path / "usage_onnx.py").read_text()
    assert (
        usage.startswith("# there is no model.onnx, as this network cannot be converted: ") and usage.count("\n") == 1
    )
