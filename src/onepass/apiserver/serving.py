"""uvicorn under an API server: it serves until it is cancelled, and then ends open watches at once."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from socket import AF_UNIX, socket

import uvicorn
from starlette.applications import Starlette

GRACE = 5  # seconds that ordinary requests have to end


class _Server(uvicorn.Server):
    """Tells when it serves, and leaves signals to the runtime, which cancels."""

    def __init__(self, config: uvicorn.Config, ready: asyncio.Event | None) -> None:
        super().__init__(config)
        self.ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self.ready is not None:
            self.ready.set()


def unix_socket(path: Path) -> socket:
    """A listening unix socket at `path` that only this user may open; replaces what a dead process left there."""
    path.unlink(missing_ok=True)
    listener = socket(AF_UNIX)
    before = os.umask(0o177)  # so that there is no moment at which others could connect
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(1024)
    listener.setblocking(False)
    return listener


async def serve(
    app: Starlette,
    listener: socket,
    *,
    ready: asyncio.Event | None = None,
    tls: ssl.SSLContext | None = None,
    http: type[asyncio.Protocol] | None = None,
    websockets: type[asyncio.Protocol] | None = None,
) -> None:
    """Serve `app`, which `onepass.apiserver.app.build` made, on a listening socket until cancelled, then close it.

    `http` and `websockets` replace uvicorn's protocols.
    """
    config = uvicorn.Config(
        app,
        http=http or "httptools",
        ws=websockets or "websockets-sansio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=300,  # Envoy, in front, closes idle connections; a client must not meet one just closed
        timeout_graceful_shutdown=GRACE,
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
    )
    server = _Server(config, ready)
    try:
        await server.serve([listener])
    finally:
        closing: asyncio.Event = app.state.closing
        closing.set()
        if server.started:
            await server.shutdown([listener])
        # One that was accepted while the server went down was told nothing, and would be served by what is closed.
        for connection in list(server.server_state.connections):
            connection.transport.close()
        listener.close()
