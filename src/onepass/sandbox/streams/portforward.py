"""pods/portforward: a client's connections carried to ports of the pod, which are ports of this machine's loopback.

Two protocols. kubectl tunnels SPDY/3.1 in WebSocket messages: a connection is a pair of streams, error and data, that
share a request id. Other clients use channels: for the nth port of the query, 2n carries data and 2n+1 an error, and
each begins with the port as two bytes, little end first.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from onepass.api import errors
from onepass.sandbox.descriptors import CHUNK
from onepass.sandbox.streams import channels, spdyframes
from onepass.sandbox.streams.channels import ChannelError, Channels, ClientGone
from onepass.sandbox.streams.spdyframes import Data, Frame, GoAway, Ping, Reset, SynReply, SynStream, WindowUpdate
from onepass.sandbox.streams.targets import Containers
from onepass.sandbox.streams.terminals import ONLY_WEBSOCKET

TUNNEL = "SPDY/3.1+portforward.k8s.io"
_CONNECT_SECONDS = 10
_STALL_SECONDS = 60  # how long one connection that does not take its data may hold up the others of its client
_WAITING = 64  # frames of a connection that wait for the pod to read them
_MAX_STREAMS = 1024  # of one client at a time


class PortForward:
    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            upgrade = Request(scope).headers.get("upgrade", "")
            raise errors.bad_request(ONLY_WEBSOCKET if upgrade else "Upgrade request required")
        socket = WebSocket(scope, receive, send)
        await self._containers.reachable(socket.path_params["namespace"], socket.path_params["name"])
        offered: list[str] = scope["subprotocols"]
        chosen = channels.choose(offered)
        try:
            if TUNNEL in offered:
                await socket.accept(TUNNEL)
                await Tunnel(socket).run()
            elif chosen is not None:
                ports = _ports(socket)
                await socket.accept(chosen)
                await _by_channels(Channels(socket, chosen), ports)
            else:
                raise errors.bad_request(f"unable to upgrade: the server speaks {TUNNEL}, {channels.SUBPROTOCOLS}")
        except* ClientGone:
            pass


def _ports(socket: WebSocket) -> list[int]:
    asked = [port for value in socket.query_params.getlist("ports") for port in value.split(",")]
    if not asked or not all(port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16 for port in asked):
        raise errors.bad_request("query parameter 'ports' must name ports between 1 and 65535")
    return [int(port) for port in asked]


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Raises OSError, TimeoutError included."""
    async with asyncio.timeout(_CONNECT_SECONDS):
        return await asyncio.open_connection("127.0.0.1", port, limit=2 * CHUNK)


@dataclass(slots=True)
class _Connection:
    """One forwarded connection: what the client sends waits here until the pod takes it; None is its end."""

    waiting: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(_WAITING))

    async def carry(
        self,
        port: int,
        deliver: Callable[[bytes], Awaitable[None]],
        taken: Callable[[int], Awaitable[None]],
        *,
        half_open: bool,
    ) -> None:
        """Connect, and copy both ways until the pod has ended, and with `half_open` the client too.

        Raises OSError when there is no connection.
        """
        reader, writer = await _connect(port)
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._send(writer, taken))
                with contextlib.suppress(ConnectionResetError):
                    while data := await reader.read(CHUNK):
                        await deliver(data)
                await deliver(b"")
                if not half_open:
                    sending.cancel()
        except* OSError:
            pass  # the pod closed in the middle; the client sees the end of its stream
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _send(self, writer: asyncio.StreamWriter, taken: Callable[[int], Awaitable[None]]) -> None:
        while (data := await self.waiting.get()) is not None:
            writer.write(data)
            await writer.drain()
            await taken(len(data))
        if writer.can_write_eof():
            writer.write_eof()


@dataclass(slots=True)
class _Pair:
    """The streams of one request id; 0 until the client has opened one."""

    error: int = 0
    data: int = 0


