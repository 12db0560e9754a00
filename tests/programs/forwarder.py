"""Carries the bytes of TCP connections to a port, as a load balancer does, until a test takes it away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.machine import free_port


@dataclass
class Forwarder:
    """`taken` counts the connections so far. One that is `silent` takes them and carries nothing."""

    to: int
    port: int = field(default_factory=free_port)  # which is free still after a stop
    taken: int = 0
    silent: bool = False
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def start(self) -> None:
        """On loopback, after a stop on the same port."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """As a machine that goes: nobody listens, and what is open breaks off."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:  # a task that was cancelled while it waited for that has not
            await closed(writer)
        self._writers.clear()
        await server.wait_closed()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        self._writers.append(writer)
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.silent:
                await asyncio.Event().wait()
            there, back = await asyncio.open_connection("127.0.0.1", self.to)
            self._writers.append(back)
            await joined(reader, writer, there, back)
        except OSError:
            pass
        finally:
            await closed(writer)


async def joined(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    there: asyncio.StreamReader,
    back: asyncio.StreamWriter,
    seen: bytearray | None = None,
) -> None:
    """Two connections as one, until either ends. Closes the second. `seen` gets a copy of all that passes."""
    tasks = [asyncio.create_task(_copy(*pair, seen)) for pair in ((reader, back), (there, writer))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await closed(back)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, seen: bytearray | None) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            if seen is not None:
                seen.extend(data)
            sink.write(data)
            await sink.drain()


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await asyncio.shield(writer.wait_closed())  # a cancelled wait would end all others for the same connection


@asynccontextmanager
async def running(to: int) -> AsyncIterator[Forwarder]:
    forwarder = Forwarder(to)
    await forwarder.start()
    try:
        yield forwarder
    finally:
        await forwarder.stop()
