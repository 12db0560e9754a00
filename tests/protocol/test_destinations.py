"""A member's name leads elsewhere: the real Envoy asks a name server that the test owns, and judges what it is told."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from tests.attack import nameserver
from tests.attack.nameserver import Nameserver
from tests.protocol import dataplane
from tests.protocol.dataplane import DEADLINE, Ask, Authorities, Plane, StartMember, said

from onepass.gateway import bootstrap, ir
from onepass.registry import destinations
from onepass.registry.destinations import Bounds
from onepass.runtime import envoy

REFUSED = 'cluster "named" is unreachable: its name leads to an address where no member may be'


@pytest.fixture
async def names() -> AsyncIterator[Nameserver]:
    with nameserver.running() as server:
        yield server


@pytest.fixture
async def named_plane(plane: Plane, names: Nameserver, short_dir: Path) -> Plane:
    """The plane again, with an Envoy that asks `names`."""
    await plane.stop("envoy")
    start = bootstrap.Start(
        "test",
        ads=str(short_dir / "ads.sock"),
        admin=str(short_dir / "admin.sock"),
        resolver=("127.0.0.1", names.port),
    )
    plane.envoy = envoy.Envoy(short_dir, bootstrap.document(start), concurrency=1)
    plane.start_envoy()
    async with asyncio.timeout(DEADLINE):
        await dataplane.opened(plane)
    return plane


def bounds(*, own: str = "", allowed: str = "", port: int = 1) -> ir.Bounds:
    """As the gateway makes them when it listens on loopback."""
    given = Bounds(True, port, frozenset(map(ip_address, own.split())), tuple(map(ip_network, allowed.split())))
    return ir.Bounds(
        tuple((str(network), each) for network, each in destinations.refused(given)), tuple(map(str, given.allowed))
    )


async def becomes(ask: Ask, wanted: tuple[int, str]) -> None:
    """Ask until the answer is that; the first ones may still be of before."""
    async with asyncio.timeout(DEADLINE):
        while True:
            answer = await ask("/m/named/api")
            if answer.code == wanted[0] and wanted[1].encode() in answer.body.replace(b'\\"', b'"'):
                return
            await asyncio.sleep(0.05)


def member(port: int, authorities: Authorities, token: str = "") -> ir.Member:
    ca = authorities.members.cert_pem.bytes()
    return ir.Member("named", "member.test", port, "127.0.0.1", ca, False, False, ir.Credential(token=token))


@pytest.mark.parametrize("token", ["", "canary"])
async def test_a_name_that_moves_is_followed_and_one_that_is_rebound_is_refused(
    named_plane: Plane, names: Nameserver, ask: Ask, start_member: StartMember, authorities: Authorities, token: str
) -> None:
    there = await start_member()
    names.zone["member.test"] = ["127.0.0.1"]
    named_plane.gateway = replace(named_plane.gateway, bounds=bounds(own="127.0.0.2"))
    await named_plane.members(member(there.port, authorities, token))
    await becomes(ask, (200, "/api"))
    for elsewhere in ("127.0.0.2", "169.254.169.254", "::ffff:127.0.0.1"):
        names.zone["member.test"] = [elsewhere]
        await becomes(ask, (503, REFUSED))
        assert await said(ask, "/m/named/api") == (503, "ServiceUnavailable", REFUSED)
    names.zone["member.test"] = ["127.0.0.1"]
    await becomes(ask, (200, "/api"))


@pytest.mark.parametrize("alpn", [("http/1.1",), ("h2",)])
async def test_open_streams_live_on_at_the_old_address_while_requests_go_to_the_new_one(
    named_plane: Plane,
    names: Nameserver,
    ask: Ask,
    start_member: StartMember,
    authorities: Authorities,
    alpn: tuple[str, ...],
) -> None:
    old = await start_member(alpn)
    new = await start_member(alpn, address="127.0.0.5", port=old.port)
    names.zone["member.test"] = ["127.0.0.1"]
    await named_plane.members(replace(member(old.port, authorities), http2=alpn == ("h2",)))
    await becomes(ask, (200, "/api"))
    reader, writer = await named_plane.connect()
    writer.write(b"GET /m/named/pods?watch=1 HTTP/1.1\r\nhost: gateway\r\n\r\n")
    async with asyncio.timeout(DEADLINE):
        await reader.readuntil(b"first\n")
        names.zone["member.test"] = ["127.0.0.5"]
        while not new.seen:
            assert (await ask("/m/named/api")).code == 200
        before = len(old.seen)
        for _ in range(5):
            assert (await ask("/m/named/api")).code == 200
        assert len(old.seen) == before
        old.more.set()
        await reader.readuntil(b"last\n")
    writer.close()


@pytest.mark.parametrize("mood", [nameserver.SERVFAIL, nameserver.SILENT])
async def test_a_name_server_that_is_away_takes_no_member_away(
    named_plane: Plane, names: Nameserver, ask: Ask, start_member: StartMember, authorities: Authorities, mood: str
) -> None:
    there = await start_member()
    elsewhere = await start_member(address="127.0.0.5", port=there.port)
    names.zone["member.test"] = ["127.0.0.1"]
    await named_plane.members(member(there.port, authorities))
    await becomes(ask, (200, "/api"))
    names.mood, asked = mood, names.asked["member.test"]
    async with asyncio.timeout(DEADLINE):
        while names.asked["member.test"] < asked + 2:
            assert (await ask("/m/named/api")).code == 200
            await asyncio.sleep(0.05)
        assert (await ask("/m/named/api")).code == 200
        if mood == nameserver.SILENT:
            return  # Envoy waits for an answer longer than a test should
        names.mood, names.zone["member.test"] = "", ["127.0.0.5"]
        while not elsewhere.seen:  # it is asked again, and followed
            assert (await ask("/m/named/api")).code == 200


async def test_a_name_that_is_gone_is_told_and_one_that_is_back_is_found(
    named_plane: Plane, names: Nameserver, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    there = await start_member()
    names.zone["member.test"] = ["127.0.0.1"]
    await named_plane.members(member(there.port, authorities))
    await becomes(ask, (200, "/api"))
    del names.zone["member.test"]
    await becomes(ask, (503, 'cluster "named" is unreachable'))
    names.zone["member.test"] = ["127.0.0.1"]
    await becomes(ask, (200, "/api"))


async def test_the_good_one_of_two_addresses_is_never_a_way_to_the_bad_one(
    named_plane: Plane, names: Nameserver, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    """No attempt to connect goes to an address that was not judged ("Happy Eyeballs" would try the next)."""
    there = await start_member()
    names.zone["member.test"] = ["127.0.0.3", "127.0.0.2"]  # nothing listens on the first; the member on both
    named_plane.gateway = replace(named_plane.gateway, bounds=bounds(own="127.0.0.2"))
    reached: list[str] = []

    async def trap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(str(writer.get_extra_info("peername")))
        writer.close()

    server = await asyncio.start_server(trap, "127.0.0.2", there.port)
    async with server:
        await named_plane.members(member(there.port, authorities))
        codes = {(await ask("/m/named/api")).code for _ in range(20)}
    assert codes == {503}
    assert not reached


async def test_the_gateways_own_port_is_refused_on_loopback_and_other_ports_are_not(
    named_plane: Plane, names: Nameserver, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    there = await start_member()
    names.zone["member.test"] = ["127.0.0.1"]
    named_plane.gateway = replace(named_plane.gateway, bounds=bounds(port=named_plane.port))
    await named_plane.members(member(named_plane.port, authorities))
    await becomes(ask, (503, REFUSED))
    await named_plane.members(member(there.port, authorities))
    await becomes(ask, (200, "/api"))


async def test_the_operators_networks_bind_names_too(
    named_plane: Plane, names: Nameserver, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    there = await start_member()
    names.zone["member.test"] = ["127.0.0.1"]
    named_plane.gateway = replace(named_plane.gateway, bounds=bounds(allowed="127.0.0.0/31 10.0.0.0/8"))
    await named_plane.members(member(there.port, authorities))
    await becomes(ask, (200, "/api"))
    named_plane.gateway = replace(named_plane.gateway, bounds=bounds(allowed="10.0.0.0/8"))
    await named_plane.members(member(there.port, authorities))
    await becomes(ask, (503, REFUSED))


async def test_an_upgrade_is_judged_as_well(
    named_plane: Plane, names: Nameserver, start_member: StartMember, authorities: Authorities
) -> None:
    there = await start_member()
    names.zone["member.test"] = ["127.0.0.1"]
    named_plane.gateway = replace(named_plane.gateway, bounds=bounds(port=there.port))
    await named_plane.members(member(there.port, authorities))
    async with asyncio.timeout(DEADLINE):
        while True:
            reader, writer = await named_plane.connect()
            writer.write(b"GET /m/named/exec HTTP/1.1\r\nhost: g\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
            answer = await dataplane.read_answer(reader)
            writer.close()
            if REFUSED.encode() in answer.body.replace(b'\\"', b'"'):
                break
            assert answer.code == 503
    assert there.connections == 0
