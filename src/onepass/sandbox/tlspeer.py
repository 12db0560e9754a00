"""uvicorn's protocols with the client certificate in the ASGI scope, which uvicorn leaves out.

`scope["extensions"]["tls"]` has the shape of the ASGI TLS extension
(https://asgi.readthedocs.io/en/latest/specs/tls.html), and `scope["extensions"]["onepass.closed"]` of a WebSocket is an
event that is set when the connection is lost, even while nobody receives.
"""

import asyncio
import ssl
from asyncio.transports import BaseTransport, Transport
from typing import cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.server import ServerProtocol

# A client whose input waits for the process is not being read from: neither its pongs nor its end would be seen. So
# pings go out whatever comes back; when the client is gone, the second one fails.
_PING_SECONDS = 5.0
# When the server ends: what a client gets to take what was sent to it. One that does not read would hold it up.
_LINGER_SECONDS = 1.0
_MAX_MESSAGE = 2 << 20  # bytes; clients send at most 32 KiB at a time


class Http(HttpToolsProtocol):
    """HTTP/1.1 over TLS."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        super().connection_made(transport)
        self.app = _with_extensions(cast(ASGIApp, self.app), {"tls": _peer(transport)})

    def shutdown(self) -> None:
        super().shutdown()
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)


class _Handshake(ServerProtocol):
    """Leaves subprotocols to the application: `SPDY/3.1+portforward.k8s.io` is no token, and would be refused here."""

    def process_subprotocol(self, headers: Headers) -> None:
        return None


class WebSockets(WebSocketsSansIOProtocol):
    """WebSocket over TLS, without compression."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.conn = _Handshake(max_size=_MAX_MESSAGE, logger=self.logger)
        self.closed = asyncio.Event()
        self.ping_interval = _PING_SECONDS
        self.ping_timeout = None
        extensions = {"tls": _peer(transport), "onepass.closed": self.closed}
        self.app = _with_extensions(cast(ASGIApp, self.app), extensions)

    def shutdown(self) -> None:
        super().shutdown()
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        super().connection_lost(exc)


def _with_extensions(app: ASGIApp, extensions: dict[str, object]) -> ASGIApp:
    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "extensions": {**scope.get("extensions", {}), **extensions}}, receive, send)

    return wrapped


def _peer(transport: BaseTransport) -> dict[str, object]:
    """What the TLS extension tells; the chain has the client's own certificate only, in PEM."""
    connection = transport.get_extra_info("ssl_object")
    der = connection.getpeercert(binary_form=True) if connection is not None else None
    return {"client_cert_chain": [ssl.DER_cert_to_PEM_cert(der)] if der else []}
