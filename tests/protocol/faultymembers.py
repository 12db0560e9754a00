"""Members that fail, each in one way."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import trustme

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by a reset
_SMALL = 4096


@dataclass
class Faulty:
    """TLS over HTTP/1.1, up to the point where `fault` begins. `arrived` counts the requests that have come so far.

    One that `says` gives everybody the same `answer`."""

    fault: str
    answer: bytes = b""
    context: ssl.SSLContext | None = None
    port: int = 0
    arrived: int = 0
    arrival: asyncio.Event = field(default_factory=asyncio.Event)
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)
    _tasks: set[asyncio.Task[None] | None] = field(default_factory=set)

    async def has(self, requests: int) -> None:
        """Returns when so many requests (of one that never completes TLS: connections) are there."""
        while self.arrived < requests:
            self.arrival.clear()
            await self.arrival.wait()

    def come(self) -> None:
        self.arrived += 1
        self.arrival.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await self._answered(reader, writer):
                pass
        writer.close()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection goes on."""
        if self.fault != "no TLS":
            await reader.readuntil(b"\r\n\r\n")
        self.come()
        match self.fault:
            case "no TLS" | "no answer":
                await self._over.wait()
            case "half a body":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
                await self._over.wait()
            case "trickle":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not self._over.is_set():
                    writer.write(b"x")
                    await writer.drain()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.1):
                            await self._over.wait()
            case "reset":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
                await writer.drain()
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
            case "breaks off":
                pass
            case "closes":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            case "no HTTP":
                writer.write(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
            case "says":
                writer.write(self.answer)
            case _:
                raise AssertionError(self.fault)
        return False

    async def end(self) -> None:
        """Leave no connection behind, whatever its peer does."""
        self._over.set()
        for writer in self._writers:
            writer.transport.abort()
        for writer in self._writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await asyncio.gather(*filter(None, self._tasks), return_exceptions=True)


@contextlib.asynccontextmanager
async def running(
    fault: str, authority: trustme.CA, *, context: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[Faulty]:
    """A member that fails so, on a port of its own, or on the one that is given."""
    member = Faulty(fault)
    if fault == "refuses":
        with socket.socket() as closed:
            closed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that one that is mended may listen
            closed.bind(("127.0.0.1", 0))
            member.port = closed.getsockname()[1]
            yield member
        return
    if fault == "black hole":
        with black_hole() as member.port:
            yield member
        return
    context = context or served(authority)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(4096)
    given = None if fault == "no TLS" else context
    server = await asyncio.start_server(member.serve, sock=listener, ssl=given, limit=_SMALL)
    member.port = listener.getsockname()[1]
    try:
        yield member
    finally:
        server.close()
        await member.end()
        await server.wait_closed()


def served(authority: trustme.CA, ends: datetime | None = None) -> ssl.SSLContext:
    """With a certificate for 127.0.0.1."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", not_after=ends).configure_cert(context)
    return context


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port where nothing ever comes back: the queue of who has not been accepted is full, and Linux drops a SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


_CHUNK = 16384  # SETTINGS_MAX_FRAME_SIZE


@dataclass
class Generous:
    """HTTP/2. Answers a path that ends in `large` with 8 MiB, as fast as it may, and any other with a word."""

    connections: int = 0
    sent: int = 0  # chunks
    _held: int = 0  # answers that wait for a window now

    async def holds_up(self) -> None:
        """Returns when answers wait, and none of them has gone on for a while."""
        before = -1
        while not self._held or before != self.sent:
            before = self.sent
            await asyncio.sleep(0.5)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        http.initiate_connection()
        writer.write(http.data_to_send())
        left: dict[int, int] = {}
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
            while data := await reader.read(65536):
                for event in http.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        stream = event.stream_id or 0
                        http.send_headers(stream, [(":status", "200")])
                        path = next(value for name, value in event.headers or () if str(name) == ":path")
                        left[stream] = 512 if str(path).endswith("large") else 1
                    elif isinstance(event, h2.events.StreamReset):
                        left.pop(event.stream_id or 0, None)
                for stream in list(left):
                    while left[stream] and http.local_flow_control_window(stream) >= _CHUNK:
                        left[stream] -= 1
                        self.sent += 1
                        http.send_data(stream, b"x" * _CHUNK, end_stream=not left[stream])
                    if not left[stream]:
                        del left[stream]
                self._held = len(left)
                writer.write(http.data_to_send())
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def generous(authority: trustme.CA) -> AsyncIterator[tuple[Generous, int]]:
    member, context = Generous(), served(authority)
    context.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(member.serve, "127.0.0.1", 0, ssl=context)
    try:
        yield member, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
