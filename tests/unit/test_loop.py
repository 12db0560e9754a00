"""The controllers' work loop: one worker a key, again on change, again after failure."""

import asyncio
from collections.abc import Awaitable, Callable

from onepass.controllers.loop import Loop


async def during(loop: Loop, body: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.create_task(loop.run())
    try:
        async with asyncio.timeout(60):
            await body()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_key_added_while_it_is_worked_on_is_worked_on_once_more_and_never_twice_at_once() -> None:
    began: asyncio.Queue[str] = asyncio.Queue()
    proceed = asyncio.Event()
    running = 0
    most = 0

    async def reconcile(key: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        began.put_nowait(key)
        await proceed.wait()
        running -= 1

    loop = Loop("test", reconcile)

    async def body() -> None:
        loop.add("a")
        assert await began.get() == "a"
        loop.add("a")
        loop.add("a")
        proceed.set()
        assert await began.get() == "a"
        await asyncio.sleep(0)
        assert began.empty()

    await during(loop, body)
    assert most == 1


async def test_a_failure_is_tried_again_and_leaves_other_keys_alone() -> None:
    done: asyncio.Queue[str] = asyncio.Queue()
    failures = 2

    async def reconcile(key: str) -> None:
        nonlocal failures
        if key == "bad" and failures:
            failures -= 1
            raise OSError("not yet")
        done.put_nowait(key)

    loop = Loop("test", reconcile, base=0.001)

    async def body() -> None:
        loop.add("bad")
        loop.add("good")
        assert {await done.get(), await done.get()} == {"bad", "good"}

    await during(loop, body)
    assert failures == 0


async def test_no_more_keys_at_once_than_workers() -> None:
    running = 0
    most = 0
    done: asyncio.Queue[str] = asyncio.Queue()

    async def reconcile(key: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        done.put_nowait(key)

    loop = Loop("test", reconcile, workers=3)

    async def body() -> None:
        for number in range(20):
            loop.add(str(number))
        assert len({await done.get() for _ in range(20)}) == 20

    await during(loop, body)
    assert most == 3


async def test_a_returned_delay_brings_the_key_back() -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def reconcile(key: str) -> float | None:
        seen.put_nowait(key)
        return 0.001

    loop = Loop("test", reconcile)

    async def body() -> None:
        loop.add("a")
        for _ in range(3):
            assert await seen.get() == "a"

    await during(loop, body)


async def test_slow_keys_never_take_all_the_workers() -> None:
    """Every slow one hangs, and the quick ones, of which there are more than workers, all get through."""
    hanging: asyncio.Queue[str] = asyncio.Queue()
    quick: asyncio.Queue[str] = asyncio.Queue()
    forever = asyncio.Event()

    async def reconcile(key: str) -> None:
        if key.startswith("slow"):
            hanging.put_nowait(key)
            await forever.wait()
        quick.put_nowait(key)

    loop = Loop("test", reconcile, workers=4, slow=lambda key: key.startswith("slow"), slow_workers=3)

    async def body() -> None:
        for number in range(20):
            loop.add(f"slow-{number}")
        for _ in range(3):
            await hanging.get()
        for number in range(20):
            loop.add(f"quick-{number}")
        assert len({await quick.get() for _ in range(20)}) == 20
        assert hanging.empty()
        forever.set()
        assert len({await quick.get() for _ in range(20)}) == 20

    await during(loop, body)


async def test_no_more_begin_in_a_time_than_the_rate_allows() -> None:
    began: list[float] = []
    done = asyncio.Event()

    async def reconcile(_key: str) -> None:
        began.append(asyncio.get_running_loop().time())
        if len(began) == 60:
            done.set()

    loop = Loop("test", reconcile, workers=60, rate=200.0)
    since = asyncio.get_running_loop().time()

    async def body() -> None:
        for number in range(60):
            loop.add(str(number))
        await done.wait()

    await during(loop, body)
    # A burst may catch up with a tenth of a second. One that may begin may be seen to only later, on a busy machine: so
    # what counts is the time from the first moment on, and not that between two of them.
    for number, when in enumerate(began):
        assert number <= (when - since + 0.1) * 200 + 1.001


async def test_a_key_that_is_forgotten_is_not_worked_on() -> None:
    done: asyncio.Queue[str] = asyncio.Queue()

    async def reconcile(key: str) -> None:
        done.put_nowait(key)

    loop = Loop("test", reconcile)

    async def body() -> None:
        loop.add("gone", 0.001)
        loop.forget("gone")
        loop.add("here", 0.002)
        assert await done.get() == "here"
        assert done.empty()

    await during(loop, body)
