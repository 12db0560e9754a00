"""The storage contract on one SQLite file: one writer thread, two reader threads, watchers fed from the commits.

Reads see every commit that was told before they were asked for. Write-ahead logging lets them go on beside the writer.
"""

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from onepass.storage import revisionlog, sqlitefile
from onepass.storage.fanout import Fanout
from onepass.storage.interface import Change, Op, Page, Progress, Record, Unavailable
from onepass.storage.revisionlog import Committed, Cursor, Stretch
from onepass.storage.sqlitethread import SQLiteThread

T = TypeVar("T")
_READERS = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a SqliteStorage. Times are seconds."""

    waiting: int = 4096  # requests that wait for a thread; more are refused as Unavailable
    batch: int = 128  # commits in one transaction of SQLite
    queue: int = 1000  # changes that wait for one watcher; beyond it the watcher reads the log
    stretch: int = 500  # changes read from the log at once, and rows that compaction deletes at once
    quiet: float = 5  # between two Progress of a quiet watch
    history: float = 300  # `run` keeps what is at least this young, and at most twice as old


async def open_sqlite(path: Path, limits: Limits | None = None) -> "SqliteStorage":
    """The storage in the file `path`, which is created (0600) when absent; its directory has to be there.

    Holds the file exclusively until close(). Raises Unusable with a sentence when the file is no database, not ours,
    of a newer schema, not accessible, or in use.
    """
    lock = await asyncio.to_thread(sqlitefile.Lock, path)
    try:
        connections = await asyncio.to_thread(sqlitefile.connect, path, 1 + _READERS)
    except BaseException:
        lock.release()
        raise
    return SqliteStorage(lock, connections, limits or Limits())


class SqliteStorage:
    """Storage on SQLite; made by open_sqlite."""

    def __init__(self, lock: sqlitefile.Lock, connections: Sequence[sqlite3.Connection], limits: Limits) -> None:
        """The first of the connections becomes the writer's, the others are the readers'."""
        self._lock = lock
        self._limits = limits
        writer, *readers = connections
        self._fanout = Fanout(revisionlog.current(writer), limits.queue)
        self._writer = SQLiteThread(writer, "IMMEDIATE", waiting=limits.waiting, batch=limits.batch)
        # One read a transaction: a long list holds up nobody but those behind it.
        self._readers = [SQLiteThread(reader, "DEFERRED", waiting=limits.waiting, batch=1) for reader in readers]
        self._turns = itertools.cycle(self._readers)

    async def get(self, key: bytes) -> Record | None:
        return await self._read(partial(revisionlog.get, key=key))

    async def range(self, prefix: bytes, *, after: bytes = b"", limit: int = 0, revision: int = 0) -> Page:
        return await self._read(
            partial(revisionlog.read, prefix=prefix, after=after, limit=min(limit, 2**31), revision=revision)
        )

    async def revision(self) -> int:
        return await self._read(revisionlog.current)

    async def commit(self, ops: Sequence[Op]) -> int:
        keys = {op.key for op in ops}
        if len(keys) < len(ops) or b"" in keys:
            raise ValueError("a commit names each key once, and none of them is empty")
        done = await self._writer.run(partial(revisionlog.commit, ops=tuple(ops)), self._publish)
        return done.revision

    async def watch(self, prefix: bytes, after: int) -> AsyncGenerator[Change | Progress]:
        watcher = self._fanout.join(prefix, after)
        told = after  # every change up to this revision has been told
        try:
            while not self._fanout.closed:
                if watcher.behind is not None:
                    # It queues again from here on; what it missed is read from the log meanwhile.
                    cursor, complete = Cursor(max(watcher.catch_up(), told)), False
                    while not complete:
                        stretch = await self._stretch(prefix, cursor)
                        for change in stretch.changes:
                            yield change
                        cursor, complete = stretch.end, stretch.complete
                    told = cursor.revision
                    yield Progress(told)
                taken = watcher.take()
                for change in taken:
                    if change.revision > told:  # else the log has told it
                        yield change
                told = max(told, taken[-1].revision) if taken else told
                if not await self._fanout.news(watcher, self._limits.quiet):
                    told = max(told, self._fanout.revision)
                    yield Progress(told)
        except Unavailable:
            if not self._fanout.closed:
                raise
        finally:
            self._fanout.leave(watcher)

    async def compact(self, revision: int) -> None:
        await self._writer.run(partial(revisionlog.compact, revision=revision))
        # In small pieces, so that commits come between them.
        while await self._writer.run(partial(revisionlog.sweep, limit=self._limits.stretch)):
            pass

    async def run(self) -> None:
        """Compact history as it grows old, until cancelled or closed."""
        while not self._fanout.closed:
            with contextlib.suppress(Unavailable):  # the next round makes up for it
                mark = await self.revision()
                await asyncio.sleep(self._limits.history)
                await self.compact(mark)

    async def close(self) -> None:
        self._fanout.close()
        for thread in (*self._readers, self._writer):
            await thread.close()
        self._lock.release()

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await next(self._turns).run(work)

    async def _stretch(self, prefix: bytes, start: Cursor) -> Stretch:
        return await self._read(partial(revisionlog.changes, prefix=prefix, start=start, limit=self._limits.stretch))

    def _publish(self, done: Committed) -> None:
        if done.changes:
            self._fanout.publish(done.revision, done.changes)
