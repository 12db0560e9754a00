"""Runs what is made of coroutines beside a test that is not."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, None]], None]


@contextmanager
def running(manager: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[tuple[T, Run]]:
    """What the manager gives, and a function that runs a coroutine where that runs, until it is done."""
    begun = threading.Event()
    made: list[tuple[T, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        over = asyncio.Event()
        try:
            async with manager() as each:
                made.append((each, asyncio.get_running_loop(), over))
                begun.set()
                await over.wait()
        finally:
            begun.set()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert begun.wait(60)
        each, loop, over = made[0]
        try:
            yield each, lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(60)
        finally:
            loop.call_soon_threadsafe(over.set)
    finally:
        thread.join(30)
