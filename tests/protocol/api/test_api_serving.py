"""The server under the API: its socket, and its end."""

import asyncio
import stat
from collections.abc import AsyncGenerator
from pathlib import Path
from socket import socket

import httpx2
import pytest
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from tests.protocol.api.conftest import DEADLINE, Api

from onepass.apiserver import serving
from onepass.apiserver.ports import Limits
from onepass.apiserver.watching import Stream
from onepass.registry.store import Event


class Watch(Response):
    """A quiet watch."""

    def __init__(self, closing: asyncio.Event) -> None:
        self.closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def quiet() -> AsyncGenerator[Event]:
            yield Event("ADDED", {})
            await asyncio.Event().wait()

        await Stream(quiet(), lambda event: event.obj, 3600, self.closing)(scope, receive, send)


async def watch(request: Request) -> Response:
    return Watch(request.app.state.closing)


async def hello(_request: Request) -> Response:
    return PlainTextResponse("hello")


async def _ends_at_once(path: Path, listener: socket) -> None:
    """Long before the time that ordinary requests have to end."""
    app = Starlette(routes=[Route("/", hello), Route("/watch", watch)])
    app.state.closing = asyncio.Event()
    ready = asyncio.Event()
    task = asyncio.create_task(serving.serve(app, listener, ready=ready))
    transport = httpx2.AsyncHTTPTransport(uds=str(path))
    async with (
        asyncio.timeout(DEADLINE),
        httpx2.AsyncClient(transport=transport, base_url="http://x", timeout=DEADLINE) as client,
    ):
        await ready.wait()
        assert (await client.get("/")).text == "hello"
        async with client.stream("GET", "/watch") as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == '{"type":"ADDED","object":{}}'
            task.cancel()
            assert [line async for line in lines] == []
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_cancelled_server_ends_its_watches_and_itself_at_once(
    tmp_path: Path, run: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(run)
    monkeypatch.setattr(serving, "GRACE", 3600)
    (tmp_path / "api.sock").touch()  # as a process that died leaves it
    listener = serving.unix_socket(tmp_path / "api.sock")
    assert stat.S_IMODE((tmp_path / "api.sock").stat().st_mode) == 0o600
    run(_ends_at_once(tmp_path / "api.sock", listener))


@pytest.fixture
def limits() -> Limits:
    return Limits(answer=0.2)


async def test_a_body_that_never_ends_is_given_up(api: Api) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(b"POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    async with asyncio.timeout(DEADLINE):
        assert (await reader.readline()).split()[1] == b"504"
    writer.close()
