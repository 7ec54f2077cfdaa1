"""A small network library in NumPy: forward passes, and backward passes by hand."""

import numpy as np
import torch
from torch import nn

#: Each function, and its derivative from its value.
FUNCTIONS = {
    "none": (lambda x: x, np.ones_like),
    "relu": (lambda x: np.maximum(x, 0), lambda y: y > 0),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), lambda y: y * (1 - y)),
}


class Layer(nn.Module):
    """f(x W + b). The parameters are torch's and share memory with the arrays: optimizers and checkpoints just work."""

    def __init__(self, inputs: int, outputs: int, function: str = "none") -> None:
        super().__init__()
        self.function, self.derivative = FUNCTIONS[function]
        weights = np.random.normal(0, np.sqrt(2 / inputs), (inputs, outputs)).astype(np.float32)  # He et al. 2015
        self.weight = nn.Parameter(torch.from_numpy(weights), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(outputs), requires_grad=False)

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x, self.y = x, self.function(x @ self.weight.numpy() + self.bias.numpy())
        return self.y

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        gradient = gradient * self.derivative(self.y)
        self.weight.grad = torch.from_numpy(self.x.T @ gradient)
        self.bias.grad = torch.from_numpy(gradient.sum(0))
        return gradient @ self.weight.numpy().T


class Dropout(nn.Module):
    """Inverted: what stays (with 1 - rate) is scaled by 1 / (1 - rate), so that evaluation changes nothing."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: np.ndarray) -> np.ndarray:
        kept = np.random.random(x.shape) >= self.rate if self.training else np.ones(x.shape)
        self.scale = (kept / (1 - self.rate) if self.training else kept).astype(x.dtype)
        return x * self.scale

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        return gradient * self.scale


def squared_error(y: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean over all elements, and its gradient."""
    return float(np.square(y - target).mean()), 2 * (y - target) / y.size
