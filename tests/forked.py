"""Commands as forks of a process that has imported the large packages already.

`python -m search` imports torch, MLflow, Ray and pandas, which takes four seconds of a core. `Server` imports them
once. Each command is a fork of it, with its own session, environment, folder and output. Signals and kills reach it as
they reach a process that was started. The commands of the docs (tests/e2e/test_readme.py) and Python programs are
started, not forked.
"""

from __future__ import annotations

import atexit
import importlib
import os
import pickle
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from functools import cache
from typing import IO

import numpy

IMPORTS = ("torch", "pandas", "ray.tune", "mlflow", "optuna", "search.cli.app", "search.cli.commands", "search.runs")
#: Ray reads its token when it is imported: commands with the same token share a server.
TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
#: Variables that a command reads when it runs. A command with any other variable is started, not forked.
READ_AT_RUN = ("RAY_ADDRESS", "SEARCH_", "MLFLOW_TRACKING_URI")
_NUMBER = struct.Struct("i")


def can_fork(variables: dict[str, str]) -> bool:
    """Whether a command with these variables, beside those of the test process, can be a fork."""
    return all(name in variables for name in TOKEN) and all(
        name.startswith(READ_AT_RUN) or name in TOKEN for name in variables
    )


class Forked:
    """A command that runs. It has the part of `subprocess.Popen` that the tests use."""

    def __init__(self, output: int, status: int) -> None:
        self.stdout: IO[str] = os.fdopen(output, "r", errors="replace")
        self.returncode: int | None = None
        self._status = status
        self.pid = _NUMBER.unpack(os.read(status, _NUMBER.size))[0]

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("python -m search", timeout or 0.0)
            self._end()
        return self.returncode

    def _end(self) -> None:
        self.returncode = os.waitstatus_to_exitcode(_NUMBER.unpack(os.read(self._status, _NUMBER.size))[0])
        os.close(self._status)

    def communicate(self, timeout: float = 280) -> tuple[str, None]:
        """Everything that the command and its children print until all of them closed the output."""
        deadline, parts = time.monotonic() + timeout, []
        while not parts or parts[-1]:
            if not select.select([self.stdout], [], [], max(deadline - time.monotonic(), 0.0))[0]:
                raise subprocess.TimeoutExpired("python -m search", timeout, "".join(parts))
            parts.append(os.read(self.stdout.fileno(), 1 << 16).decode(errors="replace"))
        self.wait(max(deadline - time.monotonic(), 0.0))
        return "".join(parts), None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Server:
    """The process that has imported `IMPORTS`. It ends when this process closes its end of the socket."""

    def __init__(self, env: dict[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            code = f"from tests.forked import serve; serve({theirs.fileno()})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], env={**os.environ, **env}, pass_fds=[theirs.fileno()]
            )

    def start(self, arguments: tuple[str, ...], folder: str, env: dict[str, str]) -> Forked:
        output, output_end = os.pipe()
        status, status_end = os.pipe()
        request = pickle.dumps((arguments, folder, env))
        socket.send_fds(self._socket, [request], [output_end, status_end])
        os.close(output_end)
        os.close(status_end)
        return Forked(output, status)

    def close(self) -> None:
        self._socket.close()
        self._process.wait(30)


@cache
def _server(path: str, mode: str, token: str) -> Server:
    started = Server({"PYTHONPATH": path, **dict(zip(TOKEN, (mode, token), strict=True))})
    atexit.register(started.close)
    return started


def fork(arguments: tuple[str, ...], folder: str, env: dict[str, str]) -> Forked:
    """Runs `python -m search ARGUMENTS` in `folder`, with `env` as its whole environment."""
    return _server(env["PYTHONPATH"], *(env[name] for name in TOKEN)).start(arguments, folder, env)


def serve(number: int) -> None:
    """Forks a command for each request until the socket is closed."""
    for name in IMPORTS:
        importlib.import_module(name)
    requests = socket.socket(fileno=number)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}  # process id: its status pipe
    while True:
        ready, _, _ = select.select([requests, wake], [], [])
        if wake in ready:
            os.read(wake, 1 << 10)
            while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                os.write(running[ended[0]], _NUMBER.pack(ended[1]))
                os.close(running.pop(ended[0]))
        if requests in ready:
            request, (output, status), *_ = socket.recv_fds(requests, 1 << 20, 2)
            if not request:
                return
            if not (pid := os.fork()):
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for held in (number, wake, woken, status, *running.values()):
                    os.close(held)
                _become(output, *pickle.loads(request))
            os.write(status, _NUMBER.pack(pid))
            os.close(output)
            running[pid] = status


def _become(output: int, arguments: tuple[str, ...], folder: str, env: dict[str, str]) -> None:
    """Turns this fork into `python -m search ARGUMENTS`."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv = ["-m", *arguments]
    numpy.random.seed()  # as `random` does by itself
    runpy.run_module("search", run_name="__main__", alter_sys=True)
