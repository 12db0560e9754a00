"""A keyed work loop: one worker a key at a time, backoff on failure, a bounded number of workers.

The habit is client-go's workqueue: a key that is added while it is being worked on is worked on once more afterwards.
"""

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger(__name__)

Reconcile = Callable[[str], Awaitable[float | None]]
_BURST = 0.1  # seconds of its rate that a loop may catch up with


def backoff(first: float, longest: float, times: int) -> float:
    """Seconds to wait after something has failed so many times in a row: `first`, doubled each time up to `longest`."""
    return min(longest, first * 2.0 ** min(times - 1, 16))


def _never(_key: str) -> bool:
    return False


@dataclass(slots=True)
class Loop:
    """Calls `reconcile` with each added key; it returns after how many seconds to come back, or None.

    A failure is logged and tried again after `base` seconds, doubled each time up to `cap`, with jitter. `rate` bounds
    how many begin in a second; of the workers at most `slow_workers` take keys that are `slow`, so that those which
    take long never keep the others waiting. No bound is 0.
    """

    name: str
    reconcile: Reconcile
    workers: int = 4
    base: float = 0.2
    cap: float = 60.0
    rate: float = 0.0
    slow: Callable[[str], bool] = _never
    slow_workers: int = 0
    _due: dict[str, float] = field(default_factory=dict)
    _planned: list[tuple[float, str]] = field(default_factory=list)  # a heap; an entry that is not in `_due` is old
    _ready: tuple[dict[str, None], dict[str, None]] = field(default_factory=lambda: ({}, {}))  # the quick, the slow
    _busy: dict[str, bool] = field(default_factory=dict)  # key to whether it is slow
    _failures: dict[str, int] = field(default_factory=dict)
    _next: float = 0.0  # when the next may begin
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, key: str, delay: float = 0.0) -> None:
        """Work on `key` after `delay` seconds at the latest."""
        due = asyncio.get_running_loop().time() + delay
        if any(key in ready for ready in self._ready) or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._planned, (due, key))
        self._wake.set()

    def forget(self, key: str) -> None:
        """Drop what is planned for a key that is gone."""
        for planned in (self._due, self._failures, *self._ready):
            planned.pop(key, None)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                now = asyncio.get_running_loop().time()
                self._wake.clear()
                self._ripen(now)
                while (key := self._startable(now)) is not None:
                    group.create_task(self._work(key))
                # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the event.
                try:
                    async with asyncio.timeout_at(self._again(now)):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    def _ripen(self, now: float) -> None:
        while self._planned and self._planned[0][0] <= now:
            due, key = heapq.heappop(self._planned)
            if self._due.get(key) == due and key not in self._busy:
                del self._due[key]
                self._ready[self.slow(key)][key] = None

    def _startable(self, now: float) -> str | None:
        """Takes the next key that may begin."""
        if len(self._busy) >= self.workers or (self.rate and now < self._next):
            return None
        quick, slow = self._ready
        held = self.slow_workers and sum(self._busy.values()) >= self.slow_workers
        ready = quick or ({} if held else slow)
        if not ready:
            return None
        key = next(iter(ready))
        del ready[key]
        self._busy[key] = ready is slow
        if self.rate:
            self._next = max(self._next, now - _BURST) + 1.0 / self.rate
        return key

    def _again(self, now: float) -> float | None:
        """When there may be something to do without having been woken."""
        times = [self._planned[0][0]] if self._planned else []
        if any(self._ready) and self._next > now:
            times.append(self._next)
        return min(times, default=None)

    async def _work(self, key: str) -> None:
        try:
            again = await self.reconcile(key)
            self._failures.pop(key, None)
        except Exception as error:  # noqa: BLE001  the controller worker is the place where a failure becomes a retry
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            again = backoff(self.base, self.cap, failures) * random.uniform(0.8, 1.2)  # noqa: S311  jitter, not a secret
            log.warning("will try again", controller=self.name, key=key, error=str(error), seconds=round(again, 1))
        finally:
            del self._busy[key]
            if key in self._due:  # added meanwhile: planned again, as what was planned may have been passed over
                heapq.heappush(self._planned, (self._due[key], key))
            self._wake.set()
        if again is not None:
            self.add(key, again)
