"""A keyed work loop: one worker a key at a time, backoff on failure, a bounded number of workers.

The habit is client-go's workqueue: a key that is added while it is being worked on is worked on once more afterwards.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger(__name__)

Reconcile = Callable[[str], Awaitable[float | None]]


@dataclass(slots=True)
class Loop:
    """Calls `reconcile` with each added key; it returns after how many seconds to come back, or None.

    A failure is logged and tried again after `base` seconds, doubled each time up to `cap`, with jitter.
    """

    name: str
    reconcile: Reconcile
    workers: int = 4
    base: float = 0.2
    cap: float = 60.0
    _due: dict[str, float] = field(default_factory=dict)
    _busy: set[str] = field(default_factory=set)
    _failures: dict[str, int] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, key: str, delay: float = 0.0) -> None:
        """Work on `key` after `delay` seconds at the latest."""
        due = asyncio.get_running_loop().time() + delay
        self._due[key] = min(due, self._due.get(key, due))
        self._wake.set()

    def forget(self, key: str) -> None:
        """Drop what is planned for a key that is gone."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                now = asyncio.get_running_loop().time()
                self._wake.clear()
                ready = [k for k, due in self._due.items() if due <= now and k not in self._busy]
                for key in ready[: self.workers - len(self._busy)]:
                    del self._due[key]
                    self._busy.add(key)
                    group.create_task(self._work(key))
                waiting = [due for k, due in self._due.items() if k not in self._busy and due > now]
                timeout = min(waiting) - now if waiting else None
                # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the event.
                try:
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _work(self, key: str) -> None:
        try:
            again = await self.reconcile(key)
            self._failures.pop(key, None)
        except Exception as error:  # noqa: BLE001  the controller worker is the place where a failure becomes a retry
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            again = min(self.cap, self.base * 2.0 ** min(failures - 1, 16)) * random.uniform(0.8, 1.2)  # noqa: S311  jitter, not a secret
            log.warning("will try again", controller=self.name, key=key, error=str(error), seconds=round(again, 1))
        finally:
            self._busy.discard(key)
            self._wake.set()
        if again is not None:
            self.add(key, again)
