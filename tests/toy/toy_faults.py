"""Faults that the toy task has at the order of its `fault`, in the second epoch of a trial, `always` in the first."""

import os
import signal
import threading
import time
from pathlib import Path

import torch

#: Largest batch that a trial with fault `memory` has room for.
ROOM = 4


def strike(fault: str, index: int, once: Path) -> None:
    """Faults that go away (a lost worker, a hang) happen while there is no file `once`."""
    if fault == "some" and index % 3 != 2 and index % 5 == 4:
        raise RuntimeError(f"trial {index} raises in epoch 2")
    if fault in ("raise", "always"):
        raise RuntimeError("the cause is not the configuration")
    if fault == "thread":
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    if fault in ("lost", "lost-saving", "hang") and index == 1 and not once.exists():
        once.touch()
        if fault == "lost":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "hang":
            time.sleep(600)
        else:
            torch.save = _half_a_save


def diverges(fault: str, index: int) -> bool:
    return fault == "some" and index % 3 == 2


def _half_a_save(state, file) -> None:
    file.write(b"half of a checkpoint")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
