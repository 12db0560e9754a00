"""The mirror: what it holds is what the store holds, whatever happens between."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import Object
from onepass.pki import sealkeys
from onepass.registry import changes, clusters, namespaces, selection, serviceaccounts
from onepass.registry.mirror import Mirror
from onepass.registry.store import Store, Write
from onepass.runtime.sealer import Sealer
from onepass.runtime.sealsources import Keys
from onepass.storage.interface import Op, Storage

SPACES, ACCOUNTS = "namespaces", "serviceaccounts"


def named(name: str) -> Object:
    return {"metadata": {"name": name}}


@asynccontextmanager
async def running(mirror: Mirror) -> AsyncIterator[None]:
    task = asyncio.create_task(mirror.run())
    try:
        async with asyncio.timeout(60):
            await mirror.synced()
            yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def stores(storage: Storage) -> dict[str, Store]:
    return {SPACES: Store(storage, namespaces.STRATEGY), ACCOUNTS: Store(storage, serviceaccounts.STRATEGY)}


async def until_quiet(mirror: Mirror, names: list[str], key: str = SPACES) -> None:
    """Waits until the mirror holds these, and fails by its deadline when it never does."""
    while [meta.name(obj) for obj in mirror.list(key)] != names:
        await mirror.changed(mirror.generation)


async def test_it_begins_with_what_is_there_and_follows(storage: Storage, write: Write) -> None:
    kinds = stores(storage)
    await kinds[SPACES].create("", named("b"), write)
    mirror = Mirror(kinds)
    async with running(mirror):
        assert [meta.name(obj) for obj in mirror.list(SPACES)] == ["b"]
        assert mirror.list(ACCOUNTS) == ()
        generation = mirror.generation
        await kinds[SPACES].create("", named("a"), write)
        assert await mirror.changed(generation) > generation
        await until_quiet(mirror, ["a", "b"])
        made = (await kinds[ACCOUNTS].create("b", named("bot"), write)).obj
        await until_quiet(mirror, ["bot"], ACCOUNTS)
        assert mirror.get(ACCOUNTS, "bot", "b") == made
        assert mirror.get(ACCOUNTS, "bot", "a") is None
        await kinds[SPACES].delete("", "b", write)
        await until_quiet(mirror, ["a"])
        assert mirror.get(SPACES, "b") is None


async def test_it_holds_what_the_store_holds(storage: Storage, write: Write) -> None:
    kinds = stores(storage)
    mirror = Mirror(kinds)
    async with running(mirror):
        await asyncio.gather(*(kinds[SPACES].create("", named(f"n{i:02}"), write) for i in range(30)))
        await asyncio.gather(*(kinds[SPACES].delete("", f"n{i:02}", write) for i in range(0, 30, 2)))
        await until_quiet(mirror, [f"n{i:02}" for i in range(1, 30, 2)])
        for obj in mirror.list(SPACES):
            assert await kinds[SPACES].get("", meta.name(obj)) == obj


async def test_a_list_that_has_not_changed_is_the_same_one(storage: Storage, write: Write) -> None:
    kinds = stores(storage)
    await kinds[SPACES].create("", named("a"), write)
    mirror = Mirror(kinds)
    async with running(mirror):
        first = mirror.list(SPACES)
        await kinds[ACCOUNTS].create("a", named("bot"), write)
        await until_quiet(mirror, ["bot"], ACCOUNTS)
        assert mirror.list(SPACES) is first


async def test_a_mirror_of_nothing_is_synced() -> None:
    async with asyncio.timeout(60):
        await Mirror({}).synced()


@pytest.mark.parametrize(
    "value",
    [
        b"{",
        b"\xff",
        b"[]",
        b"5",
        b"{}",
        b'{"metadata": 5}',
        b'{"metadata": {}}',
        b'{"metadata": {"name": "other"}}',
        b'{"metadata": {"name": "namespaces/b"}}',
    ],
    ids=["cut", "bytes", "list", "number", "empty", "no-metadata", "no-name", "name-of-another", "slash"],
)
async def test_what_no_gateway_wrote_is_passed_over_and_stops_nothing(
    storage: Storage, write: Write, value: bytes
) -> None:
    kinds, key = stores(storage), b"/registry/core/namespaces/"
    await kinds[SPACES].create("", named("a"), write)
    await storage.commit([Op(key + b"b", value), Op(key + b"\xff", value)])
    mirror = Mirror(kinds)
    async with running(mirror):
        await until_quiet(mirror, ["a"])
        await storage.commit([Op(key + b"a", value)])  # nothing is granted any more by what cannot be read
        await until_quiet(mirror, [])
        await kinds[SPACES].create("", named("c"), write)
        await until_quiet(mirror, ["c"])
    assert [meta.name(obj) for obj in (await kinds[SPACES].list("", selection.EVERYTHING)).items] == ["c"]
    with pytest.raises(ApiError, match="namespaces/b cannot be read") as refused:
        await kinds[SPACES].get("", "b")
    assert refused.value.code == 500


async def test_each_follower_hears_what_concerns_it(storage: Storage, write: Write) -> None:
    """Of a status that is written hears who follows every write, and nobody who cares for what was asked for."""
    sealer = Sealer([Keys("test", sealkeys.generate)])
    store, key = Store(storage, clusters.strategy(), sealer=sealer), clusters.RESOURCE.key
    await store.create("", cluster("a"), write)
    mirror = Mirror({key: store})
    early = mirror.follow({key: meta.resource_version})
    async with running(mirror):
        assert await early.next() == {(key, "a")}, "what is listed first is new, too"
        every = mirror.follow({key: meta.resource_version})
        heard = {each: mirror.follow({key: each}) for each in (changes.wanted, changes.exists)}
        other = mirror.follow({"namespaces": meta.resource_version})

        async def after(done: Awaitable[object]) -> tuple[changes.Names, ...]:
            await done
            found = await every.next()
            assert found
            return tuple(each.take() for each in heard.values())

        a, b, nobody = frozenset({(key, "a")}), frozenset({(key, "b")}), frozenset[tuple[str, str]]()
        assert (every.take(), *(each.take() for each in heard.values())) == (a, a, a)
        healthy = replace(write, subresource="status")
        assert await after(store.update("", "a", lambda obj: {**obj, "status": {"healthy": True}}, healthy)) == (
            nobody,
            nobody,
        )
        assert await after(store.update("", "a", labelled, write)) == (a, nobody)
        assert await after(store.create("", cluster("b"), write)) == (b, b)
        assert await after(store.delete("", "b", write)) == (b, b)
        assert other.take() == nobody
        mirror.stir()
        assert [each.take() for each in (*heard.values(), other)] == [a, a, nobody]


def labelled(obj: Object) -> Object:
    return {**obj, "metadata": {**meta.section(obj, "metadata"), "labels": {"stage": "prod"}}}


def cluster(name: str) -> Object:
    access: Object = {"endpoint": "https://member.test:6443", "insecure": True}
    return {**named(name), "spec": {"access": access}}
