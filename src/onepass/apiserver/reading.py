"""Reads bodies without keeping others waiting: what is large is read beside the event loop, one body at a time.

Reading is pure Python over every node of a document, seconds for 3 MiB of YAML, and anybody who is known may send that
much. In a thread of its own the interpreter shares its time out, so small requests go on; one thread, because each
more would take as large a share again.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
LARGE = 32 * 1024  # bytes; a body of that size is read in about a millisecond

_reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bodies")


async def read(body: bytes, how: Callable[[bytes], T]) -> T:
    """What `how` makes of a body. `how` is pure: it may run in another thread. Raises what `how` raises."""
    if len(body) < LARGE:
        return how(body)
    return await asyncio.get_running_loop().run_in_executor(_reader, how, body)
