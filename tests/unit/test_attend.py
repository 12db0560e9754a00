"""The controller of open streams: which end, which stay, what is listed, and how little is judged twice."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import orjson
import pytest
from tests.unit.test_standing import GRANT, NOW, POLICY, acting, elsewhere

from onepass.access import standing
from onepass.access.identity import Identity
from onepass.access.policy import Policy, Subjects
from onepass.access.standing import Acting, Claim, Elsewhere, Standing
from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON
from onepass.controllers.attend import Attend
from onepass.registry import selection, streams
from onepass.registry.store import Event, Write
from onepass.registry.strategy import Actor

DEADLINE = 120.0


@dataclass(eq=False)
class Stream:
    """A companion that is told to end."""

    id: str
    told: Mapping[str, JSON]
    source: str = "192.0.2.1:5"
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = ""

    async def end(self, details: str, body: bytes) -> None:
        self.why = f"{details}: {orjson.loads(body)['message']}"
        self.ended.set()


@dataclass
class World:
    """Objects that change, and a clock."""

    policy: Policy = POLICY
    now: float = NOW
    lists: bool = False  # whether other authorities have taken something back
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    listed: asyncio.Event = field(default_factory=asyncio.Event)

    async def synced(self) -> None:
        await self.listed.wait()

    async def next(self) -> object:
        await self.moved.wait()
        self.moved.clear()
        return None

    def change(self, policy: Policy) -> None:
        self.policy = policy
        self.moved.set()


def stream(id: str, user: str = "bob", **changed: JSON) -> Stream:
    asked: dict[str, JSON] = {"method": "GET", "cluster": "prod", "path": "/api/v1/pods", "query": "watch=1"}
    return Stream(id, {"request": {"user": {"username": user, "groups": ["dev"]}}, "stream": asked | changed})


@asynccontextmanager
async def attending(world: World) -> AsyncIterator[Attend]:
    def listed(issuer: str, serial: str) -> bool:
        return world.lists and elsewhere(issuer, serial)

    keeper = Attend(world, lambda: world.policy, acting, listed, streams.Open(1000), lambda: world.now)
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def over(*those: Stream) -> None:
    async with asyncio.timeout(DEADLINE):
        for each in those:
            await each.ended.wait()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_change_ends_what_lost_its_right_and_nothing_else() -> None:
    world = World(replace(POLICY, granted=Subjects(users={"bob": (0,), "eve": (0,)})))
    world.listed.set()
    async with attending(world) as keeper:
        lost, kept = stream("1"), stream("2", "eve")
        keeper.opened(lost)
        keeper.opened(kept)
        await settled()
        assert not lost.ended.is_set()
        world.change(replace(POLICY, granted=Subjects(users={"eve": (0,)})))
        await over(lost)
        assert lost.why.startswith("onepass_right_lost: forbidden: pods is forbidden")
        await settled()
        assert not kept.ended.is_set()


async def test_what_another_authority_takes_back_ends_too() -> None:
    world = World(replace(POLICY, granted=Subjects(users={"bob": (0,)})))
    world.listed.set()
    async with attending(world) as keeper:
        lost, kept = stream("1", serial="2b", issuer="corp"), stream("2", serial="2b")
        keeper.opened(lost)
        keeper.opened(kept)
        await settled()
        assert not lost.ended.is_set()
        world.lists = True
        keeper.again()
        await over(lost)
        await settled()
        assert not kept.ended.is_set()


async def test_a_stream_that_began_under_an_older_policy_is_judged_by_the_newest() -> None:
    world = World(replace(POLICY, granted=Subjects()))
    world.listed.set()
    async with attending(world) as keeper:
        late = stream("1")
        keeper.opened(late)
        await over(late)


async def test_nothing_is_judged_before_the_objects_are_known() -> None:
    world = World(Policy())
    async with attending(world) as keeper:
        early = stream("1")
        keeper.opened(early)
        await settled()
        assert not early.ended.is_set()
        world.policy = POLICY
        world.listed.set()
        await settled()
        assert not early.ended.is_set()


async def test_a_right_ends_at_its_moment_unless_another_one_lasts() -> None:
    world = World(replace(POLICY, grants=(replace(GRANT, not_after=int(time.time()) + 2),)))
    world.listed.set()
    async with attending(world) as keeper:
        keeper.clock = time.time
        short = stream("1")
        keeper.opened(short)
        await over(short)
        assert time.time() >= (world.policy.grants[0].not_after or 0)


async def test_what_is_open_is_listed_watched_and_ended() -> None:
    world = World()
    world.listed.set()
    async with attending(world) as keeper:
        served = streams.Streams(keeper.shown, keeper.end)
        one, two = stream("a1"), stream("b2", path="/api/v1/namespaces/d/pods/x/exec", upgrade=True)
        keeper.opened(one)
        keeper.opened(two)
        listing = await served.list("", selection.EVERYTHING)
        assert [meta.name(obj) for obj in listing.items] == ["a1", "b2"]
        assert meta.section(listing.items[1], "spec")["resource"] == "pods/exec"
        chosen = selection.parse(streams.STRATEGY, fields="spec.verb=create,spec.user=bob")
        assert [meta.name(obj) for obj in (await served.list("", chosen)).items] == ["b2"]

        events = served.watch("", chosen, resource_version="", bookmarks=True)
        assert (await anext(events)).type == "ADDED"
        assert (await anext(events)).type == "BOOKMARK"
        write = Write(Actor(Identity("root"), NOW))
        await served.delete("", "b2", replace(write, dry_run=True))
        assert not two.ended.is_set()
        await served.delete("", "b2", write)
        assert two.why == "onepass_stream_ended: forbidden: this stream was ended by an administrator"
        gone: Event = await anext(events)
        assert (gone.type, meta.name(gone.obj)) == ("DELETED", "b2")
        await events.aclose()
        keeper.closed(two)
        keeper.closed(one)
        with pytest.raises(ApiError, match="not found"):
            await served.delete("", "a1", write)
        again = served.watch("", selection.EVERYTHING, resource_version="7")
        with pytest.raises(ApiError, match="too old"):
            await anext(again)


@pytest.mark.parametrize("told", [{}, {"request": {}}, {"stream": {"path": "/api/v1/watch"}}])
async def test_what_nobody_could_judge_is_ended(told: Mapping[str, JSON]) -> None:
    world = World()
    world.listed.set()
    async with attending(world) as keeper:
        odd = Stream("1", told)
        keeper.opened(odd)
        await over(odd)
        keeper.closed(odd)
        assert keeper.shown.objects == {}


async def test_equal_streams_are_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    judged: list[Claim] = []
    world.listed.set()
    plain = standing.judge

    def counted(policy: Policy, claim: Claim, now: float, acting: Acting, elsewhere: Elsewhere) -> Standing:
        judged.append(claim)
        return plain(policy, claim, now, acting, elsewhere)

    monkeypatch.setattr(standing, "judge", counted)
    async with attending(world) as keeper:
        many = [stream(str(number), "bob" if number % 2 else "eve") for number in range(1000)]
        for each in many:
            keeper.opened(each)
        await settled()
        judged.clear()
        world.change(replace(POLICY, granted=Subjects()))
        await over(*(each for each in many if each.told["request"] == many[1].told["request"]))
        assert len(judged) <= 2
