"""A real gRPC client against the ADS, over its unix socket."""

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from onepass.xds import ads as ads_module
from onepass.xds import stream as stream_module
from onepass.xds.snapshot import Resource, Snapshot
from onepass.xds.stream import CLUSTER, EXTENSION, LISTENER, SECRET, Rejection

Request = discovery_pb2.DeltaDiscoveryRequest
Response = discovery_pb2.DeltaDiscoveryResponse
Call = grpc.aio.StreamStreamCall[Request, Response]
PATH = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
DEADLINE = 120.0


@dataclass
class Log:
    told: list[str] = field(default_factory=list)
    rejections: asyncio.Queue[Rejection] = field(default_factory=asyncio.Queue)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    went: asyncio.Event = field(default_factory=asyncio.Event)

    def connected(self, node: str) -> None:
        self.told.append(f"connected {node}")
        self.came.set()

    def disconnected(self, node: str) -> None:
        self.told.append(f"disconnected {node}")
        self.went.set()

    def rejected(self, rejection: Rejection) -> None:
        self.rejections.put_nowait(rejection)


@dataclass
class Served:
    ads: ads_module.Ads
    path: Path
    log: Log


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    log = Log()
    ads = ads_module.Ads(log)
    path = tmp_path / "ads.sock"
    listening = asyncio.Event()
    task = asyncio.create_task(ads_module.serve(ads, str(path), listening))
    await asyncio.wait_for(listening.wait(), DEADLINE)
    yield Served(ads, path, log)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


class Client:
    def __init__(self, call: Call) -> None:
        self.call = call

    async def send(
        self,
        type_url: str,
        subscribe: tuple[str, ...] = (),
        unsubscribe: tuple[str, ...] = (),
        versions: Mapping[str, str] | None = None,
    ) -> None:
        request = Request(
            type_url=type_url,
            resource_names_subscribe=subscribe,
            resource_names_unsubscribe=unsubscribe,
            initial_resource_versions=versions or {},
        )
        request.node.id = "tester"
        await self.call.write(request)

    async def receive(self) -> Response:
        async with asyncio.timeout(DEADLINE):
            response = await self.call.read()
        assert isinstance(response, Response)
        return response

    async def answer(self, response: Response, refusal: str = "") -> None:
        request = Request(type_url=response.type_url, response_nonce=response.nonce)
        if refusal:
            request.error_detail.message = refusal
        await self.call.write(request)

    async def take(self) -> tuple[str, dict[str, bytes], list[str]]:
        """Receive and acknowledge; returns type, resources and removals."""
        response = await self.receive()
        await self.answer(response)
        return (
            response.type_url,
            {entry.name: entry.resource.value for entry in response.resources},
            list(response.removed_resources),
        )


@contextlib.asynccontextmanager
async def connect(path: Path) -> AsyncIterator[Client]:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        method = channel.stream_stream(
            PATH, request_serializer=Request.SerializeToString, response_deserializer=Response.FromString
        )
        call: Call = method(None)  # the requests come by write()
        yield Client(call)
        call.cancel()


def snapshot(**types: dict[str, str]) -> Snapshot:
    urls = {"clusters": CLUSTER, "secrets": SECRET, "listeners": LISTENER, "extensions": EXTENSION}
    return Snapshot(
        {
            urls[kind]: {name: Resource.of(body.encode()) for name, body in resources.items()}
            for kind, resources in types.items()
        }
    )


def version(body: str) -> str:
    return Resource.of(body.encode()).version


async def test_the_socket_is_for_its_owner_only(served: Served) -> None:
    assert stat.S_IMODE(served.path.stat().st_mode) == 0o600


async def test_a_wildcard_gets_everything_then_only_what_changed(served: Served) -> None:
    served.ads.set(snapshot(clusters={"a": "1", "b": "1"}))
    async with connect(served.path) as client:
        await client.send(CLUSTER)
        assert await client.take() == (CLUSTER, {"a": b"1", "b": b"1"}, [])
        served.ads.set(snapshot(clusters={"a": "1", "b": "2", "c": "1"}))
        assert await client.take() == (CLUSTER, {"b": b"2", "c": b"1"}, [])
        served.ads.set(snapshot(clusters={"a": "1", "c": "2"}))
        assert await client.take() == (CLUSTER, {"c": b"2"}, [])
        assert await client.take() == (CLUSTER, {}, ["b"])


async def test_each_resource_carries_its_type_and_version(served: Served) -> None:
    served.ads.set(snapshot(clusters={"a": "1"}))
    async with connect(served.path) as client:
        await client.send(CLUSTER, ("*",))
        response = await client.receive()
    assert [(r.name, r.version, r.resource.type_url) for r in response.resources] == [("a", version("1"), CLUSTER)]


