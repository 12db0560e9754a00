"""Members that are dead, slow or hang, beside one that is well and under load: nobody but their own users notices.

Shown by order and not by time: what is asked of the healthy member is answered while what was asked of the faulty one
still hangs.
"""

import asyncio
import contextlib
from dataclasses import replace
from typing import NamedTuple

import httpx2
import pytest
from tests.protocol import dataplane, faultymembers, multiplexed
from tests.protocol.dataplane import DEADLINE, Ask, Authorities, Member, Plane, StartMember

from onepass.gateway import proto, routing, upstreams

HANGING = ("black hole", "no TLS", "no answer", "half a body", "trickle")
ENDING = ("refuses", "reset", "closes")
SILENT = ("black hole",)  # nothing of a request ever arrives
REQUESTS = 100


@pytest.mark.parametrize("fault", [*HANGING, *ENDING])
async def test_a_faulty_member_slows_no_other(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities, fault: str
) -> None:
    member = await start_member(alpn=("h2", "http/1.1"))
    good = replace(dataplane.described(member, authorities), http2=True)
    async with (
        asyncio.timeout(DEADLINE),
        faultymembers.running(fault, authorities.members) as bad,
        multiplexed.connected(plane.port, plane.context()) as client,
    ):
        await plane.members(good, replace(good, name="bad", port=bad.port, http2=False))
        watches = [client.ask("GET", "/m/prod/api/v1/pods?watch=1") for _ in range(5)]
        for watch in watches:
            await client.until(watch, begun=True)
        async with dataplane.watching(plane) as alone:
            stuck = [client.ask("GET", "/m/bad/x") for _ in range(REQUESTS)]
            if fault in HANGING and fault not in SILENT:
                await bad.has(REQUESTS)
            for _ in range(3):
                load = [client.ask("GET", "/m/prod/x") for _ in range(REQUESTS)]
                apart = await asyncio.gather(*(ask("/m/prod/x") for _ in range(10)))
                assert [(await client.until(each)).code for each in load] == [200] * REQUESTS
                assert [each.code for each in apart] == [200] * 10
            upload = client.ask("POST", "/m/prod/x", upload=100_000)
            assert (await client.until(upload)).code == 200
            if fault in HANGING:
                assert not any(each.ended for each in stuck)
            else:
                for each in stuck:
                    await client.until(each)
            member.more.set()
            await alone.expect(b"last\n\r\n0\r\n\r\n")
        for watch in watches:
            assert (await client.until(watch)).body == b"first\nlast\n"


class Told(NamedTuple):
    code: int
    message: str


UNREACHED = Told(503, 'cluster "bad" is unreachable: no connection within 5 seconds')
BROKEN = Told(502, 'cluster "bad" broke off the connection before it answered')


@pytest.mark.parametrize(
    ("fault", "method", "told"),
    [
        ("refuses", "GET", Told(503, 'cluster "bad" is unreachable: nothing listens at its endpoint')),
        ("black hole", "GET", UNREACHED),
        ("black hole", "POST", UNREACHED),
        ("no TLS", "GET", UNREACHED),
        ("no answer", "GET", Told(504, 'cluster "bad" did not answer in time')),
        ("breaks off", "GET", BROKEN),
        ("breaks off", "POST", BROKEN),
    ],
)
async def test_the_user_of_a_faulty_member_is_told_what_is_wrong(
    plane: Plane,
    ask: Ask,
    start_member: StartMember,
    authorities: Authorities,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    method: str,
    told: Told,
) -> None:
    """However often somebody asks: what failed before is not a reason of its own."""
    if told == UNREACHED:
        monkeypatch.setattr(upstreams, "_CONNECT", 0.2)
    if fault == "no answer":
        monkeypatch.setattr(routing, "_REQUEST_IDLE", 1.0)
    good = dataplane.described(await start_member(), authorities)
    async with faultymembers.running(fault, authorities.members) as bad:
        await plane.members(good, replace(good, name="bad", port=bad.port))
        answers = await asyncio.gather(*(dataplane.said(ask, "/m/bad/x", method=method) for _ in range(12)))
        for code, _, message in [*answers, await dataplane.said(ask, "/m/bad/x", method=method)]:
            assert code == told.code
            assert message.startswith(told.message)


async def test_an_answer_that_stops_is_cut_off(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "_REQUEST_IDLE", 0.2)
    good = dataplane.described(await start_member(), authorities)
    async with faultymembers.running("half a body", authorities.members) as bad:
        await plane.members(good, replace(good, name="bad", port=bad.port))
        with pytest.raises(asyncio.IncompleteReadError) as cut:
            await never_whole(ask)
    assert cut.value.partial == b"half"


