"""When the time budget of a command begins."""

import time
from contextvars import copy_context

from search.runtime.budget import Budget, call_begins


def test_budget_of_a_call_begins_with_the_call_and_that_of_a_command_with_its_process():
    before = time.monotonic()

    def call() -> Budget:
        call_begins()
        return Budget(3600.0)

    assert copy_context().run(call).began >= before, "a notebook may be hours old"
    assert Budget(3600.0).began < before, "imports are part of a command"
