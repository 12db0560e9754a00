"""What the prober makes of a member: real TLS servers, and answers as a table."""

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


@pytest.mark.parametrize(
    ("code", "body", "reachable", "healthy", "reason"),
    [
        (200, b'{"gitVersion":"v1.36.0"}', True, True, "Ready"),
        (200, b"<html>", True, False, "NotKubernetes"),
        (200, b"[]", True, False, "NotKubernetes"),
        (401, b"", True, False, "Unauthorized"),
        (403, b"", True, False, "Forbidden"),
        (500, b'{"message":"etcd"}', True, False, "Failing"),
        (503, b"", False, False, "Failing"),
    ],
)
def test_an_answer_becomes_a_verdict(code: int, body: bytes, reachable: bool, healthy: bool, reason: str) -> None:
    finding = probe.verdict(probe.Answer(code, body), "h2", 3)
    assert (finding.reachable, finding.healthy, finding.reason) == (reachable, healthy, reason)
    assert finding.alpn == "h2"


def test_the_same_finding_changes_nothing_and_a_transition_moves_its_time() -> None:
    well = probe.Finding(True, True, "Ready", "fine", "v1.36.0", "h2", 10)
    first = probe.applied({}, well, 1000.0)
    assert first["healthy"] is True
    assert first["latency"] == "10ms"
    slower = probe.Finding(True, True, "Ready", "fine", "v1.36.0", "h2", 15)
    assert probe.applied(first, slower, 2000.0) == first
    much_slower = probe.Finding(True, True, "Ready", "fine", "v1.36.0", "h2", 25)
    assert probe.applied(first, much_slower, 2000.0)["latency"] == "25ms"
    dead = probe.applied(first, probe.Finding(False, False, "Timeout", "gone"), 3000.0)
    assert dead["version"] == "v1.36.0"
    conditions = dead["conditions"]
    assert isinstance(conditions, list)
    assert [c["lastTransitionTime"] for c in conditions if isinstance(c, dict)] == ["1970-01-01T00:50:00Z"] * 2
