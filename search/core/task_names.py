"""Checks the name of a task."""

from __future__ import annotations

from search.core.store import Store
from trainables import LOOP_TASK, InputError, register_task, runnable_tasks
from trainables.base.values import suggestion


def check_task_name(task: str, store: Store | None = None) -> None:
    """Raises InputError if there is no such task.

    Args:
        store: tasks of searches in this store are accepted too. The function or command of the newest search is
            registered in this process.
    """
    known = runnable_tasks()
    if store is not None and task not in known:
        records = sorted((record for _, record in store.records()), key=lambda record: record.created)
        known += sorted({record.task for record in records} - {*known})
        for record in records:
            if record.task == task and (record.offered or "").startswith(LOOP_TASK):
                register_task(task, str(record.offered))
    if task not in known:
        raise InputError(f"task {task!r}: unknown; there are {', '.join(known)}{suggestion(task, known)}")
