"""The demo data: a hidden state rotates, leaks and saturates, so that the order and the last steps decide."""

from __future__ import annotations

import numpy as np

#: Width of a step; the last `DISTRACTORS` features have no effect.
FEATURES, DISTRACTORS, STATE = 10, 4, 4
#: The standard deviation of the input of a step. A larger one would saturate the state, which would forget the past.
DRIVE = 0.3
#: The rotation of each half of the state in a step, in radians; and the weights of the target.
ANGLES, READOUT = (0.5, 1.3), (1.0, 0.5, -1.0, 0.5)


def make(
    *, train: int, test: int, shortest: int, longest: int, leak: float, noise: float, seed: int
) -> tuple[dict[str, tuple[list[np.ndarray], np.ndarray]], float]:
    """Sequences x_t in R^10, x_t ~ N(0, I), with lengths uniform in [shortest, longest], and their targets.

    The state in R^4 follows s_t = tanh(leak * R s_{t-1} + B x_t). R rotates each half of the state by its own angle, so
    that the effect of a step depends on its distance from the end. After n further steps at most leak^n of it is
    left. The target is y = c s_T + e with e ~ N(0, noise^2): the noise floor noise^2 is the smallest expected squared
    error. A truncated network does not see the steps that were cut off.

    Returns:
        (sequences, targets) for `train` and `test`, and the noise floor.
    """
    rng = np.random.default_rng(seed)
    drive = rng.normal(0, DRIVE / np.sqrt(FEATURES - DISTRACTORS), (FEATURES, STATE))
    drive[FEATURES - DISTRACTORS :] = 0
    splits = {}
    for name, count in (("train", train), ("test", test)):
        lengths = rng.integers(shortest, longest + 1, count)
        x = rng.normal(size=(count, longest, FEATURES))
        targets = respond(x, lengths, leak, drive) + rng.normal(0, noise, count)
        splits[name] = ([x[i, :length] for i, length in enumerate(lengths)], targets)
    return splits, noise**2


def respond(x: np.ndarray, lengths: np.ndarray, leak: float, drive: np.ndarray) -> np.ndarray:
    """The targets without noise, (n,), of x (n, time, features) read up to `lengths` (n,)."""
    turn = np.zeros((STATE, STATE))
    for half, angle in enumerate(ANGLES):
        cos, sin = np.cos(angle), np.sin(angle)
        turn[2 * half : 2 * half + 2, 2 * half : 2 * half + 2] = [[cos, -sin], [sin, cos]]
    state = np.zeros((len(x), STATE))
    for t in range(x.shape[1]):
        moved = np.tanh(leak * state @ turn.T + x[:, t] @ drive)
        state = np.where((t < lengths)[:, None], moved, state)
    return state @ np.array(READOUT)
