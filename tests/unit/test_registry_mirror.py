"""The mirror: what it holds is what the store holds, whatever happens between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from onepass.api import meta
from onepass.api.meta import Object
from onepass.registry import namespaces, serviceaccounts
from onepass.registry.mirror import Mirror
from onepass.registry.store import Store, Write
from onepass.storage.interface import Storage

SPACES, ACCOUNTS = "namespaces", "serviceaccounts"


def named(name: str) -> Object:
    return {"metadata": {"name": name}}


@asynccontextmanager
async def running(mirror: Mirror) -> AsyncIterator[None]:
    task = asyncio.create_task(mirror.run())
    try:
        async with asyncio.timeout(10):
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
    async with asyncio.timeout(10):
        await Mirror({}).synced()
