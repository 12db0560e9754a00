"""One HTTP/2 connection of a client, with many requests on it."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events

_CHUNK = 16384  # SETTINGS_MAX_FRAME_SIZE


@dataclass
class Exchange:
    """A request. `left` are the bytes of its body that have not been sent yet."""

    left: int = 0
    code: int = 0
    body: bytes = b""
    ended: bool = False


@dataclass
class Multiplexed:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    exchanges: dict[int, Exchange] = field(default_factory=dict)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.http = h2.connection.H2Connection(config)
        self.http.initiate_connection()
        self.http.increment_flow_control_window(1 << 30)
        self._push()

    def ask(self, method: str, path: str, upload: int = 0) -> Exchange:
        """Begin a request with so many bytes of body."""
        stream = self.http.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
        self.http.send_headers(stream, fields, end_stream=not upload)
        made = self.exchanges[stream] = Exchange(upload)
        self._push()
        return made

    async def until(self, exchange: Exchange, *, begun: bool = False) -> Exchange:
        """Wait for the end of an answer, or for its beginning."""
        while not exchange.ended and not (begun and exchange.code):
            self._moved.clear()
            await self._moved.wait()
        return exchange

    async def stalled(self) -> None:
        """Returns when nothing more of what is to be sent has gone for a while, which only ends what may be sent."""
        before = -1
        while before != (now := sum(each.left for each in self.exchanges.values())):
            before = now
            await asyncio.sleep(0.5)

    def _push(self) -> None:
        for stream, exchange in self.exchanges.items():
            while exchange.left and not exchange.ended and self.http.local_flow_control_window(stream):
                size = min(exchange.left, _CHUNK, self.http.local_flow_control_window(stream))
                exchange.left -= size
                self.http.send_data(stream, b"x" * size, end_stream=not exchange.left)
        self.writer.write(self.http.data_to_send())

    async def run(self) -> None:
        while data := await self.reader.read(65536):
            for event in self.http.receive_data(data):
                match event:
                    case h2.events.ResponseReceived():
                        self._of(event.stream_id).code = int(
                            next(value for name, value in event.headers or () if str(name) == ":status")
                        )
                    case h2.events.DataReceived():
                        self._of(event.stream_id).body += event.data or b""
                        self.http.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
                    case h2.events.StreamEnded() | h2.events.StreamReset():
                        self._of(event.stream_id).ended = True
            self._push()
            self._moved.set()

    def _of(self, stream: int | None) -> Exchange:
        return self.exchanges[stream or 0]


@contextlib.asynccontextmanager
async def connected(port: int, context: ssl.SSLContext) -> AsyncIterator[Multiplexed]:
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    client = Multiplexed(reader, writer)
    running = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        writer.close()
