"""Which objects a controller is told to look at."""

import asyncio

from tests.unit.test_registry_mirror import SPACES, named, running, stores

from onepass.controllers import feed
from onepass.controllers.loop import Loop
from onepass.registry.mirror import Mirror
from onepass.registry.store import Write
from onepass.storage.interface import Storage


async def test_one_that_has_gone_is_looked_at_once_more_whatever_was_planned(storage: Storage, write: Write) -> None:
    kinds = stores(storage)
    mirror = Mirror(kinds)
    looks = asyncio.Queue[tuple[str, bool]]()

    async def reconcile(name: str) -> float | None:
        there = mirror.get(SPACES, name) is not None
        looks.put_nowait((name, there))
        return 3600.0 if there else None

    async with asyncio.timeout(60), running(mirror):
        following = asyncio.create_task(feed.run(mirror, SPACES, Loop("test", reconcile)))
        await kinds[SPACES].create("", named("a"), write)
        assert await looks.get() == ("a", True)
        await kinds[SPACES].delete("", "a", write)
        assert await looks.get() == ("a", False)
        await kinds[SPACES].create("", named("a"), write)
        assert await looks.get() == ("a", True)
        assert looks.empty()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
