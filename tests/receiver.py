"""A receiver of messages over HTTP, which may be slow, fail, or never answer."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """Keeps what it gets.

    Attributes:
        codes: the answers to the first requests; later ones are answered with 200.
        block: it answers only when this is set.
    """

    def __init__(self, codes: tuple[int, ...] = ()) -> None:
        self.got: list[dict] = []
        self.requests = 0
        self.codes = list(codes)
        self.block = threading.Event()
        self.block.set()
        self.address = ""

    def events(self) -> list[str]:
        return [message["event"] for message in self.got]


@contextmanager
def receiver(*codes: int) -> Iterator[Receiver]:
    """A receiver on 127.0.0.1."""
    made = Receiver(codes)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.requests += 1
            made.block.wait(60)
            code = made.codes.pop(0) if made.codes else 200
            if code == 200:
                made.got.append(body)
            self.send_response(code)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.address = f"http://127.0.0.1:{server.server_port}/hook/secret-path-{server.server_port}"
    try:
        yield made
    finally:
        made.block.set()
        server.shutdown()
        server.server_close()