async def never_whole(ask: Ask) -> None:
    """On a machine that is busy an answer may be cut off before it has begun."""
    async with asyncio.timeout(DEADLINE):
        while True:
            assert (await ask("/m/bad/x")).code == 504


async def test_reads_do_not_notice_connections_that_a_member_closes_without_a_word(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    good = dataplane.described(await start_member(), authorities)
    async with faultymembers.running("closes", authorities.members) as bad:
        await plane.members(good, replace(good, name="bad", port=bad.port))
        for _ in range(30):
            assert (await ask("/m/bad/x")).code == 200


async def test_streams_that_break_off_get_nobody_refused(
    plane: Plane, start_member: StartMember, authorities: Authorities
) -> None:
    """Each of them reaches the member, though so many in a row have ended badly."""
    good = dataplane.described(await start_member(), authorities)
    async with (
        asyncio.timeout(DEADLINE),
        faultymembers.running("reset", authorities.members) as bad,
        multiplexed.connected(plane.port, plane.context()) as client,
    ):
        await plane.members(good, replace(good, name="bad", port=bad.port))
        for _ in range(4):
            for each in [client.ask("GET", "/m/bad/x") for _ in range(20)]:
                assert (await client.until(each)).code == 200
        assert bad.arrived == 80


async def test_uploads_that_hang_leave_the_window_of_their_connection_to_others(
    plane: Plane, start_member: StartMember, authorities: Authorities
) -> None:
    good = dataplane.described(await start_member(), authorities)
    async with (
        asyncio.timeout(DEADLINE),
        faultymembers.running("no answer", authorities.members) as bad,
        multiplexed.connected(plane.port, plane.context()) as client,
    ):
        await plane.members(good, replace(good, name="bad", port=bad.port))
        # The two last stages before Envoy stops reading are its buffer (1 MiB) and the sockets' (some MiB).
        stuck = [client.ask("POST", "/m/bad/x", upload=1 << 26) for _ in range(60)]
        await bad.has(60)
        await client.stalled()
        upload = client.ask("POST", "/m/prod/x", upload=100_000)
        await client.until(upload)
        assert (upload.code, upload.left) == (200, 0)
        assert all(each.left for each in stuck)


async def test_answers_that_nobody_reads_hold_up_no_other_user_of_the_member(
    plane: Plane, authorities: Authorities
) -> None:
    async with (
        asyncio.timeout(DEADLINE),
        faultymembers.generous(authorities.members) as (member, port),
        contextlib.AsyncExitStack() as stack,
    ):
        await plane.members(replace(dataplane.described(Member(port=port), authorities), http2=True))
        gateway = f"https://localhost:{plane.port}"
        lazy, other = [
            await stack.enter_async_context(
                httpx2.AsyncClient(http2=True, verify=plane.context(), base_url=gateway, timeout=DEADLINE)
            )
            for _ in range(2)
        ]
        for _ in range(30):
            await stack.enter_async_context(lazy.stream("GET", "/m/prod/large"))
        await member.holds_up()
        assert (await other.get("/m/prod/small")).status_code == 200
        assert member.connections == 1  # they share it


async def test_a_thousand_requests_that_hang_are_a_bounded_burden(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    good = dataplane.described(await start_member(), authorities)
    async with (
        asyncio.timeout(DEADLINE),
        faultymembers.running("no answer", authorities.members) as bad,
        contextlib.AsyncExitStack() as stack,
    ):
        await plane.members(good, replace(good, name="bad", port=bad.port))
        assert (await ask("/m/prod/x")).code == 200
        before = await memory(plane)
        clients = [
            await stack.enter_async_context(multiplexed.connected(plane.port, plane.context())) for _ in range(5)
        ]
        stuck = [client.ask("GET", "/m/bad/x") for client in clients for _ in range(200)]
        await bad.has(1000)
        assert (await memory(plane) - before) / 1000 < 128 * 1024
        assert (await clients[0].until(clients[0].ask("GET", "/m/prod/x"))).code == 200
        assert not any(each.ended for each in stuck)


async def memory(plane: Plane) -> int:
    """Bytes that Envoy has allocated."""
    return int((await plane.told("/memory"))["allocated"])


def test_a_connection_has_room_for_every_stream_that_nobody_reads() -> None:
    for window in (1, proto.MEBIBYTE):
        options = upstreams.http2(window)
        streams = options.max_concurrent_streams.value
        assert options.initial_connection_window_size.value == streams * options.initial_stream_window_size.value
