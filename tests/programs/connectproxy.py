"""An HTTP proxy that knows CONNECT alone (RFC 9110, section 9.3.6), whose mood a test changes under way."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.programs import forwarder


@dataclass
class ConnectProxy:
    """`asked` are the authorities of all requests, `hosts` what names lead to, `credential` what Basic must say."""

    port: int = 0
    credential: str = ""
    refusal: str = ""  # such as "403 Forbidden"
    hosts: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    seen: bytearray = field(default_factory=bytearray)  # all that passed through tunnels
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)  # unset: it takes requests and does not answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            await forwarder.closed(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, authority, _ = head.split("\r\n")[0].split(" ")
        self.heads.append(head)
        self.asked.append(authority)
        await self.answers.wait()
        refusal = self.refusal or ("" if method == "CONNECT" else "405 Method Not Allowed")
        if self.credential and f"proxy-authorization: basic {self.credential}".lower() not in head.lower():
            refusal = '407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="t"'
        if refusal:
            writer.write(f"HTTP/1.1 {refusal}\r\nContent-Length: 4\r\n\r\nno!\n".encode())
            return
        host, _, port = authority.rpartition(":")
        host = host.strip("[]")
        try:
            there, back = await asyncio.open_connection(self.hosts.get(host, host), int(port))
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        self.writers.append(back)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await forwarder.joined(reader, writer, there, back, self.seen)


@asynccontextmanager
async def running(tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[ConnectProxy]:
    """On loopback."""
    proxy = ConnectProxy()
    proxy.answers.set()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy.writers.append(writer)
        task = asyncio.create_task(proxy.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", port, ssl=tls)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in proxy.writers:  # a task that was cancelled while it waited for that has not
            await forwarder.closed(writer)
        await server.wait_closed()
