"""Schedulers stop, pause and promote trials. `search.core.registry.SCHEDULERS` names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.core.registry import SCHEDULERS

if TYPE_CHECKING:
    from search.core.schedulers.base import Scheduler
    from search.core.settings import SearchSection


def make_scheduler(settings: SearchSection) -> Scheduler:
    """The scheduler that the section `search` names."""
    scheduler: Scheduler = SCHEDULERS.get(settings.scheduler).from_settings(settings)
    return scheduler
