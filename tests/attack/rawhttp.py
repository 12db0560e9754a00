"""HTTP as no client sends it: bytes to the gateway's port, over TLS, and what comes back."""

import contextlib
import json
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any  # parsed JSON of the tests

import h2.config
import h2.connection
import h2.events
import h2.exceptions

SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """One answer. `code` 0: the connection ended without one."""

    code: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Wire:
    """One TLS connection to the gateway, which speaks HTTP/1.1 as badly as the test wants."""

    tls: ssl.SSLSocket
    rest: bytes = b""

    @classmethod
    def open(cls, address: tuple[str, int], context: ssl.SSLContext) -> "Wire":
        plain = socket.create_connection(address, timeout=SECONDS)
        return cls(context.wrap_socket(plain, server_hostname="localhost"))

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.tls.close()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.tls.sendall(data)

    def _fill(self) -> bool:
        try:
            data = self.tls.recv(65536)
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        self.rest += data
        return bool(data)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer, with its body by content-length or chunks. 101 has none."""
        while b"\r\n\r\n" not in self.rest:
            if not self._fill():
                return Answer(0, body=self.rest)
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
        code, said = int(first.split(" ")[1]), dict(headers)
        if code in (101, 204, 304) or method == "HEAD":
            return Answer(code, headers)
        if "chunked" in said.get("transfer-encoding", ""):
            body = b""
            while True:
                line = self._line()
                size = int(line.split(b";")[0], 16)
                body += self._exactly(size)
                self._exactly(2)
                if not size:
                    return Answer(code, headers, body)
        if "content-length" in said:
            return Answer(code, headers, self._exactly(int(said["content-length"])))
        while self._fill():
            pass
        body, self.rest = self.rest, b""
        return Answer(code, headers, body)

    def _line(self) -> bytes:
        while b"\r\n" not in self.rest and self._fill():
            pass
        line, _, self.rest = self.rest.partition(b"\r\n")
        return line

    def _exactly(self, count: int) -> bytes:
        while len(self.rest) < count and self._fill():
            pass
        found, self.rest = self.rest[:count], self.rest[count:]
        return found

    def ended(self) -> bool:
        """Reads to the end; whether there was nothing more."""
        while self._fill():
            pass
        return not self.rest


def request(method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> bytes:
    """A request line, a host, and `headers` as they stand."""
    lines = [f"{method} {target} HTTP/1.1", "host: gateway", *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@dataclass
class Http2:
    """One HTTP/2 connection that checks nothing of what it sends."""

    tls: ssl.SSLSocket
    connection: h2.connection.H2Connection = field(init=False)

    @classmethod
    def open(cls, address: tuple[str, int], context: ssl.SSLContext) -> "Http2":
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(address, timeout=SECONDS)
        tls = context.wrap_socket(plain, server_hostname="localhost")
        assert tls.selected_alpn_protocol() == "h2"
        return cls(tls)

    def __post_init__(self) -> None:
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="latin-1",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=False,
        )
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()
        self.flush()

    def __enter__(self) -> "Http2":
        return self

    def __exit__(self, *_: object) -> None:
        self.tls.close()

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.tls.sendall(self.connection.data_to_send())

    def send(
        self, method: str, path: str, headers: Sequence[tuple[str, str]] = (), *, end: bool = True, stream: int = 0
    ) -> int:
        """Send a request's headers; returns its stream."""
        stream = stream or self.connection.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "https"), (":authority", "gateway"), (":path", path)]
        self.connection.send_headers(stream, [*pseudo, *headers], end_stream=end)
        self.flush()
        return stream

    def answer(self, stream: int) -> Answer:
        """The answer on a stream; code 0 when it was reset or the connection ended."""
        code, fields, body = 0, (), b""
        headers: tuple[tuple[str, str], ...] = fields
        while True:
            try:
                data = self.tls.recv(65536)
            except (ConnectionResetError, ssl.SSLEOFError):
                data = b""
            if not data:
                return Answer(0)
            try:
                events = self.connection.receive_data(data)
            except h2.exceptions.ProtocolError:
                return Answer(0)
            for event in events:
                if isinstance(event, h2.events.ConnectionTerminated):
                    return Answer(0)
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    headers = tuple((str(name), str(value)) for name, value in event.headers or ())
                    code = int(dict(headers)[":status"])
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data or b""
                    self.connection.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                elif isinstance(event, h2.events.StreamReset):
                    return Answer(0)
                elif isinstance(event, h2.events.StreamEnded):
                    self.flush()
                    return Answer(code, headers, body)
            self.flush()
