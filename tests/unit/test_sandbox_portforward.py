"""Port-forward through its ASGI application: SPDY frames in WebSocket messages, to a real socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from starlette.types import Message
from tests.machine import free_port

from onepass.api.errors import ApiError
from onepass.sandbox import containerlogs
from onepass.sandbox.streams import portforward, spdyframes
from onepass.sandbox.streams.portforward import TUNNEL, PortForward
from onepass.sandbox.streams.spdyframes import Data, Frame, GoAway, Ping, Reset, SynReply, SynStream, WindowUpdate
from onepass.sandbox.streams.targets import Attachment, Place

SECONDS = 120


class Pods:
    """A member whose every pod runs."""

    async def reachable(self, namespace: str, pod: str) -> None:
        assert (namespace, pod) == ("n", "p")

    async def place(self, namespace: str, pod: str, container: str) -> Place:
        raise NotImplementedError

    async def attach(self, namespace: str, pod: str, container: str) -> Attachment:
        raise NotImplementedError

    async def log(self, namespace: str, pod: str, container: str, *, previous: bool) -> containerlogs.Log:
        raise NotImplementedError


class Client:
    """The client's side of one tunnel."""

    def __init__(self) -> None:
        self.to_server: asyncio.Queue[Message] = asyncio.Queue()
        self.from_server: asyncio.Queue[Message] = asyncio.Queue()
        self._encoder, self._decoder = spdyframes.Encoder(), spdyframes.Decoder()
        self._frames: list[Frame] = []

    def send(self, *frames: Frame) -> None:
        for frame in frames:
            self.to_server.put_nowait({"type": "websocket.receive", "bytes": self._encoder.encode(frame)})

    def open(self, error: int, data: int, port: int, request: str = "0") -> None:
        headers = {"port": str(port), "requestid": request}
        self.send(
            SynStream(error, {"streamtype": "error", **headers}),
            Data(error, b"", fin=True),
            SynStream(data, {"streamtype": "data", **headers}),
        )

    async def next(self) -> Frame:
        """The next frame; flow control, which kubectl ignores too, is left out."""
        while True:
            while self._frames:
                if not isinstance(frame := self._frames.pop(0), WindowUpdate):
                    return frame
            message = await self.from_server.get()
            assert message["type"] == "websocket.send", message
            self._frames += self._decoder.feed(message["bytes"])

    async def data(self, stream: int) -> bytes:
        """Everything on a stream until its end."""
        content = b""
        while True:
            frame = await self.next()
            assert isinstance(frame, Data), frame
            assert frame.stream == stream
            content += frame.data
            if frame.fin:
                return content


@asynccontextmanager
async def tunnel(query: str = "", subprotocols: tuple[str, ...] = (TUNNEL,)) -> AsyncIterator[Client]:
    client = Client()
    scope = {
        "type": "websocket",
        "path": "/",
        "query_string": query.encode(),
        "headers": [],
        "subprotocols": list(subprotocols),
        "path_params": {"namespace": "n", "name": "p"},
    }
    client.to_server.put_nowait({"type": "websocket.connect"})
    serving = asyncio.create_task(PortForward(Pods())(scope, client.to_server.get, client.from_server.put))
    try:
        async with asyncio.timeout(SECONDS):
            accepted = asyncio.create_task(client.from_server.get())
            await asyncio.wait([serving, accepted], return_when=asyncio.FIRST_COMPLETED)
            if not accepted.done():
                accepted.cancel()
                await serving
            assert accepted.result()["type"] == "websocket.accept"
            yield client
            client.to_server.put_nowait({"type": "websocket.disconnect", "code": 1000})
            await serving
    finally:
        serving.cancel()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Handler) -> AsyncIterator[int]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)
        await writer.drain()
    writer.close()


async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"bye")
    writer.close()


async def test_data_goes_both_ways_and_each_side_ends_by_itself() -> None:
    async with listening(echo) as port, tunnel() as client:
        client.open(1, 3, port)
        assert [await client.next(), await client.next()] == [SynReply(1, {}), SynReply(3, {})]
        content = bytes(range(256)) * 500
        client.send(Data(3, content), Data(3, b"", fin=True))
        assert await client.data(3) == content
        assert await client.next() == Data(1, b"", fin=True)


