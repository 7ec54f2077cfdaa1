"""The names of searchers and schedulers, for settings and flags alike.

Flags are needed to show `--help`, so nothing heavy is imported here.
"""

from __future__ import annotations

from typing import Literal

SearcherName = Literal["ranks", "tpe", "random", "grid", "gp", "nsga2"]
SchedulerName = Literal["asha", "asha-promote", "asha-predict", "hyperband", "median", "none"]
