"""A member with several endpoints: the real Envoy leaves one that fails, and repeats nothing that may change things."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any  # what Envoy tells is JSON

import pytest
from tests.programs import connectproxy, forwarder
from tests.programs.forwarder import Forwarder
from tests.protocol import dataplane, faultymembers
from tests.protocol.dataplane import DEADLINE, PATIENCE, Ask, Authorities, Member, Plane, StartMember, said

from onepass.gateway import ir, proto, several, upstreams

Doors = tuple[Forwarder, Forwarder]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Envoy asks every place ten times a second how it is, and takes none that is slow to say so for one that fails."""
    monkeypatch.setattr(several, "_INTERVAL", 0.1)
    monkeypatch.setattr(several, "_TIMEOUT", PATIENCE)
    left_out = upstreams._OUTLIERS.__class__()
    left_out.CopyFrom(upstreams._OUTLIERS)
    for each in (left_out.interval, left_out.base_ejection_time):
        each.CopyFrom(proto.seconds(0.2))
    monkeypatch.setattr(upstreams, "_OUTLIERS", left_out)


@contextlib.asynccontextmanager
async def doors(port: int) -> AsyncIterator[Doors]:
    """Two ways to what listens at `port`."""
    async with forwarder.running(port) as first, forwarder.running(port) as second:
        yield first, second


def at(member: ir.Member, places: Doors) -> ir.Member:
    return replace(member, port=places[0].port, others=(("127.0.0.1", places[1].port),), health="/readyz")


def asked(member: Member) -> int:
    """How many requests came, beside those of Envoy itself."""
    return sum(seen.path != "/readyz" for seen in member.seen)


async def until(so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while True:
            if await so():
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ["addresses", "names", "behind a proxy", "http2"])
async def test_a_place_goes_and_comes_back_and_no_read_fails(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities, kind: str
) -> None:
    there = await start_member(alpn=("h2", "http/1.1"))
    answers: list[int] = []
    failed: list[bytes] = []

    over = asyncio.Event()

    async def load() -> None:
        while not over.is_set():
            answer = await ask("/m/prod/api")
            answers.append(answer.code)
            if answer.code != 200:
                failed.append(answer.body)

    async with contextlib.AsyncExitStack() as stack:
        places = await stack.enter_async_context(doors(there.port))
        member = replace(at(dataplane.described(there, authorities), places), http2=kind == "http2")
        if kind == "names":
            member = replace(member, host="localhost", others=(("localhost", places[1].port),))
        if kind == "behind a proxy":
            proxy = await stack.enter_async_context(connectproxy.running())
            member = replace(member, proxy=ir.Proxy("127.0.0.1", proxy.port))
        await show(plane, ask, member)
        tasks = [asyncio.create_task(load()) for _ in range(4)]
        for number, (place, other) in enumerate((places, places[::-1])):
            await until(functools.partial(_more, answers, len(answers) + 20))
            await place.stop()
            await until(functools.partial(_more, answers, len(answers) + 40))
            taken = place.taken
            await place.start()
            await until(functools.partial(_well, plane))
            # What the main thread lets in again its workers hear of a second later, at the latest.
            asked = await _requests(plane, number)
            await until(functools.partial(_asked, plane, number, asked + 2))
            assert place.taken > taken
            assert other.taken
        over.set()
        await asyncio.gather(*tasks)
    assert failed == []
    assert not any("x-envoy-retry-on" in seen.headers for seen in there.seen)


async def show(plane: Plane, ask: Ask, member: ir.Member) -> None:
    """Until every place has said how it is, Envoy does not use a cluster."""
    await plane.members(member)
    await until(lambda: _answered(ask))


async def _answered(ask: Ask) -> bool:
    return (await ask("/m/prod/api")).code == 200


async def _more(answers: list[int], enough: int) -> bool:
    return len(answers) >= enough


async def _hosts(plane: Plane) -> list[dict[str, Any]]:
    """What Envoy tells of each place."""
    told = (await plane.told("/clusters?format=json"))["cluster_statuses"]
    (hosts,) = [each["host_statuses"] for each in told if each["name"] == "member/prod"]
    assert len(hosts) == 2
    return list(hosts)


async def _well(plane: Plane) -> bool:
    failures = ("failed_outlier_check", "failed_active_health_check")
    return not any(host["health_status"].get(failure) for host in await _hosts(plane) for failure in failures)


async def _requests(plane: Plane, number: int) -> int:
    stats = (await _hosts(plane))[number]["stats"]
    return sum(int(each.get("value", 0)) for each in stats if each["name"] == "rq_total")


async def _asked(plane: Plane, number: int, enough: int) -> bool:
    return await _requests(plane, number) >= enough


