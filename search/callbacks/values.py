"""Values of a search for other programs."""

from __future__ import annotations

import math
from typing import Any

from search.core.redaction import redacted


def number(given: float) -> float | None:
    """The number; None if JSON has no word for it."""
    return given if math.isfinite(given) else None


def plain(given: Any) -> Any:
    """A value for JSON, without secrets in its texts."""
    if isinstance(given, str):
        return redacted(given)
    if isinstance(given, dict):
        return {str(key): plain(inner) for key, inner in given.items()}
    if isinstance(given, list | tuple):
        return [plain(inner) for inner in given]
    return number(given) if isinstance(given, float) else given
