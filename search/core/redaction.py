"""Removes secrets from texts before they are printed, logged or raised, and from addresses before they are kept."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus

#: Environment variables that hold a secret, by their name.
_SECRET_NAMES = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|API_KEY|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
#: A secret that is shorter may be a word of any sentence; it is hidden in addresses alone.
SHORTEST = 8
_ADDRESS = re.compile(r"\b[A-Za-z][\w+.-]*://\S+")
#: `user:password@` or `token@` at the beginning of what follows `://`. A password may hold anything, so that it ends at
#: the last `@`; that is hidden too much where a path holds one.
_USER_INFO = re.compile(r"(?:[^:@/?#\s'\"]*:.*|[^/@\s'\"]+)@", re.DOTALL)
#: `host.name:8000/path@version` of a web page is no password; the address of a database has no `@` in its path.
_PORT = re.compile(r"(?:localhost|[^:@/?#\s'\"]*\.[^:@/?#\s'\"]*):\d{1,5}/")
#: Parameters that hold a secret. MLflow's `viewStateShareKey` is none, but a part of the addresses of its pages;
#: `odbc_connect` holds the settings of a driver, encoded.
_HIDDEN_KEYS = (
    r"(?!viewStateShareKey=)[^=&;?#\s]*(?:pass(?:word|wd|phrase)|token|secret|key|signature|credential)[^=&;?#\s]*"
    r"|pwd|sig|auth|pass|odbc_connect"
)
_QUERY = re.compile(rf"([?&;#](?:{_HIDDEN_KEYS})=)(?!\*\*\*)([^&;\s'\"]+)", re.IGNORECASE)
_WHOLE_QUERY = re.compile(rf"([?&#](?:{_HIDDEN_KEYS})=)([^&]+)", re.IGNORECASE)
#: Settings of a driver that are written one after the other, as libpq and Azure have them; encoded ones too.
_SETTING = re.compile(
    r"((?:\b|%[0-9a-f]{2})(?:password|passwd|passphrase|pwd|accountkey|sharedaccesskey)(?: ?= ?|%3d))(?!\*)"
    r"('[^']*'|\"[^\"]*\"|[^\s;&'\"%]+)",
    re.IGNORECASE,
)
#: Addresses that this process was given other than by its arguments or its environment.
_given: set[str] = set()


def redacted(text: str) -> str:
    """`text` with `***` in place of the secrets in addresses and in environment variables.

    A secret of an address that this process was given, by an argument, the environment or `remember`, is hidden
    wherever it stands, if it has at least 8 characters.
    """
    addresses = _addresses()
    for address in sorted(addresses, key=len, reverse=True):
        text = text.replace(address, without_secrets(address))
    secrets = {form for address in addresses for secret in _secrets(address) for form in _forms(secret)}
    for name, value in os.environ.items():
        if _SECRET_NAMES.search(name) and not value.startswith("/"):  # a path is where a secret is kept
            secrets |= {*_forms(value)}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _ADDRESS.sub(lambda found: _hidden(found.group(), _QUERY), text)
    return _SETTING.sub(r"\1***", _QUERY.sub(r"\1***", text))


def without_secrets(address: str) -> str:
    """An address with `***` in place of user, password and secret parameters; any other text as it is."""
    return _hidden(address, _WHOLE_QUERY)


def has_secrets(address: str) -> bool:
    """Whether there is a secret in an address."""
    return without_secrets(address) != address


def remember(address: str | None) -> None:
    """Lets `redacted` know an address, whose secrets drivers may quote in what they raise."""
    if address is not None and has_secrets(address):
        _given.add(address)


def _hidden(address: str, query: re.Pattern[str]) -> str:
    scheme, mark, rest = address.partition("://")
    if found := _user_info(scheme, mark, rest):
        rest = f"***@{rest[found.end() :]}"
    return query.sub(r"\1***", f"{scheme}{mark}{rest}")


def _user_info(scheme: str, mark: str, rest: str) -> re.Match[str] | None:
    if not mark or (scheme.lower() in ("http", "https") and _PORT.match(rest)):
        return None
    return _USER_INFO.match(rest)


def _addresses() -> set[str]:
    """The addresses with secrets that this process was given."""
    values = (part for text in sys.argv[1:] for part in (text, text.partition("=")[2]))
    return {*_given, *(value for value in (*values, *os.environ.values()) if "://" in value and has_secrets(value))}


def _secrets(address: str) -> Iterator[str]:
    scheme, mark, rest = address.partition("://")
    if found := _user_info(scheme, mark, rest):
        user, colon, password = found.group()[:-1].partition(":")
        yield password if colon else user
        # A driver takes what stands after the first `@` of a password for the host, and says that there is none.
        host = re.split(r"[/:?#]", rest[found.end() :])[0]
        for part in password.split("@")[1:]:
            password = password.partition("@")[2]
            yield from (part, password, f"{password}@{host}")
    for _, value in _WHOLE_QUERY.findall(address):
        yield value


def _forms(secret: str) -> Iterator[str]:
    """How a secret may stand in a text: as it is, encoded for an address or decoded from one, quoted."""
    plain = {secret, unquote(secret), unquote_plus(secret)}
    for one in plain | {quote(p, safe="") for p in plain} | {quote(p) for p in plain} | {quote_plus(p) for p in plain}:
        for form in (one, json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1], repr(one)[1:-1]):
            if len(form) >= SHORTEST:
                yield form
