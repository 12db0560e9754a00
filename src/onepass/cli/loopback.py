"""Where the browser comes back to: an HTTP server on 127.0.0.1 for one answer (RFC 8252, 7.3)."""

import hmac
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from onepass.cli.failure import Failure

_PATH = "/callback"
_PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>OnePass</title>
<p>You may close this window and go back to the terminal.</p></html>"""


@dataclass
class Answer:
    """What will come. `wait` gives its query string, None when nothing came."""

    redirect_uri: str
    _query: str | None = None
    _came: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, seconds: float) -> str | None:
        return self._query if self._came.wait(seconds) else None

    def take(self, query: str) -> None:
        """The first one counts, whichever browser tab is told so first."""
        with self._lock:
            if self._query is None:
                self._query = query

    def told(self) -> None:
        """The browser has its page, so that this program may end."""
        self._came.set()


@contextmanager
def listening(port: int, state: str) -> Iterator[Answer]:
    """A server for the block; `port` 0 is any. Only a request with our own `state` is the answer. Raises Failure."""
    holder: list[Answer] = []

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            given = parse_qs(parts.query).get("state", [""])[0]
            if parts.path != _PATH or not hmac.compare_digest(given.encode(), state.encode()):
                self.send_error(404)
                return
            holder[0].take(parts.query)
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-length", str(len(_PAGE)))
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(_PAGE)
            holder[0].told()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the query has the code in it."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise Failure(f"port {port} of this machine is taken", "choose another with --redirect-port") from error
    server.daemon_threads = True
    holder.append(Answer(f"http://127.0.0.1:{server.server_port}{_PATH}"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield holder[0]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
