"""The prober's handshake with real TLS servers."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trustme

from onepass.controllers import probe


@asynccontextmanager
async def tls_server(authority: trustme.CA, name: str, alpn: Sequence[str]) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    context.set_alpn_protocols(list(alpn))

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def peer(port: int, authority: trustme.CA, name: str = "127.0.0.1", insecure: bool = False) -> probe.Peer:
    return probe.Peer("127.0.0.1", port, name, authority.cert_pem.bytes().decode(), insecure)


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], "http/1.1")]
)
async def test_the_handshake_tells_what_the_member_offers(offered: list[str], chosen: str) -> None:
    authority = trustme.CA()
    async with tls_server(authority, "127.0.0.1", offered) as port:
        assert await probe.handshake(peer(port, authority)) == chosen


async def test_the_server_name_is_what_the_certificate_is_checked_against() -> None:
    authority = trustme.CA()
    async with tls_server(authority, "kubernetes.default", ["h2"]) as port:
        assert await probe.handshake(peer(port, authority, "kubernetes.default")) == "h2"
        with pytest.raises(ssl.SSLCertVerificationError):
            await probe.handshake(peer(port, authority))
        assert await probe.handshake(peer(port, authority, insecure=True)) == "h2"


async def test_another_authority_is_told_apart_from_a_dead_member() -> None:
    async with tls_server(trustme.CA(), "127.0.0.1", ["h2"]) as port:
        stranger = peer(port, trustme.CA())
        with pytest.raises(ssl.SSLCertVerificationError) as untrusted:
            await probe.handshake(stranger)
    with pytest.raises(ConnectionRefusedError) as refused:
        await probe.handshake(stranger)
    assert probe.unreachable(stranger, untrusted.value).reason == "CertificateInvalid"
    assert probe.unreachable(stranger, refused.value).reason == "ConnectionRefused"
    assert f":{port}" in probe.unreachable(stranger, refused.value).message