async def test_a_wildcard_over_nothing_is_answered_so_that_nobody_waits(served: Served) -> None:
    served.ads.set(snapshot())
    async with connect(served.path) as client:
        await client.send(CLUSTER)
        assert await client.take() == (CLUSTER, {}, [])


async def test_nothing_is_taken_away_before_the_first_snapshot(served: Served) -> None:
    async with connect(served.path) as client:
        await client.send(CLUSTER, versions={"a": version("1")})
        await client.send(LISTENER)
        await asyncio.wait_for(served.log.came.wait(), DEADLINE)
        served.ads.set(snapshot(clusters={"a": "1"}, listeners={"l": "1"}))
        assert await client.take() == (LISTENER, {"l": b"1"}, [])


async def test_who_comes_back_is_sent_only_the_difference(served: Served) -> None:
    served.ads.set(snapshot(clusters={"same": "1", "new": "1", "other": "2"}))
    async with connect(served.path) as client:
        await client.send(CLUSTER, ("*",), versions={"same": version("1"), "other": version("1"), "gone": "x"})
        assert await client.take() == (CLUSTER, {"new": b"1", "other": b"2"}, [])
        assert await client.take() == (CLUSTER, {}, ["gone"])


async def test_names_are_sent_as_they_are_asked_for(served: Served) -> None:
    served.ads.set(snapshot(secrets={"s1": "1", "s2": "1", "s3": "1"}))
    async with connect(served.path) as client:
        await client.send(SECRET, ("s1",))
        assert await client.take() == (SECRET, {"s1": b"1"}, [])
        await client.send(SECRET, ("s2",))
        assert await client.take() == (SECRET, {"s2": b"1"}, [])
        served.ads.set(snapshot(secrets={"s1": "2", "s2": "1", "s3": "2"}))
        assert await client.take() == (SECRET, {"s1": b"2"}, [])


async def test_an_unknown_name_is_told_absent_and_sent_when_it_appears(served: Served) -> None:
    served.ads.set(snapshot())
    async with connect(served.path) as client:
        await client.send(SECRET, ("later",))
        assert await client.take() == (SECRET, {}, ["later"])
        served.ads.set(snapshot(secrets={"later": "1"}))
        assert await client.take() == (SECRET, {"later": b"1"}, [])
        served.ads.set(snapshot())
        assert await client.take() == (SECRET, {}, ["later"])


async def test_a_name_asked_for_again_is_sent_again(served: Served) -> None:
    served.ads.set(snapshot(secrets={"s": "1"}))
    async with connect(served.path) as client:
        for _ in range(2):
            await client.send(SECRET, ("s",))
            assert await client.take() == (SECRET, {"s": b"1"}, [])
        await client.send(SECRET, (), ("s",))
        await client.send(SECRET, ("s",))
        assert await client.take() == (SECRET, {"s": b"1"}, [])


async def test_what_was_left_is_not_sent(served: Served) -> None:
    served.ads.set(snapshot(secrets={"left": "1", "kept": "1"}))
    async with connect(served.path) as client:
        await client.send(SECRET, ("left", "kept"))
        assert await client.take() == (SECRET, {"left": b"1", "kept": b"1"}, [])
        await client.send(SECRET, ("other",), ("left",))
        assert await client.take() == (SECRET, {}, ["other"])
        served.ads.set(snapshot(secrets={"left": "2", "kept": "2"}))
        assert await client.take() == (SECRET, {"kept": b"2"}, [])


async def test_leaving_the_wildcard_keeps_the_names(served: Served) -> None:
    served.ads.set(snapshot(clusters={"a": "1", "b": "1"}))
    async with connect(served.path) as client:
        await client.send(CLUSTER, ("*", "a"))
        assert (await client.take())[1].keys() == {"a", "b"}
        await client.send(CLUSTER, ("c",), ("*",))
        assert await client.take() == (CLUSTER, {}, ["c"])
        served.ads.set(snapshot(clusters={"a": "2", "b": "2"}))
        assert await client.take() == (CLUSTER, {"a": b"2"}, [])


async def test_makes_before_it_breaks(served: Served) -> None:
    everything = {"clusters": {"x": "1"}, "secrets": {"x": "1"}, "listeners": {"x": "1"}, "extensions": {"x": "1"}}
    served.ads.set(snapshot(**everything))
    order = [SECRET, CLUSTER, LISTENER, EXTENSION]
    async with connect(served.path) as client:
        for type_url in (EXTENSION, LISTENER, SECRET, CLUSTER):
            await client.send(type_url, ("x",))
            assert (await client.take())[0] == type_url
        served.ads.set(snapshot(**{kind: {"x": "2"} for kind in everything}))
        assert [(await client.take())[0] for _ in order] == order
        served.ads.set(snapshot())
        assert [(await client.take())[::2] for _ in order] == [(url, ["x"]) for url in reversed(order)]


