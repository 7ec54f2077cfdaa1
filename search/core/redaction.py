"""Hides secrets in texts before they are printed, logged or raised, and in addresses before they are written."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from functools import partial
from urllib.parse import quote, quote_plus, unquote, unquote_plus

#: Environment variables that hold a secret, by their name.
_SECRET_NAMES = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|API_KEY|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
#: Characters. A shorter secret may be a word of any sentence: it is hidden only inside addresses.
SHORTEST = 8
_ADDRESS = re.compile(r"\b[A-Za-z][\w+.-]*://\S+")
#: `user:password@` or `token@` after `://`. A password may contain any character, so it ends at the last `@`. If the
#: path contains an `@`, a part of the path is hidden too.
_USER_INFO = re.compile(r"(?:[^:@/?#\s'\"]*:.*|[^/@\s'\"]+)@", re.DOTALL)
#: `host.name:8000/path@version` of a web page is no password; the address of a database has no `@` in its path.
_PORT = re.compile(r"(?:localhost|[^:@/?#\s'\"]*\.[^:@/?#\s'\"]*):\d{1,5}/")
#: Parameters with a secret. MLflow's `viewStateShareKey` is a part of the addresses of its pages and no secret.
#: `odbc_connect` contains the encoded settings of a driver.
_HIDDEN_KEYS = (
    r"(?!viewStateShareKey=)[^=&;?#\s]*(?:pass(?:word|wd|phrase)|token|secret|key|signature|credential)[^=&;?#\s]*"
    r"|pwd|sig|auth|pass|odbc_connect"
)
_QUERY = re.compile(rf"([?&;#](?:{_HIDDEN_KEYS})=)(?!\*\*\*)([^&;\s'\"]+)", re.IGNORECASE)
_WHOLE_QUERY = re.compile(rf"([?&#](?:{_HIDDEN_KEYS})=)([^&]+)", re.IGNORECASE)
#: Settings of a driver in the format of libpq and Azure, `key=value key=value` or `key=value;key=value`, or encoded.
_SETTING = re.compile(
    r"((?:\b|%[0-9a-f]{2})(?:password|passwd|passphrase|pwd|accountkey|sharedaccesskey)(?: ?= ?|%3d))(?!\*)"
    r"('[^']*'|\"[^\"]*\"|[^\s;&'\"%]+)",
    re.IGNORECASE,
)
#: Secrets in a command: `--token VALUE`, `--token=VALUE` and `API_KEY=VALUE`. Shorter values, such as `<pad>`, and the
#: names of hyperparameters in braces are no secrets.
_WORD = re.compile(
    r"((?<![\w-])(?:--?(?:[\w.-]*[_.-])?(?i:token|password|passwd|passphrase|secret|credentials?|(?:api|access|secret)[_-]?key)"
    r"[= ]\s*|[A-Z_]*(?:TOKEN|PASSWORD|PASSWD|SECRET|API_KEY|ACCESS_KEY|SECRET_KEY)=))"
    rf"(?![{{*])('[^']{{{SHORTEST},}}'|\"[^\"]{{{SHORTEST},}}\"|[^\s'\"]{{{SHORTEST},}})"
)
#: Addresses of this process that are neither in its arguments nor in its environment.
_given: set[str] = set()
#: The part of a web hook's address that lets everybody post.
_HOOK = re.compile(r"(https://(?:hooks\.slack\.com|(?:\w+\.)?discord(?:app)?\.com/api/webhooks)/)(?!\*\*\*)[^\s'\"<>]+")
#: Addresses of web hooks, and the form of each that may be shown.
_concealed: dict[str, str] = {}


def redacted(text: str) -> str:
    """`text` with `***` in place of the secrets in addresses, in environment variables and in words of commands.

    A secret of at least `SHORTEST` characters in an address of this process (in an argument, the environment or by
    `remember`) is hidden everywhere in the text.
    """
    addresses = _addresses()
    for address in sorted(_concealed, key=len, reverse=True):
        text = text.replace(address, _concealed[address])
    for address in sorted(addresses, key=len, reverse=True):
        text = text.replace(address, without_secrets(address))
    secrets = {form for address in addresses for secret in _secrets(address) for form in _forms(secret)}
    secrets |= {form for address in _concealed for form in _forms(_after_host(address))}
    for name, value in os.environ.items():
        if _SECRET_NAMES.search(name) and not value.startswith("/"):  # the path of a file with a secret is no secret
            secrets |= {*_forms(value)}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _ADDRESS.sub(lambda match: _hidden(match.group(), _QUERY), _HOOK.sub(r"\1***", text))
    return _WORD.sub(r"\1***", _SETTING.sub(r"\1***", _QUERY.sub(r"\1***", text)))


def without_secrets(address: str) -> str:
    """An address with `***` in place of user, password and secret parameters; any other text as it is."""
    return _hidden(address, _WHOLE_QUERY)


def has_secrets(address: str) -> bool:
    """Whether there is a secret in an address."""
    return without_secrets(address) != address


def remember(address: str | None) -> None:
    """Makes `redacted` hide the secrets of an address everywhere: drivers may quote them in their errors."""
    if address is not None and has_secrets(address):
        _given.add(address)


def conceal(address: str) -> str:
    """The address of a web hook with `***` in place of all that follows its host; `redacted` hides it from now on.

    The path alone of such an address lets everybody post. An address without a path, a query and a user, and the
    name of an environment variable (`env:NAME`), stay as they are.
    """
    scheme, mark, rest = address.partition("://")
    host = re.split(r"[/?#]", rest)[0].rpartition("@")[2]
    if not mark or rest in (host, f"{host}/") or rest == f"{host}/***":
        return address
    _concealed[address] = f"{scheme}://{host}/***"
    return _concealed[address]


def _after_host(address: str) -> str:
    return re.sub(r"^[^/?#]*[/?#]?", "", address.partition("://")[2])


def _hidden(address: str, query: re.Pattern[str]) -> str:
    scheme, mark, rest = address.partition("://")
    if user_info := _user_info(scheme, mark, rest):
        rest = f"***@{rest[user_info.end() :]}"
    return query.sub(r"\1***", f"{scheme}{mark}{rest}")


def _user_info(scheme: str, mark: str, rest: str) -> re.Match[str] | None:
    if not mark or (scheme.lower() in ("http", "https") and _PORT.match(rest)):
        return None
    return _USER_INFO.match(rest)


def _addresses() -> set[str]:
    """The addresses with secrets in the arguments and the environment of this process, and by `remember`."""
    values = (part for text in sys.argv[1:] for part in (text, text.partition("=")[2]))
    return {*_given, *(value for value in (*values, *os.environ.values()) if "://" in value and has_secrets(value))}


def _secrets(address: str) -> Iterator[str]:
    scheme, mark, rest = address.partition("://")
    if user_info := _user_info(scheme, mark, rest):
        user, colon, password = user_info.group()[:-1].partition(":")
        yield password if colon else user
        # A driver may read the part of a password after its first `@` as the host, and quote it in an error.
        host = re.split(r"[/:?#]", rest[user_info.end() :])[0]
        for part in password.split("@")[1:]:
            password = password.partition("@")[2]
            yield from (part, password, f"{password}@{host}")
    for _, value in _WHOLE_QUERY.findall(address):
        yield value


def _forms(secret: str) -> Iterator[str]:
    """The forms of a secret in a text: unchanged, encoded for an address, decoded from an address, and quoted."""
    plain = {secret, unquote(secret), unquote_plus(secret)}
    encoded = {encode(text) for text in plain for encode in (partial(quote, safe=""), quote, quote_plus)}
    for text in plain | encoded:
        for form in (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]):
            if len(form) >= SHORTEST:
                yield form
