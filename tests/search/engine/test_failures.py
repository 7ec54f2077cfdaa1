"""What a traceback says of a failure, on real ones."""

import errno
import os
import traceback

import pytest
import torch

from search.engine.failures import cause


def told(action) -> str:
    try:
        action()
    except BaseException:
        return traceback.format_exc()
    raise AssertionError("nothing was raised")


def no_room():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_memory_on_the_device():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda: bytearray(2**62), "memory"),
        (lambda: torch.empty(2**47, dtype=torch.uint8), "memory"),
        (no_memory_on_the_device, "memory"),
        (no_room, "disk"),
        (lambda: 1 / 0, "error"),
    ],
)
def test_cause_of_what_was_raised(action, expected):
    assert cause(told(action)) == expected


def test_worker_that_says_nothing_was_lost():
    died = "The actor died unexpectedly before finishing this task.\n\tclass_name: TaskTrainable\n\tpid: 7"
    assert cause(died) == "lost"
    assert cause("no traceback: the worker died without one") == "lost"
    assert cause("Task was killed due to the node running low on memory.") == "memory"
