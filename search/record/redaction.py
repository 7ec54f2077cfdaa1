"""Removes secrets from texts before they are printed, logged or raised."""

from __future__ import annotations

import os
import re

#: Environment variables that hold a secret, by their name.
_SECRET_NAMES = re.compile(r"PASSWORD|SECRET|TOKEN|API_KEY|ACCESS_KEY", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)[^/\s@'\"]+@")
_QUERY = re.compile(r"([?&][^=&\s]*(?:password|token|secret|key|signature)[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE)


def redacted(text: str) -> str:
    """`text` with `***` in place of credentials in URIs and of the values of secret environment variables."""
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRET_NAMES.search(name) and not value.startswith("/"):  # a path is where one is kept
            text = text.replace(value, "***")
    return _QUERY.sub(r"\1***", _USER_INFO.sub("***@", text))
