"""When the data plane is shown something: for what was asked for at once, for what a probe found only if it matters."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from tests.unit.conftest import member

from onepass.access.policy import Policy
from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.controllers import publish
from onepass.controllers.publish import CLUSTERS, Publish
from onepass.gateway import members
from onepass.gateway.ir import Member
from onepass.pki import sealkeys
from onepass.registry import catalog
from onepass.registry.currentpolicy import KINDS, CurrentPolicy
from onepass.registry.mirror import Mirror
from onepass.registry.store import Store, Write
from onepass.runtime.sealer import Sealer
from onepass.runtime.sealsources import Keys
from onepass.storage.interface import Storage

Changed = Callable[[Object], Object]


@dataclass
class Plane:
    """What would be shown, and which members were made for it."""

    current: CurrentPolicy
    shown: list[tuple[Policy, dict[str, Member]]] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def policy(self) -> Policy:
        return self.current.get()

    def member(self, cluster: Object, secret: bytes | None) -> Member:
        self.made.append(meta.name(cluster))
        return members.member(cluster, secret)

    def show(self, policy: Policy, members: dict[str, Member]) -> None:
        self.shown.append((policy, members))
        self.moved.set()


@dataclass
class Site:
    store: Store
    plane: Plane
    write: Write

    async def create(self, name: str) -> None:
        await self.store.create("", member(name), self.write)

    async def update(self, name: str, change: Changed) -> None:
        await self.store.update("", name, change, self.write)

    async def status(self, name: str, **status: JSON) -> None:
        def changed(obj: Object) -> Object:
            return {**obj, "status": {**meta.section(obj, "status"), **status}}

        await self.store.update("", name, changed, replace(self.write, subresource="status"))

    async def until(self, shown: Callable[[Policy, dict[str, Member]], object]) -> None:
        async with asyncio.timeout(60):
            while not (self.plane.shown and shown(*self.plane.shown[-1])):
                self.plane.moved.clear()
                await self.plane.moved.wait()


@asynccontextmanager
async def publishing(storage: Storage, write: Write) -> AsyncGenerator[Site]:
    kinds = {each.resource.key: each for each in catalog.gateway()}
    sealer = Sealer([Keys("test", sealkeys.generate)])
    stores = {key: Store(storage, kinds[key], sealer=sealer) for key in KINDS}
    mirror = Mirror(stores)
    plane = Plane(CurrentPolicy(mirror))
    tasks = [asyncio.create_task(mirror.run())]
    try:
        await mirror.synced()
        tasks.append(asyncio.create_task(Publish(mirror, stores[CLUSTERS], plane).run()))
        yield Site(stores[CLUSTERS], plane, write)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is gathered, so that each cause is seen by itself."""
    monkeypatch.setattr(publish, "HOLD_LONGEST_SECONDS", 0)
    monkeypatch.setattr(publish, "HOLD_FOUND_SECONDS", 0)


async def test_a_gateway_without_clusters_is_shown_as_well(storage: Storage, write: Write) -> None:
    async with publishing(storage, write) as site:
        await site.until(lambda _policy, members: members == {})


async def test_status_sends_the_data_plane_nothing(storage: Storage, write: Write) -> None:
    async with publishing(storage, write) as site:
        for name in ("a", "b", "c"):
            await site.create(name)
        await site.until(lambda _policy, members: len(members) == 3)
        shown, made = len(site.plane.shown), len(site.plane.made)
        for latency in range(5):
            for name in ("a", "b", "c"):
                await site.status(name, healthy=True, latencyMilliseconds=latency)
        await site.update("b", with_name)
        await site.until(lambda _policy, members: members["b"].server_name == "b.test")
        assert len(site.plane.shown) == shown + 1, "fifteen statuses were written, and one spec"
        assert site.plane.made[made:] == ["b"], "who is not changed is not made again"


async def test_what_is_made_of_a_status_is_sent(storage: Storage, write: Write) -> None:
    async with publishing(storage, write) as site:
        await site.create("a")
        await site.status("a", alpn="h2")
        await site.until(lambda _policy, members: "a" in members and members["a"].http2)


async def test_labels_which_are_no_spec_reach_the_policy(storage: Storage, write: Write) -> None:
    async with publishing(storage, write) as site:
        await site.create("a")
        await site.until(lambda policy, _members: "a" in policy.targets)
        shown, made = len(site.plane.shown), len(site.plane.made)
        await site.update("a", lambda obj: {**obj, "metadata": {**meta.section(obj, "metadata"), "labels": {"a": "b"}}})
        await site.until(lambda _policy, _members: len(site.plane.shown) > shown)
        assert len(site.plane.made) == made
        await site.store.delete("", "a", write)
        await site.until(lambda policy, members: not policy.targets and not members)


def with_name(obj: Object) -> Object:
    spec = meta.section(obj, "spec")
    return {**obj, "spec": {**spec, "access": {**meta.section(spec, "access"), "serverName": "b.test"}}}