async def test_a_slow_client_skips_what_was_overtaken(served: Served) -> None:
    served.ads.set(snapshot(clusters={"a": "0"}))
    async with connect(served.path) as client:
        await client.send(CLUSTER)
        await client.take()
        for n in range(1, 1000):
            generation = served.ads.set(snapshot(clusters={"a": str(n)}))
        seen = [(await client.take())[1]["a"]]
        while seen[-1] != b"999":
            seen.append((await client.take())[1]["a"])
        assert len(seen) <= 2
        assert await served.ads.acknowledged(generation, timeout=DEADLINE) == ()


async def test_acknowledged_waits_for_every_client_and_type(served: Served) -> None:
    generation = served.ads.set(snapshot(clusters={"a": "1"}, listeners={"l": "1"}))
    async with connect(served.path) as one, connect(served.path) as two:
        waiting = asyncio.create_task(served.ads.acknowledged(generation, timeout=DEADLINE))
        for client in (one, two):
            await client.send(CLUSTER)
            await client.take()
        for client in (one, two):
            await client.send(LISTENER)
        response = await two.receive()  # so it is known that this one has not got all yet
        await one.take()
        with pytest.raises(TimeoutError):
            await served.ads.acknowledged(generation, timeout=0)
        assert not waiting.done()
        await two.answer(response)
        assert await waiting == ()
        assert served.ads.nodes == ("tester", "tester")


async def test_acknowledged_by_nobody_times_out(served: Served) -> None:
    generation = served.ads.set(snapshot())
    with pytest.raises(TimeoutError):
        await served.ads.acknowledged(generation, timeout=0)


async def test_a_refusal_is_narrowed_to_the_bad_resource(served: Served) -> None:
    names = [f"c{n}" for n in range(8)]
    generation = served.ads.set(snapshot(clusters=dict.fromkeys(names, "1")))
    refused = Rejection("tester", CLUSTER, ("c5",), "c5 is bad")
    accepted: set[str] = set()
    narrowed = False
    async with connect(served.path) as client:
        await client.send(CLUSTER)
        while accepted != set(names) - {"c5"} or not narrowed:
            response = await client.receive()
            got = {entry.name for entry in response.resources}
            narrowed = narrowed or got == {"c5"}
            if "c5" not in got:
                accepted |= got
            await client.answer(response, "c5 is bad" if "c5" in got else "")
        told = [await asyncio.wait_for(served.log.rejections.get(), DEADLINE) for _ in range(4)]
        assert [len(rejection.names) for rejection in told] == [8, 4, 2, 1]
        assert told[-1] == refused
        assert await served.ads.acknowledged(generation, timeout=DEADLINE) == (refused,)

        generation = served.ads.set(snapshot(clusters=dict.fromkeys(names, "1") | {"c5": "mended"}))
        assert await client.take() == (CLUSTER, {"c5": b"mended"}, [])
        assert await served.ads.acknowledged(generation, timeout=DEADLINE) == ()


async def test_a_refused_version_is_not_sent_again(served: Served) -> None:
    served.ads.set(snapshot(clusters={"a": "bad"}))
    async with connect(served.path) as client:
        await client.send(CLUSTER)
        await client.answer(await client.receive(), "no")
        served.ads.set(snapshot(clusters={"a": "bad", "b": "1"}))
        assert await client.take() == (CLUSTER, {"b": b"1"}, [])


async def test_coming_and_going_is_told(served: Served) -> None:
    served.ads.set(snapshot())
    async with connect(served.path) as client:
        await client.send(CLUSTER)
        await client.take()
        assert served.log.told == ["connected tester"]
    await asyncio.wait_for(served.log.went.wait(), DEADLINE)
    assert served.ads.nodes == ()
    assert served.log.told == ["connected tester", "disconnected tester"]


async def test_a_socket_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot listen on"):
        await ads_module.serve(ads_module.Ads(Log()), str(tmp_path / "absent" / "ads.sock"))


@pytest.mark.parametrize("turns", [1, 2, 3, 20])
async def test_it_can_be_cancelled_while_it_starts(tmp_path: Path, turns: int) -> None:
    """As it is when another part of the gateway cannot start."""
    task = asyncio.create_task(ads_module.serve(ads_module.Ads(Log()), str(tmp_path / "ads.sock")))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_late_answer_to_nothing_changes_nothing() -> None:
    stream = stream_module.Stream()
    stream.receive(Request(type_url=CLUSTER))
    stream.responses(snapshot(clusters={"a": "1"}), 1)
    assert stream.receive(Request(type_url=CLUSTER, response_nonce="77")) is None
    assert not stream.settled(1, (CLUSTER,))
    assert stream.receive(Request(type_url=CLUSTER, response_nonce="1")) is None
    assert stream.settled(1, (CLUSTER,))
