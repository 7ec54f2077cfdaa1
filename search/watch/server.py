"""Serves the page of a search on 127.0.0.1: the page, what is new in it, the trials, and requests to the search.

The server reads the journal as it grows and takes no lock. Whoever can reach 127.0.0.1 of this machine can read the
page. A change needs the token. It is the fragment of the address, which a browser sends to no server; the page's script
puts it into a header. The `Host` of a request must be this machine, so that no name of another site that resolves to
127.0.0.1 reads the page. The `Origin` of a change must be the page itself.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import threading
import time
from collections.abc import AsyncIterator, Callable

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.core.readable import visible
from search.core.redaction import redacted
from search.core.requests import from_json, send
from search.core.store import Store
from search.reports.logs import log_lines
from search.reports.pages import render, to_json
from search.reports.report import page_data, page_script, plotly_script
from search.reports.view import View
from search.reports.why import why
from trainables import InputError

#: Seconds between two looks at the journal, and after which a page without news shows the time again.
EVERY, CLOCK = 0.5, 10.0
#: The names of this machine in a request; a tunnel such as `ssh -L` may have another port.
HOSTS = ("127.0.0.1", "localhost")
#: Most bytes of a request, and most lines of a trial's output on the page.
MOST_BYTES, LINES = 65536, 200
#: Seconds for which the page waits for the answer of the driver.
PATIENCE = 10.0
#: No script in the page's HTML runs, so that a name or a value could not, either.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
}  # fmt: skip


class LivePage:
    """The page of a search, made again when the journal has grown. Its methods may be called from any thread."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._lock = threading.Lock()
        self._version, self._html, self._made = 0, "", (-1, 0.0)
        #: Seconds that the last page took to make.
        self.cost = 0.0

    def version(self) -> int:
        """Reads what is new in the journal; the number grows when the page would show something else."""
        with self._lock:
            return self._look()

    def html(self) -> str:
        """The page as of now."""
        with self._lock:
            version = self._look()
            if self._made[0] != version:
                began = time.monotonic()
                self._html = render("report.html", **page_data(self.view) | {"live": True})
                self._made = version, time.monotonic()
                self.cost = self._made[1] - began
            return self._html

    def _look(self) -> int:
        aged = self.view.state.status == "searching" and time.monotonic() - self._made[1] > CLOCK
        if self.view.read() or (aged and self._made[0] == self._version):
            self._version += 1
        return self._version


class _Gate:
    """Lets in only requests that name this machine, and adds the headers to each answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        host = Headers(scope=scope).get("host", "")
        if host.rpartition(":")[0] not in HOSTS and host not in HOSTS:
            await PlainTextResponse("only 127.0.0.1 and localhost are served", 421)(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)


def application(store: Store, name: str, token: str, is_over: Callable[[], bool] = lambda: False) -> ASGIApp:
    """The application of a search's page; raises InputError if there is no such search.

    Args:
        token: a request that changes the search must have it in its header `X-Token`.
        is_over: whether the server ends: the news of each page end then.
    """
    view = View.open(store, name)
    page = LivePage(view)
    scripts = {"plotly.js": plotly_script(), "report.js": page_script()}

    async def whole(request: Request) -> Response:
        try:
            return Response(await run_in_threadpool(page.html), media_type="text/html")
        except InputError as error:
            return PlainTextResponse(redacted(visible(str(error))), 500)

    async def script(request: Request) -> Response:
        return Response(scripts[request.url.path.rpartition("/")[2]], media_type="text/javascript")

    async def events(request: Request) -> Response:
        return StreamingResponse(_news(request, page, is_over), media_type="text/event-stream")

    async def trial(request: Request) -> Response:
        return await _answer(lambda: _trial(store, page, request.path_params["number"]))

    async def change(request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get("x-token", "").encode(), token.encode()):
            return _json({"error": "the token is missing or wrong: open the address that `watch` printed"}, 403)
        if request.headers.get("origin", "") != f"http://{request.headers['host']}":
            return _json({"error": "requests are taken from the page alone"}, 403)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                return _json({"error": f"a request has at most {MOST_BYTES} bytes"}, 413)
        return await _answer(lambda: {"text": send(view.folder, from_json(_loaded(body)), PATIENCE).text})

    return _Gate(Starlette(routes=[
        Route("/", whole), Route("/plotly.js", script), Route("/report.js", script), Route("/events", events),
        Route("/trial/{number:int}", trial), Route("/request", change, methods=["POST"]),
    ]))  # fmt: skip


async def _news(request: Request, page: LivePage, is_over: Callable[[], bool]) -> AsyncIterator[str]:
    """A message when the page would show something new; a page that takes long to make has fewer messages."""
    said, due = -1, 0.0
    while not (is_over() or await request.is_disconnected()):
        if time.monotonic() < due:
            await asyncio.sleep(EVERY / 2)
            continue
        try:
            version = await run_in_threadpool(page.version)
        except InputError:
            version = said  # the journal is damaged: the next call of the page says so
        if version != said:
            said = version
            yield f"data: {version}\n\n"
        else:
            yield ": nothing new\n\n"
        due = time.monotonic() + max(EVERY, page.cost)


async def _answer(make: Callable[[], object]) -> Response:
    """The JSON of a function's result, or of the error that it raises."""
    try:
        return _json(await run_in_threadpool(make))
    except InputError as error:
        return _json({"error": redacted(str(error))}, 400)


def _json(content: object, status: int = 200) -> Response:
    return Response(to_json(content), status, media_type="application/json")


def _loaded(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the request is no JSON: {error}") from error


def _trial(store: Store, page: LivePage, number: int) -> dict[str, object]:
    """What the page shows of a trial: its decisions, the end of its output, and its latest checkpoint."""
    view, name = page.view, page.view.folder.name
    lines = why(store, name, number)
    page.version()
    trial = view.state.trials[number]
    checkpoint = []
    if trial.checkpoints:
        last = trial.checkpoints[-1]
        place = view.config.search.storage or str(view.folder.path)
        kept = "" if view.config.search.storage or (view.folder.path / last.name).exists() else " (deleted since)"
        checkpoint = [f"{place}/{last.name}{kept}", f"{view.config.search.unit.at(last.epoch)}, {last.bytes} bytes"]
    return {
        "params": trial.params, "why": _plain(lines), "log": _plain(log_lines(store, name, number, LINES)),
        "checkpoint": _plain(checkpoint),
    }  # fmt: skip


def _plain(lines: list[str]) -> list[str]:
    """Lines without secrets and with visible control characters."""
    return redacted(visible("\n".join(lines))).split("\n") if lines else []


def make_server(store: Store, name: str, token: str) -> uvicorn.Server:
    """The server of a search's page, which logs no requests; raises InputError if there is no such search."""
    app = application(store, name, token, lambda: server.should_exit)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    return server