class Tunnel:
    """SPDY/3.1 in WebSocket messages, the server's side."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._encoder = spdyframes.Encoder()
        self._decoder = spdyframes.Decoder()
        self._pairs: dict[str, _Pair] = {}
        self._connections: dict[int, _Connection] = {}  # by data stream
        self._tasks: dict[int, tuple[asyncio.Task[None], _Pair]] = {}
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Until the client goes. Raises ClientGone, in a group."""
        async with asyncio.TaskGroup() as group:
            while True:
                event = await self._socket.receive()
                if event["type"] == "websocket.disconnect":
                    raise ClientGone
                try:
                    for frame in self._decoder.feed(event.get("bytes") or b""):
                        await self._handle(frame, group)
                except spdyframes.SpdyError as error:
                    await self._send(GoAway(0, spdyframes.PROTOCOL_ERROR))
                    raise ClientGone from error

    async def _handle(self, frame: Frame, group: asyncio.TaskGroup) -> None:
        match frame:
            case SynStream():
                await self._open(frame, group)
            case Data(stream, data, fin) if stream in self._connections:
                await self._queue(stream, data, fin)
            case Reset(stream):
                await self._drop(stream)
            case Ping(id) if id % 2:  # the client's own; even ones would be answers to ours
                await self._send(frame)
            case GoAway():
                raise ClientGone

    async def _open(self, frame: SynStream, group: asyncio.TaskGroup) -> None:
        kind, request, port = (frame.headers.get(name, "") for name in ("streamtype", "requestid", "port"))
        valid = port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16 and request != ""
        full = len(self._pairs) + len(self._connections) >= _MAX_STREAMS
        if kind not in ("error", "data") or not valid or full:
            await self._send(Reset(frame.stream, spdyframes.REFUSED_STREAM))
            return
        pair = self._pairs.setdefault(request, _Pair())
        if kind == "error":
            pair.error = frame.stream
        else:
            pair.data = frame.stream
            self._connections[frame.stream] = _Connection()
        await self._send(SynReply(frame.stream, {}))
        if kind == "data" and frame.fin:
            await self._queue(frame.stream, b"", True)
        if pair.error and pair.data:
            del self._pairs[request]
            task = group.create_task(self._forward(pair, int(port)))
            self._tasks[pair.data] = (task, pair)

    async def _forward(self, pair: _Pair, port: int) -> None:
        connection = self._connections[pair.data]

        async def deliver(data: bytes) -> None:
            await self._send(Data(pair.data, data, fin=not data))

        async def taken(count: int) -> None:
            if count:
                await self._send(WindowUpdate(pair.data, count))

        try:
            await connection.carry(port, deliver, taken, half_open=True)
        except OSError as error:
            why = _why(port, error)
            await self._send(Data(pair.error, why.encode()))
            await self._send(Data(pair.data, b"", fin=True))
        finally:
            self._connections.pop(pair.data, None)
            self._tasks.pop(pair.data, None)
        await self._send(Data(pair.error, b"", fin=True))

    async def _queue(self, stream: int, data: bytes, fin: bool) -> None:
        """Hand data on. It waits while the pod does not read, which holds up the client's other connections too, so not
        for ever."""
        waiting = self._connections[stream].waiting
        try:
            async with asyncio.timeout(_STALL_SECONDS):
                if data:
                    await waiting.put(data)
                if fin:
                    await waiting.put(None)
        except TimeoutError:
            await self._send(Reset(stream, spdyframes.CANCEL))
            await self._drop(stream)

    async def _drop(self, stream: int) -> None:
        """End a connection that one side has given up. kubectl waits for the end of its error stream even then."""
        self._connections.pop(stream, None)
        if stream in self._tasks:
            task, pair = self._tasks.pop(stream)
            task.cancel()
            await self._send(Data(pair.error, b"", fin=True))

    async def _send(self, frame: Frame) -> None:
        try:
            async with self._sending:  # header blocks must arrive in the order in which they were compressed
                await self._socket.send_bytes(self._encoder.encode(frame))
        except WebSocketDisconnect as error:
            raise ClientGone from error


async def _by_channels(client: Channels, ports: list[int]) -> None:
    connections = [_Connection() for _ in ports]
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(_listen(client, connections))
        async with asyncio.TaskGroup() as forwarding:
            for index, port in enumerate(ports):
                forwarding.create_task(_forward_channel(client, index, port, connections[index]))
        listening.cancel()
    await client.close()


async def _listen(client: Channels, connections: Sequence[_Connection]) -> None:
    while True:
        try:
            message = await client.receive()
            index, side = divmod(message.channel, 2)
            if side == 0 and index < len(connections):
                async with asyncio.timeout(_STALL_SECONDS):
                    await connections[index].waiting.put(None if message.closes else message.data)
        except (ChannelError, TimeoutError) as error:
            raise ClientGone from error


async def _forward_channel(client: Channels, index: int, port: int, connection: _Connection) -> None:
    data, error = 2 * index, 2 * index + 1
    number = port.to_bytes(2, "little")
    await client.send(data, number)
    await client.send(error, number)

    async def deliver(chunk: bytes) -> None:
        if chunk:
            await client.send(data, chunk)

    async def taken(_count: int) -> None:
        """Channels have no flow control of their own."""

    try:
        await connection.carry(port, deliver, taken, half_open=False)
    except OSError as failed:
        await client.send(error, _why(port, failed).encode())


def _why(port: int, error: OSError) -> str:
    reason = os.strerror(error.errno).lower() if error.errno else "timed out"
    return f"failed to connect to port {port} of the pod: {reason}"
