"""Serves the page of a running search from a process of its own: nothing that it does can stop or slow the driver."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.core.store import SearchFolder

#: The priority of the process below that of the search, and seconds for its end.
NICE, PATIENCE = 10, 3.0


def listen() -> socket.socket:
    """A socket on a free port of 127.0.0.1."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(16)


def address_of(listening: socket.socket, token: str) -> str:
    """The address of the page, with the token."""
    return f"http://127.0.0.1:{listening.getsockname()[1]}/#{token}"


class PageProcess:
    """While entered, a process serves the page of a search. It ends with this process, however this one ends.

    Making it and entering it raise OSError where no socket or no process can be made.
    """

    def __init__(self, folder: SearchFolder) -> None:
        self._about = {"store": str(folder.path.parents[1]), "name": folder.name, "token": new_token()}
        self._listening = listen()
        #: The address of the page. A browser that opens it waits until the process is ready.
        self.address = address_of(self._listening, self._about["token"])
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PageProcess:
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        number = self._listening.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "search.watch.process", str(number)], stdin=subprocess.PIPE, pass_fds=(number,),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._about).encode() + b"\n")  # the token is in no list of processes
        self._process.stdin.flush()
        self._listening.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main(number: int) -> None:
    """Serves on the socket with this number until standard input ends."""
    os.nice(NICE)
    about = json.loads(sys.stdin.buffer.readline())
    from search.core.store import Store
    from search.watch.server import make_server

    server = make_server(Store.open(Path(about["store"])), about["name"], about["token"])

    def wait() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=wait, daemon=True).start()
    server.run([socket.socket(fileno=number)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
