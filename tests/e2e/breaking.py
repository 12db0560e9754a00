"""A proxy between the command line and an API, which cuts it short after the n-th request that changes something.

It ends TLS, so the caller's credential has to be a token. Requests of others, as the gateway's own, are passed on.
"""

import http.client
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import trustme
from tests.machine import free_port

_HOP = {"connection", "transfer-encoding", "host", "keep-alive"}


@dataclass
class Breaker:
    """What the proxies of one test share. `after` is the number of the request after which `broken` is called."""

    after: int = 0  # 0: never
    broken: Callable[[], None] = lambda: None
    away: bool = False  # whoever is watched is let through no more
    seen: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def set(self, after: int, broken: Callable[[], None] = lambda: None) -> None:
        self.after, self.broken, self.away = after, broken, False
        self.seen.clear()

    def passed(self, method: str, path: str) -> bool:
        """A request was answered; whether the caller may know."""
        if method == "GET" or "dryRun" in path:
            return True
        with self._lock:
            self.seen.append(f"{method} {path}")
            hit = len(self.seen) == self.after
        if hit:
            self.broken()
        return not hit


@contextmanager
def proxy(target: str, ca: str, token: str, breaker: Breaker) -> Iterator[tuple[str, str]]:
    """Its URL and authority; requests with `token` are those that are counted."""
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    place = urlsplit(target)
    trust = ssl.create_default_context(cadata=ca)

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            counted = self.headers.get("authorization") == f"Bearer {token}"
            self.close_connection = True
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if counted and breaker.away:
                return
            assert place.hostname is not None
            onward = http.client.HTTPSConnection(place.hostname, place.port, context=trust, timeout=60)
            try:
                kept = {key: value for key, value in self.headers.items() if key.lower() not in _HOP}
                onward.request(self.command, self.path, body or None, kept)
                found = onward.getresponse()
                if counted and not breaker.passed(self.command, self.path):
                    return
                self.send_response(found.status)
                for key, value in found.getheaders():
                    if key.lower() not in _HOP:
                        self.send_header(key, value)
                self.send_header("connection", "close")
                self.end_headers()
                while part := found.read1(65536):
                    self.wfile.write(part)
                    self.wfile.flush()
            except (OSError, http.client.HTTPException):
                return  # either end has gone
            finally:
                onward.close()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815  names of http.server

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    class Server(http.server.ThreadingHTTPServer):
        def get_request(self):  # type: ignore[no-untyped-def]  # as socketserver has it
            connection, address = super().get_request()
            connection.settimeout(60)
            return server_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

        def handle_error(self, request: object, client_address: object) -> None:
            """A caller that was ended in the middle is what this is for."""

    server = Server(("127.0.0.1", free_port()), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}", authority.cert_pem.bytes().decode()
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()