async def test_connections_do_not_mix() -> None:
    async with listening(echo) as port, tunnel() as client:
        client.open(1, 3, port, request="0")
        client.open(5, 7, port, request="1")
        for _ in range(4):
            assert isinstance(await client.next(), SynReply)
        client.send(Data(7, b"seven"), Data(3, b"three"))
        seen = sorted([await client.next(), await client.next()], key=str)
        assert seen == [Data(3, b"three"), Data(7, b"seven")]


async def test_a_pod_that_hangs_up_is_told_and_so_is_the_end_of_the_error_stream() -> None:
    async with listening(hang_up) as port, tunnel() as client:
        client.open(1, 3, port)
        assert [await client.next(), await client.next()] == [SynReply(1, {}), SynReply(3, {})]
        assert await client.data(3) == b"bye"
        client.send(Reset(3, spdyframes.CANCEL))  # as kubectl does, which then waits for the error stream
        assert await client.next() == Data(1, b"", fin=True)


async def test_a_port_without_a_listener_is_an_error_on_its_stream_alone() -> None:
    port = free_port()
    async with tunnel() as client:
        client.open(1, 3, port)
        assert [await client.next(), await client.next()] == [SynReply(1, {}), SynReply(3, {})]
        told = await client.next()
        assert told == Data(1, f"failed to connect to port {port} of the pod: connection refused".encode())
        assert [await client.next(), await client.next()] == [Data(3, b"", fin=True), Data(1, b"", fin=True)]
        client.send(Ping(1))
        assert await client.next() == Ping(1)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"streamtype": "data", "port": "0", "requestid": "0"},
        {"streamtype": "data", "port": "65536", "requestid": "0"},
        {"streamtype": "data", "port": "x", "requestid": "0"},
        {"streamtype": "data", "port": "80"},
        {"streamtype": "stdin", "port": "80", "requestid": "0"},
    ],
)
async def test_a_stream_that_makes_no_sense_is_refused_and_the_tunnel_lives_on(headers: dict[str, str]) -> None:
    async with tunnel() as client:
        client.send(SynStream(1, headers), Ping(1))
        assert [await client.next(), await client.next()] == [Reset(1, spdyframes.REFUSED_STREAM), Ping(1)]


async def test_frames_of_streams_that_are_not_there_are_read_over() -> None:
    async with tunnel() as client:
        client.send(Data(9, b"x", fin=True), Reset(9, 1), WindowUpdate(9, 1), Ping(2), Ping(3))
        assert await client.next() == Ping(3)


async def test_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portforward, "_MAX_STREAMS", 2)
    async with tunnel() as client:
        for stream in (1, 3, 5):
            client.send(SynStream(stream, {"streamtype": "error", "port": "80", "requestid": str(stream)}))
        seen = [await client.next() for _ in range(3)]
        assert seen == [SynReply(1, {}), SynReply(3, {}), Reset(5, spdyframes.REFUSED_STREAM)]


async def test_a_pod_that_does_not_read_loses_its_connection_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(portforward, "_STALL_SECONDS", 0.2)
    stuck = asyncio.Event()

    async def deaf(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stuck.wait()
        writer.close()

    async with listening(deaf) as port, tunnel() as client:
        client.open(1, 3, port)
        assert [await client.next(), await client.next()] == [SynReply(1, {}), SynReply(3, {})]
        client.send(*(Data(3, b"x" * 100_000) for _ in range(200)), Ping(1))
        seen = [await client.next(), await client.next(), await client.next()]
        assert seen == [Reset(3, spdyframes.CANCEL), Data(1, b"", fin=True), Ping(1)]
        stuck.set()


async def test_a_tunnel_that_breaks_the_framing_is_given_up() -> None:
    async with tunnel() as client:
        client.to_server.put_nowait({"type": "websocket.receive", "bytes": b"\x80\x02\x00\x06\0\0\0\4\0\0\0\1"})
        assert await client.next() == GoAway(0, spdyframes.PROTOCOL_ERROR)


@pytest.mark.parametrize(
    ("query", "subprotocols"),
    [
        ("", ()),
        ("", ("unknown",)),
        ("", ("v4.channel.k8s.io",)),
        ("ports=0", ("v4.channel.k8s.io",)),
        ("ports=80,x", ("v4.channel.k8s.io",)),
    ],
)
async def test_what_cannot_be_served_is_refused_before_the_upgrade(query: str, subprotocols: tuple[str, ...]) -> None:
    with pytest.raises(ApiError) as refused:
        async with tunnel(query, subprotocols):
            pass
    assert refused.value.code == 400
