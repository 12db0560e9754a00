"""A member cluster that records every byte that reached it: TLS, HTTP/1.1 and HTTP/2, client certificates asked for."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any  # what the ssl module tells of a certificate has no narrower type

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import trustme

VERSION = json.dumps({"major": "1", "minor": "36", "gitVersion": "v1.36.0"}).encode()

PROBES = ("/version", "/api/v1/nodes?limit=1")  # what the gateway itself asks members now and then


@dataclass(frozen=True)
class Seen:
    """A request as it arrived. `raw` is everything up to its body; `connection` counts from 1."""

    connection: int
    protocol: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    raw: bytes
    body: bytes = b""
    peer: str = ""  # the common name of the client certificate
    sni: str = ""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


@dataclass
class Echo:
    """A running member. `answers` maps the beginning of a target to a raw HTTP/1.1 answer; the rest is echoed."""

    name: str
    port: int
    authority: trustme.CA
    clients: trustme.CA
    http2: bool
    answers: dict[str, bytes] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    bytes_in: dict[int, bytearray] = field(default_factory=dict)
    connections: int = 0
    handshakes_failed: int = 0
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca(self) -> bytes:
        return bytes(self.authority.cert_pem.bytes())

    def requests(self, marker: str = "") -> list[Seen]:
        """What reached it, the prober's own questions aside; `marker` is part of the target."""
        with self.lock:
            return [each for each in self.seen if each.target not in PROBES and marker in each.target]

    def everything(self) -> bytes:
        """Every byte that ever arrived, of all connections."""
        with self.lock:
            return b"".join(bytes(each) for each in self.bytes_in.values())


@contextlib.contextmanager
def running(name: str, *, http2: bool = False, port: int = 0) -> Iterator[Echo]:
    """An echo member on loopback from now to the end of the block."""
    authority, clients = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost", "member.example", common_name=name).configure_cert(context)
    clients.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    names: dict[int, str] = {}

    def named(tls: ssl.SSLSocket | ssl.SSLObject, server: str | None, _context: ssl.SSLContext) -> None:
        names[id(tls)] = server or ""

    context.sni_callback = named
    listener = socket.create_server(("127.0.0.1", port))
    listener.settimeout(0.2)
    echo = Echo(name, listener.getsockname()[1], authority, clients, http2)
    threads: list[threading.Thread] = []
    open_sockets: set[socket.socket] = set()

    def serve(plain: socket.socket) -> None:
        plain.settimeout(300)  # longer than the gateway keeps what is idle: who ends it must not be a matter of luck
        try:
            tls = context.wrap_socket(plain, server_side=True)
        except OSError:
            with echo.lock:
                echo.handshakes_failed += 1
            plain.close()
            return
        open_sockets.add(tls)
        with echo.lock:
            echo.connections += 1
            number = echo.connections
            echo.bytes_in[number] = bytearray()
        connection = _Connection(echo, tls, number, _common_name(tls.getpeercert()), names.pop(id(tls), ""))
        with contextlib.suppress(OSError, ValueError, h2.exceptions.ProtocolError):
            if tls.selected_alpn_protocol() == "h2":
                connection.http2()
            else:
                while connection.http1():
                    pass
        open_sockets.discard(tls)
        tls.close()

    def accept() -> None:
        while not echo.closing.is_set():
            try:
                plain, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            thread = threading.Thread(target=serve, args=(plain,), daemon=True)
            threads.append(thread)
            thread.start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield echo
    finally:
        echo.closing.set()
        acceptor.join(10)
        listener.close()
        for each in tuple(open_sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)


def _common_name(certificate: Any) -> str:
    names = [pair for rdn in (certificate or {}).get("subject", ()) for pair in rdn]
    return next((str(value) for key, value in names if key == "commonName"), "")


@dataclass
class _Connection:
    echo: Echo
    tls: ssl.SSLSocket
    number: int
    peer: str
    sni: str
    rest: bytes = b""

    def _more(self) -> bytes:
        data = self.tls.recv(65536)
        with self.echo.lock:
            self.echo.bytes_in[self.number] += data
        if not data:
            raise ConnectionResetError
        return data

    def _until(self, end: bytes) -> bytes:
        while end not in self.rest:
            self.rest += self._more()
        found, _, self.rest = self.rest.partition(end)
        return found + end

    def _exactly(self, count: int) -> bytes:
        while len(self.rest) < count:
            self.rest += self._more()
        found, self.rest = self.rest[:count], self.rest[count:]
        return found

    def http1(self) -> bool:
        raw = self._until(b"\r\n\r\n")
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        method, target, protocol = first.split(" ", 2)
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        said = {name.lower(): value for name, value in headers}
        body = b""
        if "chunked" in said.get("transfer-encoding", ""):
            while size := int(self._until(b"\r\n").split(b";")[0], 16):
                body += self._exactly(size + 2)[:-2]
            self._until(b"\r\n")
        elif "content-length" in said:
            body = self._exactly(int(said["content-length"]))
        seen = Seen(self.number, protocol, method, target, tuple(headers), raw, body, self.peer, self.sni)
        with self.echo.lock:
            self.echo.seen.append(seen)
        for beginning, prepared in self.echo.answers.items():
            if target.startswith(beginning):
                self.tls.sendall(prepared)
                return b"connection: close" not in prepared.lower()
        if "upgrade" in said:
            self.tls.sendall(
                f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {said['upgrade']}\r\n"
                f"{self._protocol(said)}\r\n".encode()
            )
            while True:
                self.tls.sendall(self.rest + self._more())
                self.rest = b""
        content = b"" if method == "HEAD" else self._content(seen)
        self.tls.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
            % (len(self._content(seen)), content)
        )
        return True

    @staticmethod
    def _protocol(said: dict[str, str]) -> str:
        offered = said.get("sec-websocket-protocol", "").split(",")[0].strip()
        return f"Sec-WebSocket-Protocol: {offered}\r\n" if offered else ""

    @staticmethod
    def _content(seen: Seen) -> bytes:
        if seen.target == "/version":
            return VERSION
        told = {"kind": "Echo", "apiVersion": "v1", "method": seen.method, "target": seen.target, "peer": seen.peer}
        return json.dumps(told | {"headers": seen.headers, "protocol": seen.protocol}).encode()

    def http2(self) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="latin-1"))
        connection.initiate_connection()
        self.tls.sendall(connection.data_to_send())
        while True:
            for event in connection.receive_data(self._more()):
                if not isinstance(event, h2.events.RequestReceived):
                    continue
                fields = tuple((str(name), str(value)) for name, value in event.headers or ())
                said = dict(fields)
                seen = Seen(
                    self.number, "h2", said[":method"], said[":path"], fields, b"", peer=self.peer, sni=self.sni
                )
                with self.echo.lock:
                    self.echo.seen.append(seen)
                connection.send_headers(
                    event.stream_id or 0, [(":status", "200"), ("content-type", "application/json")]
                )
                connection.send_data(event.stream_id or 0, self._content(seen), end_stream=True)
            self.tls.sendall(connection.data_to_send())
