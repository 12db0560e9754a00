"""What is said of a connection that fails, for real ones."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from onepass.controllers import connecting, probe

_JUNK = b"HTTP/1.1 400 Bad Request\r\n\r\n"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is in this process, and slow where that is."""
    monkeypatch.setattr(probe, "HANDSHAKE_SECONDS", 120.0)


@contextlib.asynccontextmanager
async def answering(content: bytes) -> AsyncIterator[int]:
    """Who takes a connection, says that, and closes it; what it was sent it does not read, when it says nothing."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if content:
            await reader.read(1)
            writer.write(content)
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("content", "words"), [(_JUNK, "it speaks no TLS"), (b"", "it closes the connection")], ids=["http", "closes"]
)
async def test_who_speaks_no_tls_is_told(content: bytes, words: str) -> None:
    async with answering(content) as port:
        peer = probe.Peer("127.0.0.1", port, "", trustme.CA().cert_pem.bytes().decode(), insecure=False)
        with pytest.raises(OSError) as caught:  # noqa: PT011  of which the words are asked
            await probe.handshake(peer)
    told = probe.unreachable(peer, caught.value).message
    assert f"127.0.0.1:{port}" in told
    assert words in told
    plain(told)


def plain(told: str) -> None:
    assert not any(word in told for word in ("Errno", "_ssl.c", "SSL:", "Error", "('")), told


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), "nothing listens there"),
        (OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH)), "there is no way to its network"),
        (OSError(errno.EHOSTUNREACH, "Connect call failed ('10.0.0.1', 1)"), "no machine answers at that address"),
        (OSError(errno.ENOBUFS, "x"), "no buffer space available"),
        (OSError("who knows what"), "the connection does not come about, or breaks"),
        (ConnectionResetError(), "it closes the connection"),
        (TimeoutError(), "it does not answer in time"),
        (socket.gaierror(-2, "Name or service not known"), "its name cannot be resolved"),
        (ssl.SSLError(1, "[SSL: BAD] bad (_ssl.c:1006)"), "the TLS handshake ends by: unknown"),
        (ValueError("a secret"), "the connection does not come about, or breaks"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_no_error_of_python_is_told_as_it_is(error: Exception, words: str) -> None:
    told = connecting.why(error)
    assert told == words
    plain(told)
    wrapped = ValueError("[Errno 111] wrapped")
    wrapped.__cause__ = error
    assert connecting.why(wrapped) == told
    assert "secret" not in told
