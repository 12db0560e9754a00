"""Seals credentials anew when the key that seals has changed, and counts which key has sealed how many.

Each record is a write of its own, so a stop in between loses nothing: the next round goes on with what is left.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from onepass.registry.sealed import Census
from onepass.storage.interface import Record, StorageError

log = structlog.get_logger(__name__)

PAGE = 100  # records in one transaction; etcd takes 128 writes in one
ROUND_SECONDS = 60.0  # between two rounds without a change: another replica may have written with another key
_TELL_SECONDS = 5.0


class Records(Protocol):
    """The sealed records, in key order; the registry's Resealing in disguise."""

    async def page(self, after: bytes, limit: int) -> Sequence[Record]: ...

    def count(self, page: Sequence[Record], census: Census) -> None: ...

    async def reseal(self, page: Sequence[Record], census: Census) -> None: ...


@dataclass(slots=True)
class Reseal:
    """The controller. `census` is what the last round found, and grows truer while one is under way."""

    records: Records
    may: Callable[[], bool] = lambda: True  # seal anew: one of several replicas does, and all count
    clock: Callable[[], float] = time.monotonic
    census: Census = field(default_factory=Census)
    rounds: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _told: object = None

    def again(self) -> None:
        """Keys have changed: begin a round soon."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.round()
            except StorageError as error:
                log.warning("credentials cannot be sealed anew, it is tried again", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROUND_SECONDS):
                    await self._wake.wait()

    async def round(self) -> None:
        """Count all, then seal anew what is not as it would be sealed now. Raises StorageError."""
        census, after = Census(), b""
        while page := await self.records.page(after, PAGE):
            self.records.count(page, census)
            after = page[-1].key
        self.census = census
        begun, after, told = census.waiting if self.may() else 0, b"", self.clock()
        if begun:
            log.info("sealing credentials anew", waiting=begun, of=census.keys.total())
        while begun and (page := await self.records.page(after, PAGE)):
            await self.records.reseal(page, census)
            after = page[-1].key
            if self.clock() - told > _TELL_SECONDS:
                told = self.clock()
                log.info("sealing credentials anew", waiting=census.waiting, of=census.keys.total())
        if begun:
            self._tell(begun, census)
        self.rounds += 1

    def _tell(self, begun: int, census: Census) -> None:
        """Once, however many rounds find the same."""
        closed = {key or "(no sealed bytes)": count for key, count in census.closed.items()}
        if begun > census.waiting:
            log.info("credentials are sealed anew", sealed=begun - census.waiting, left=census.waiting)
        if closed and closed != self._told:
            log.warning("credentials cannot be opened: their clusters say why, and what to do", by_key=closed)
        self._told = closed
