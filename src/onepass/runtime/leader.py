"""Which of several replicas runs the controllers: one that holds a lease in the storage, as Kubernetes' own do it.

The lease is a record that its holder writes anew every two seconds. Nobody compares clocks: whoever waits takes over
once the record has not changed for 15 s by its own clock, and the holder stops 10 s after it last began a write that
was done. These are client-go's leader election and the defaults of kube-controller-manager. What a controller writes
names the version that it has seen, so even one that stops late overwrites nothing.
"""

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Protocol

import orjson
import structlog

from onepass.storage.interface import Conflict, Op, Record, Storage, StorageError

log = structlog.get_logger(__name__)

KEY = b"/lease/controllers"
_LONGEST = 60.0  # seconds that a holder may ask to be left alone for: a record that says more holds nobody up for ever

Work = Callable[[], Coroutine[object, object, None]]


class Leader(Protocol):
    """Says who leads."""

    @property
    def leading(self) -> bool: ...

    async def during(self, work: Work) -> None:
        """Run `work` whenever this replica leads, until cancelled."""
        ...


class Sole:
    """Of a storage that is ours alone."""

    leading = True

    async def during(self, work: Work) -> None:
        await work()


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds."""

    lease: float = 15.0  # without a change, after which another takes over
    renew: float = 10.0  # without success, after which the holder stops
    retry: float = 2.0


def _identity() -> str:
    return f"{os.uname().nodename}-{uuid.uuid4().hex[:12]}"


@dataclass(slots=True)
class Election:
    """One replica's part in it."""

    storage: Storage
    terms: Terms = field(default_factory=Terms)
    identity: str = field(default_factory=_identity)
    clock: Callable[[], float] = time.monotonic
    _until: float = 0.0  # by our clock, how long the lease is surely ours; 0 when it is not
    _seen: tuple[int, float] = (0, 0.0)  # the revision of another's record, and when we first saw it
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def leading(self) -> bool:
        return self.clock() < self._until

    async def run(self) -> None:
        """Until cancelled; then the lease is given up, so that another need not wait."""
        try:
            while True:
                await self.step()
                left = self._until - self.clock()
                await asyncio.sleep(min(self.terms.retry, left) if left > 0 else self.terms.retry)
        finally:
            await self._let_go()

    async def during(self, work: Work) -> None:
        while True:
            changed = self._changed
            if self.leading:
                task = asyncio.ensure_future(work())
                try:
                    while self.leading and not task.done():
                        waiting = asyncio.ensure_future(self._changed.wait())
                        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
                        waiting.cancel()
                finally:
                    task.cancel()
                    await asyncio.wait((task,))
                if not task.cancelled():
                    task.result()  # raises what has ended it
                    return
            else:
                await changed.wait()

    async def step(self) -> None:
        """Renew the lease, or try to get it."""
        began = self.clock()
        if self._until and not self.leading:
            self._lose("it was not renewed in time")
        try:
            async with asyncio.timeout(self._until - began if self._until else self.terms.renew):
                await self._attempt(began)
        except TimeoutError:
            log.warning("the storage does not answer about the lease")
        except Conflict:
            log.debug("another was faster with the lease")
        except StorageError as error:
            log.debug("the lease cannot be read or written", error=str(error))
        if self._until and not self.leading:
            self._lose("it was not renewed in time")

    async def _attempt(self, began: float) -> None:
        record = await self.storage.get(KEY)
        holder, seconds = _read(record, self.terms.lease)
        if record is not None and holder not in ("", self.identity):
            if self._until:
                self._lose(f"{holder} has it")
            if self._seen[0] != record.modified:
                self._seen = record.modified, self.clock()
            if self.clock() - self._seen[1] < seconds:
                return
        value = orjson.dumps({"holder": self.identity, "seconds": self.terms.lease})
        await self.storage.commit([Op(KEY, value, record.modified if record else 0)])
        gained = not self._until
        self._until = began + self.terms.renew
        if gained:
            log.info("this replica runs the controllers from now on", identity=self.identity)
            self._tell()

    def _lose(self, why: str) -> None:
        log.warning("this replica no longer runs the controllers", why=why)
        self._until = 0.0
        self._tell()

    def _tell(self) -> None:
        # Wakes whoever waits now; whoever comes later waits on a new event.
        self._changed.set()
        self._changed = asyncio.Event()

    async def _let_go(self) -> None:
        if not self._until:
            return
        self._until = 0.0
        with contextlib.suppress(StorageError, TimeoutError):
            async with asyncio.timeout(self.terms.retry):
                record = await self.storage.get(KEY)
                if record is not None and _read(record, 0.0)[0] == self.identity:
                    await self.storage.commit([Op(KEY, orjson.dumps({"holder": ""}), record.modified)])


def _read(record: Record | None, usual: float) -> tuple[str, float]:
    """The holder, and how many seconds without a change it is to be left alone."""
    if record is None:
        return "", usual
    try:
        told = orjson.loads(record.value)
        seconds = float(told.get("seconds", usual))
        # Less than ours would make two leaders of a holder that renews in time; what is no number is ours as well.
        return str(told["holder"]), min(seconds, max(usual, _LONGEST)) if seconds > usual else usual
    except (ValueError, TypeError, KeyError, AttributeError):
        return "a record that cannot be read", usual
