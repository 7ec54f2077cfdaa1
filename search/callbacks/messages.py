"""Sends JSON to web addresses when a search ends or finds a new best value. The search never waits for an address.

Each address has at most one unsent message about a best value, which a better value replaces. The message about the
end has a thread of its own, so that it does not wait for an answer to an earlier message.
"""

from __future__ import annotations

import http.client
import json
import math
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from search.callbacks.values import number, plain
from search.core.events import Event, Notice
from search.core.failures import failure_in_a_line
from search.core.readable import figure, value, visible
from search.core.redaction import conceal, redacted
from search.core.state import SearchState, Trial
from trainables.base.errors import first_line

#: Seconds between two messages about best values.
INTERVAL = 60.0
#: Seconds that an address has for an answer.
TIMEOUT = 10.0
#: Seconds before the second and the third attempt.
PAUSES = (1.0, 4.0)
#: Seconds that the end of a search waits for the answers of all addresses.
PATIENCE = 3.0
#: Most characters of a text for Slack or Discord.
LONGEST = 2000


class Messenger:
    """Sends messages about one search; a listener of the search."""

    __name__ = "notify"

    def __init__(self, name: str, task: str, addresses: Sequence[str], say: Callable[[str], None]) -> None:
        """
        Args:
            addresses: web addresses, whose paths may be secrets.
            say: gets at most one warning for each address.
        """
        self._about = {"search": name, "task": task}
        self._couriers = [_Courier(address, say) for address in addresses]
        self._best = math.nan

    def __call__(self, event: Event | Notice, state: SearchState) -> None:
        """Sends a message if the event is a new best value of this session."""
        if not self._couriers:
            return
        if event["event"] == "session":
            best = state.best()
            self._best = math.nan if best is None else best.best_value
        elif event["event"] == "result":
            trial = state.trials[event["number"]]
            new = trial.best_epoch == event["epoch"] and trial.can_win
            if new and (math.isnan(self._best) or state.objective.better(trial.best_value, self._best)):
                self._best = trial.best_value
                message = self._message("best", state, trial)
                for courier in self._couriers:
                    courier.send_best(message)

    def end(self, status: str, state: SearchState) -> None:
        """Sends the message about the end. It does not wait for it; `close` does.

        Args:
            status: `finished`, `interrupted` or `failed`.
        """
        for courier in self._couriers:
            courier.send_end(self._message(status, state, state.best()))

    def close(self, patience: float) -> None:
        """Waits at most `patience` seconds in all until the messages about the end have arrived."""
        until = time.monotonic() + patience
        for courier in self._couriers:
            courier.close(max(0.0, until - time.monotonic()))

    def _message(self, what: str, state: SearchState, best: Trial | None) -> dict[str, Any]:
        found = None if best is None else {
            "value": number(best.best_value), "trial": best.number, "epoch": best.best_epoch,
            "params": plain(dict(best.params)),
        }  # fmt: skip
        test = state.final.test if state.final else None
        failure = failure_in_a_line(state.failed_in_a_row[-1]) if what == "failed" and state.failed_in_a_row else None
        return {
            "event": what, **self._about, "metric": state.objective.key, "mode": state.objective.mode, "best": found,
            "test": None if test is None else {name: number(figure_) for name, figure_ in test.items()},
            "trials": len(state.trials), "failure": plain(failure), "time": int(time.time() * 1000),
        }  # fmt: skip


def content(address: str, message: dict[str, Any]) -> bytes:
    """The JSON for an address: Slack's and Discord's form for their addresses, else the message itself."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if host == "hooks.slack.com":
        text = in_words(message).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return json.dumps({"text": text[:LONGEST]}).encode()
    if re.fullmatch(r"(\w+\.)?discord(app)?\.com", host) and parts.path.startswith("/api/webhooks"):
        # Without it a value such as `@everyone` would call people.
        return json.dumps({"content": in_words(message)[:LONGEST], "allowed_mentions": {"parse": []}}).encode()
    return json.dumps(message).encode()


def in_words(message: dict[str, Any]) -> str:
    """A message in a line."""
    what, best, test = message["event"], message["best"], message["test"]
    words = f"search {message['search']} {'has a new best' if what == 'best' else what}"
    if best:
        params = ", ".join(f"{name} {value(given)}" for name, given in best["params"].items() if given is not None)
        reached = "nan" if best["value"] is None else figure(best["value"])
        words += f": {message['metric']} {reached} (trial {best['trial']}, epoch {best['epoch']}; {params})"
    if test:
        words += "; test " + ", ".join(f"{name} {value(given)}" for name, given in test.items())
    if message["failure"]:
        words += f"; {message['failure']}"
    return visible(words)


class _Courier:
    """Delivers messages to one address."""

    def __init__(self, address: str, say: Callable[[str], None]) -> None:
        self._address, self._shown, self._say = address, conceal(address), say
        self._best: dict[str, Any] | None = None
        self._news, self._over = threading.Event(), threading.Event()
        self._warned = threading.Lock()
        self._thread: threading.Thread | None = None
        self._last: threading.Thread | None = None

    def send_best(self, message: dict[str, Any]) -> None:
        self._best = message
        self._news.set()
        if self._thread is None:
            self._thread = self._start(self._send_bests)

    def send_end(self, message: dict[str, Any]) -> None:
        self._over.set()
        self._news.set()
        self._last = self._start(lambda: self._deliver(message))

    def close(self, patience: float) -> None:
        if self._last is not None:
            self._last.join(patience)
            if self._last.is_alive():
                self._warn("it did not answer in time; the message about the end may be lost")

    def _start(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name="messages", daemon=True)
        thread.start()
        return thread

    def _send_bests(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            if self._over.is_set():
                return
            message, self._best = self._best, None
            if message is not None:
                self._deliver(message)
            if self._over.wait(INTERVAL):  # a value that comes meanwhile waits, and a better one replaces it
                return

    def _deliver(self, message: dict[str, Any]) -> None:
        body = content(self._address, message)
        for pause in (*PAUSES, None):
            try:
                _post(self._address, body)
                return
            except urllib.error.HTTPError as error:
                why, final = f"it answered {error.code}", error.code < 500 and error.code not in (408, 429)
            except (OSError, ValueError, http.client.HTTPException) as error:
                why, final = first_line(error), False
            if final or pause is None:
                self._warn(why)
                return
            if message["event"] == "best" and self._over.wait(pause):
                return  # the message about the end has the best value too
            if message["event"] != "best":
                time.sleep(pause)

    def _warn(self, why: str) -> None:
        """Gives one warning about this address."""
        if self._warned.acquire(blocking=False):
            self._say(redacted(f"notify {self._shown}: {why}; the search goes on, and this is said once"))


def _post(address: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "trial-search"}
    request = urllib.request.Request(address, body, headers)  # noqa: S310 - settings.py allows only http and https
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
        answer.read(1000)