@pytest.mark.parametrize(
    ("method", "headers", "times"),
    [
        ("GET", {}, 2),
        ("POST", {"content-length": "0"}, 1),
        ("PATCH", {"content-length": "0"}, 1),
        ("DELETE", {}, 1),
        ("GET", {"connection": "Upgrade", "upgrade": "websocket"}, 1),
        ("POST", {"connection": "Upgrade", "upgrade": "spdy/3.1"}, 1),
    ],
    ids=["get", "post", "patch", "delete", "websocket", "spdy"],
)
async def test_what_may_have_been_done_is_not_done_again(
    plane: Plane, ask: Ask, authorities: Authorities, method: str, headers: dict[str, str], times: int
) -> None:
    """The member reads the request, and breaks off without a word."""
    async with faultymembers.running("breaks off", authorities.members) as bad, doors(bad.port) as places:
        member = at(dataplane.described(Member(), authorities), places)
        # Of names Envoy itself asks nothing.
        await plane.members(replace(member, host="localhost", others=(("localhost", places[1].port),)))
        await until(lambda: _known(ask))
        before = bad.arrived
        assert (await ask("/m/prod/x", method, headers)).code == 502
        assert bad.arrived - before == times


async def _known(ask: Ask) -> bool:
    """Whether the names have been looked up."""
    return (await ask("/m/prod/known")).code == 502


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_nobody_has_seen_is_asked_of_the_next(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities, method: str, closed_port: int
) -> None:
    there = await start_member()
    dead = tuple(("127.0.0.1", port) for port in (there.port, closed_port))
    member = replace(dataplane.described(there, authorities), host="localhost", port=closed_port, others=dead)
    await show(plane, ask, member)  # one of them by name: Envoy does not know before it asks
    for _ in range(10):
        assert (await ask("/m/prod/x", method, {"content-length": "0"})).code == 200


async def test_a_place_that_hangs_is_left_for_the_other(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(several, "_TIMEOUT", 3.0)
    monkeypatch.setattr(upstreams, "_CONNECT", 10.0)
    there = await start_member()
    async with doors(there.port) as places:
        places[0].silent = True
        await show(plane, ask, at(dataplane.described(there, authorities), places))
        for _ in range(20):
            assert (await ask("/m/prod/api")).code == 200


async def test_when_all_are_gone_this_is_said_and_the_first_to_come_back_is_used(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    there = await start_member()
    async with doors(there.port) as places:
        await show(plane, ask, at(dataplane.described(there, authorities), places))
        for place in places:
            await place.stop()
        for _ in range(5):
            code, reason, told = await said(ask, "/m/prod/api")
            assert (code, reason) == (503, "ServiceUnavailable")
            assert told.startswith('cluster "prod" is unreachable')
        await places[1].start()
        await until(lambda: _answered(ask))


async def test_a_place_with_another_certificate_never_gets_a_request(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    there, stranger = await start_member(), await start_member(identity="somebody.else")
    member = replace(dataplane.described(there, authorities), credential=ir.Credential(token="canary"))
    await show(plane, ask, replace(member, others=(("127.0.0.1", stranger.port),), health="/readyz"))
    for _ in range(20):
        assert (await ask("/m/prod/api")).code == 200
    assert not stranger.seen


async def test_a_place_that_says_it_is_not_ready_is_asked_nothing(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    ready, going = await start_member(), await start_member()
    member = replace(dataplane.described(ready, authorities), credential=ir.Credential(token="canary"))
    await show(plane, ask, replace(member, others=(("127.0.0.1", going.port),), health="/readyz"))

    async def both() -> bool:
        await ask("/m/prod/api")
        return asked(ready) > 0 and asked(going) > 0

    await until(both)
    going.ready = False

    async def left() -> bool:
        before = asked(going)
        for _ in range(10):
            await ask("/m/prod/api")
        return asked(going) == before

    await until(left)
    going.ready = True
    before = asked(going)

    async def back() -> bool:
        await ask("/m/prod/api")
        return asked(going) > before

    await until(back)
    questions = [seen for member in (ready, going) for seen in member.seen if seen.path == "/readyz"]
    assert questions
    assert not any("authorization" in seen.headers for seen in questions)


async def test_the_watches_of_the_other_place_live_on(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    there = await start_member()
    async with doors(there.port) as places, contextlib.AsyncExitStack() as stack:
        await show(plane, ask, at(dataplane.described(there, authorities), places))
        streams = [await stack.enter_async_context(dataplane.watching(plane)) for _ in range(6)]
        await places[0].stop()
        there.more.set()
        ended = await asyncio.gather(*(stream.expect(b"last\n\r\n") for stream in streams), return_exceptions=True)
        assert {type(each) for each in ended} == {asyncio.IncompleteReadError, type(None)}
        there.more.clear()
        async with dataplane.watching(plane):
            pass
