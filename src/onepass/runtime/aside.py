"""Runs what may hang, as reading a file of a network's can, in a thread of its own, for which not even the end waits.

asyncio's own threads are few, shared, and waited for when the process stops.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def started(work: Callable[[], T]) -> asyncio.Future[T]:
    """What `work`, which raises nothing, comes to. Cancelling it leaves the thread to itself."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(found: T) -> None:
        if not result.done():
            result.set_result(found)

    def run() -> None:
        found = work()
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=run, name="aside", daemon=True).start()
    return result
