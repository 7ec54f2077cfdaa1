"""What a model card says of the files beside a model."""

from search.tracking.card import _onnx
from trainables import get_task


def test_card_says_how_to_get_onnx_where_the_extra_was_not_installed(tmp_path):
    for task in ("windows", "rnn"):
        said = "\n".join(_onnx(get_task(task), tmp_path))
        assert "There is no `model.onnx`" in said and 'pip install "trial-search[onnx]"' in said
    assert not _onnx(get_task("tweets"), tmp_path), "texts have another form"
    (tmp_path / "usage_onnx.py").write_text("import onnxruntime\n")
    assert "import onnxruntime" in _onnx(get_task("rnn"), tmp_path)
