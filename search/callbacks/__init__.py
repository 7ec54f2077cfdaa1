"""Callbacks: messages to web addresses, a command at the end, and writers for TensorBoard and W&B.

`search.run(..., callbacks=[search.callbacks.TensorBoard("tb")])` gives a writer to a search.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.callbacks.tensorboard import TensorBoard
    from search.callbacks.weights_and_biases import WeightsAndBiases

__all__ = ["TensorBoard", "WeightsAndBiases"]
_PLACES = {
    "TensorBoard": "search.callbacks.tensorboard", "WeightsAndBiases": "search.callbacks.weights_and_biases",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
