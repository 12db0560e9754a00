"""The prober's handshake with real TLS servers."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from onepass.api.meta import Object
from onepass.controllers import findings, probe
from onepass.controllers.findings import Answer
from onepass.gateway import replies


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is in this process, and slow where that is."""
    monkeypatch.setattr(probe, "HANDSHAKE_SECONDS", 120.0)
    monkeypatch.setattr(probe, "_PUBLISH_SECONDS", 120.0)


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


@dataclass
class Nodes:
    """A member with so many nodes, whose lists are cut as a kube-apiserver cuts them. `counts`: it tells how many are
    left. `codes` are of the first answers."""

    number: int
    counts: bool = False
    codes: list[int] = field(default_factory=list)
    asked: int = 0

    async def ask(self, _name: str, path: str, _accept: str) -> Answer:
        self.asked += 1
        if (code := self.codes.pop(0) if self.codes else 200) != 200:
            return Answer(code, b"{}")
        query = parse_qs(urlsplit(path).query)
        begin = int(query.get("continue", ["from&0"])[0].removeprefix("from&"))
        end = begin + int(query["limit"][0])
        about: dict[str, object] = {}
        if end < self.number:
            about = {"continue": f"from&{end}"} | ({"remainingItemCount": self.number - end} if self.counts else {})
        return Answer(
            200, json.dumps({"metadata": about, "items": [{}] * len(range(begin, self.number)[: end - begin])}).encode()
        )


@pytest.mark.parametrize(
    ("member", "counted", "asked"),
    [
        (Nodes(750, counts=True), 750, 1),
        (Nodes(750), 750, 9),
        (Nodes(1), 1, 1),
        (Nodes(0), 0, 1),
        (Nodes(1_000_000), None, 100),
        (Nodes(750, codes=[403]), None, 1),
        (Nodes(750, codes=[404]), None, 1),
    ],
    ids=["told", "by-pages", "one", "none", "endless", "forbidden", "absent"],
)
async def test_nodes_are_counted(member: Nodes, counted: int | None, asked: int) -> None:
    assert (await probe.count_nodes(member.ask, "prod"), member.asked) == (counted, asked)


@pytest.mark.parametrize("codes", [[503], [429], [200, 410], [200, 403]], ids=str)
async def test_a_count_that_fails_on_the_way_says_nothing(codes: list[int]) -> None:
    with pytest.raises(OSError, match=f"answered {codes[-1]}"):
        await probe.count_nodes(Nodes(750, codes=codes).ask, "prod")


async def test_envoy_is_asked_less_and_less_often_for_a_member_that_it_does_not_know_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a fleet that is new to it all looks wait at once: it has better to do than to answer them."""
    pauses: list[float] = []

    async def slept(seconds: float) -> None:
        pauses.append(seconds)

    async def ask(_name: str, _path: str, _accept: str) -> Answer:
        if len(pauses) == 7:
            return Answer(200, b'{"gitVersion": "v1.33.1"}')
        return Answer(503, b"", why=replies.NOT_PUBLISHED)

    authority = trustme.CA()
    async with tls_server(authority, "127.0.0.1", ["h2"]) as port:
        cluster: Object = {"metadata": {"name": "new", "uid": "u"}}
        prober = probe.Probe(Nothing(), Nothing(), lambda _cluster: peer(port, authority), ask)  # type: ignore[arg-type]
        monkeypatch.setattr(asyncio, "sleep", slept)
        finding = await prober.look(cluster)
    assert finding is not None
    assert finding.healthy
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 0.8, 0.8]


def test_a_changed_member_is_looked_at_once_envoy_has_the_change() -> None:
    def cluster(generation: int, observed: int, uid: str = "u") -> Object:
        told: Object = {"type": "Ready", "status": "True", "observedGeneration": observed}
        about: Object = {"name": "prod", "uid": uid, "generation": generation}
        return {"metadata": about, "status": {"conditions": [told]}}

    prober = probe.Probe(Nothing(), Nothing(), Nothing(), Nothing())  # type: ignore[arg-type]
    assert prober.delay(cluster(1, 0)) == 0
    prober._standings["prod"] = ("u", findings.Standing())
    assert prober.delay(cluster(1, 0, "another of that name")) == 0
    assert prober.delay(cluster(2, 1)) == probe.CHANGED_SECONDS
    assert prober.delay(cluster(2, 2)) == 0


class Nothing:
    """What a single look does not read."""
