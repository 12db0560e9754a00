"""A member behind an HTTP proxy: the real Envoy asks a real proxy for the way, and tells what is wrong with it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.programs import connectproxy
from tests.programs.connectproxy import ConnectProxy
from tests.protocol import dataplane
from tests.protocol.dataplane import DEADLINE, Ask, Authorities, Plane, StartMember, said

from onepass.gateway import ir, upstreams
from onepass.registry import destinations

BASIC = "dXNlcjpzZWNyZXQ="


@pytest.fixture
async def proxy() -> AsyncIterator[ConnectProxy]:
    async with connectproxy.running() as started:
        yield started


def behind(member: ir.Member, proxy: ConnectProxy, authorization: str = "", host: str = "127.0.0.1") -> ir.Member:
    return replace(member, proxy=ir.Proxy(host, proxy.port, authorization=authorization))


async def test_requests_watches_and_upgrades_go_through_the_proxy_and_it_sees_none_of_them(
    plane: Plane, proxy: ConnectProxy, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    there = await start_member(alpn=("h2", "http/1.1"))
    proxy.credential = BASIC
    described = replace(dataplane.described(there, authorities), http2=True, credential=ir.Credential(token="canary"))
    await plane.members(behind(described, proxy, f"Basic {BASIC}"))
    assert (await ask("/m/prod/api")).code == 200
    async with dataplane.watching(plane) as stream:
        there.more.set()
        await stream.expect(b"last\n\r\n")
    for kind, method in (("websocket", "GET"), ("spdy/3.1", "POST")):
        async with dataplane.upgraded(plane, kind, method):
            pass
    assert {seen.headers["authorization"] for seen in there.seen} == {"Bearer canary"}
    assert not any("proxy-authorization" in seen.headers for seen in there.seen)
    assert set(proxy.asked) == {f"127.0.0.1:{there.port}"}
    assert there.connections == len(proxy.asked)
    assert not any("canary" in head for head in proxy.heads)


async def test_a_member_that_only_the_proxy_can_find(
    plane: Plane, proxy: ConnectProxy, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    there = await start_member(identity="inside.invalid")
    proxy.hosts["inside.invalid"] = "127.0.0.1"
    described = dataplane.described(there, authorities)
    await plane.members(behind(replace(described, host="inside.invalid", server_name="inside.invalid"), proxy))
    assert (await ask("/m/prod/api")).code == 200
    assert proxy.asked == [f"inside.invalid:{there.port}"]
    assert "proxy-authorization" not in proxy.heads[0].lower()


def silent(proxy: ConnectProxy) -> None:
    proxy.answers.clear()


def refusing(proxy: ConnectProxy) -> None:
    proxy.refusal = "403 Forbidden"


def demanding(proxy: ConnectProxy) -> None:
    proxy.credential = "another"


def redirecting(proxy: ConnectProxy) -> None:
    proxy.refusal = "302 Found\r\nLocation: https://127.0.0.1/"


@pytest.mark.parametrize(
    ("mood", "told"),
    [
        (refusing, "its proxy {} does not answer, or refuses to lead there"),
        (demanding, "its proxy {} does not answer, or refuses to lead there"),
        (redirecting, "its proxy {} does not answer, or refuses to lead there"),
        (silent, "no connection through its proxy {} within 5 seconds"),
    ],
)
async def test_what_is_wrong_with_a_proxy_is_told_by_its_name(
    plane: Plane,
    proxy: ConnectProxy,
    ask: Ask,
    start_member: StartMember,
    authorities: Authorities,
    mood: Callable[[ConnectProxy], None],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if mood is silent:
        monkeypatch.setattr(upstreams, "_CONNECT", 0.5)
    there = await start_member()
    mood(proxy)
    await plane.members(behind(dataplane.described(there, authorities), proxy, f"Basic {BASIC}"))
    told = f'cluster "prod" is unreachable: {told.format(f"http://127.0.0.1:{proxy.port}")}'
    assert await said(ask, "/m/prod/api") == (503, "ServiceUnavailable", told)
    assert there.connections == 0


async def test_a_proxy_that_is_down_harms_its_own_members_only(
    plane: Plane, proxy: ConnectProxy, ask: Ask, start_member: StartMember, authorities: Authorities, closed_port: int
) -> None:
    there = await start_member()
    described = dataplane.described(there, authorities)
    down = replace(described, name="down", proxy=ir.Proxy("127.0.0.1", closed_port))
    await plane.members(down, behind(described, proxy))
    told = f"its proxy http://127.0.0.1:{closed_port} does not answer, or refuses to lead there"
    assert await said(ask, "/m/down/api") == (503, "ServiceUnavailable", f'cluster "down" is unreachable: {told}')
    assert (await ask("/m/prod/api")).code == 200


async def test_a_certificate_that_is_wrong_is_the_members_not_the_proxys(
    plane: Plane, proxy: ConnectProxy, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    there = await start_member(identity="somebody.else")
    await plane.members(behind(dataplane.described(there, authorities), proxy))
    code, _, told = await said(ask, "/m/prod/api")
    assert code == 503
    assert "shows a certificate that is not trusted" in told


async def test_a_new_password_of_the_proxy_is_used_and_open_streams_live_on(
    plane: Plane, proxy: ConnectProxy, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    there = await start_member()
    proxy.credential = BASIC
    member = behind(dataplane.described(there, authorities), proxy, f"Basic {BASIC}")
    await plane.members(member)
    async with dataplane.watching(plane) as stream:
        proxy.credential = "bmV3"
        await plane.members(behind(member, proxy, "Basic bmV3"))
        async with asyncio.timeout(DEADLINE):  # a connection of its own is only made when none is idle
            while not any("bmV3" in head for head in proxy.heads):
                async with dataplane.watching(plane):
                    pass
        there.more.set()
        await stream.expect(b"last\n\r\n")


async def test_a_name_of_a_proxy_that_leads_to_a_refused_address_is_not_followed(
    plane: Plane, proxy: ConnectProxy, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    there = await start_member()
    refused = destinations.refused(destinations.Bounds(True, proxy.port))
    plane.gateway = replace(
        plane.gateway, bounds=ir.Bounds(tuple((str(network), port) for network, port in refused), ())
    )
    await plane.members(behind(dataplane.described(there, authorities), proxy, host="localhost"))
    assert (await ask("/m/prod/api")).code == 503
    assert proxy.asked == []
    plane.gateway = replace(plane.gateway, bounds=ir.Bounds())
    await plane.members(behind(dataplane.described(there, authorities), proxy, host="localhost"))
    async with asyncio.timeout(DEADLINE):
        while True:
            if (await ask("/m/prod/api")).code == 200:
                break
            await asyncio.sleep(0.05)


async def test_a_proxy_may_itself_be_reached_by_tls(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities, tmp_path: Path
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authorities.serving.issue_cert("127.0.0.1").configure_cert(context)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(dataplane.pem(authorities.serving))
    there = await start_member(alpn=("h2", "http/1.1"))
    async with connectproxy.running(context) as proxy:
        plane.gateway = replace(plane.gateway, system_trust=str(trusted))
        by_tls = ir.Proxy("127.0.0.1", proxy.port, tls=True)
        await plane.members(replace(dataplane.described(there, authorities), http2=True, proxy=by_tls))
        assert (await ask("/m/prod/api")).code == 200
        trusted.write_bytes(dataplane.pem(authorities.clients))
        other = replace(by_tls, authorization=f"Basic {BASIC}")
        plane.gateway = replace(plane.gateway, system_trust=str(tmp_path / "trusted.pem"))
        await plane.members(replace(dataplane.described(there, authorities), name="untrusted", proxy=other))
        assert (await ask("/m/untrusted/api")).code == 503
        assert len(proxy.asked) == 1
