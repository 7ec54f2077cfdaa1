"""What a traceback says of a failure, on real ones."""

import errno
import os
import traceback

import pytest
import torch

from search.core.failures import cause, failure_in_a_line, in_a_line
from trainables.loops.errors import TrainingError


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
    ("wanted", "free", "own", "share", "expected"),
    [
        ("13.98 GiB", "137.16 GiB", "2.63 GiB", "6.99 GiB", "memory"),
        ("512.00 MiB", "12.81 MiB", "2.63 GiB", "6.99 GiB", "crowded"),
        ("512.00 MiB", "12.81 MiB", "6.90 GiB", "6.99 GiB", "memory"),
    ],
)
def test_memory_that_others_took_is_told_apart_from_a_share_that_is_used_up(wanted, free, own, share, expected):
    """In the words of CUDA 13 on an H200, where a process with a twentieth of the memory asked for a tenth."""
    said = (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {wanted}. GPU 0 has a total capacity of 139.80 "
        f"GiB of which {free} is free. Including non-PyTorch memory, this process has {own} memory in use. {share} "
        "allowed; Of the allocated memory 288.00 MiB is allocated by PyTorch, and 1.72 GiB is reserved by PyTorch"
    )
    assert cause(f"Traceback (most recent call last):\n{said}") == expected


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


def test_failure_in_a_line_of_a_mistake_has_only_its_message():
    def no_metric():
        raise TrainingError("the function yielded loss, without the objective 'val_loss'")

    assert cause(told(no_metric)) == "mistake"
    assert in_a_line(told(no_metric)) == "the function yielded loss, without the objective 'val_loss'"


def test_failure_in_a_line_names_the_line_of_the_users_code():
    traceback = 'Traceback:\n  File "/home/me/train.py", line 12, in train\nValueError: boom'
    assert failure_in_a_line(traceback) == "ValueError: boom (/home/me/train.py:12)"
