"""A thread that owns one SQLite connection and runs what it is given, several jobs in one transaction."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

from onepass.storage.interface import OutcomeUnknown, StorageError, Unavailable

T = TypeVar("T")
_Settle: TypeAlias = Callable[[], None]  # to be called on the event loop


class _Queued(Protocol):
    def run(self, connection: sqlite3.Connection) -> _Settle: ...

    def fail(self, error: StorageError) -> None: ...


@dataclass(frozen=True, slots=True)
class _Job(Generic[T]):
    work: Callable[[sqlite3.Connection], T]
    settled: Callable[[T], None]
    future: asyncio.Future[T]

    def run(self, connection: sqlite3.Connection) -> _Settle:
        try:
            return partial(self.succeed, self.work(connection))
        except StorageError as error:
            # Raised before the job has written anything, so the rest of the transaction goes on.
            return partial(self.fail, error)

    def succeed(self, result: T) -> None:
        self.settled(result)
        if not self.future.done():  # its caller may have stopped waiting
            self.future.set_result(result)

    def fail(self, error: StorageError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def _nothing(_result: object) -> None:
    pass


class SQLiteThread:
    """Jobs run in the order in which they come. Every job that waits when a transaction begins goes into it (at most
    `batch`), so that under load many commits share one flush of the disk."""

    def __init__(
        self, connection: sqlite3.Connection, mode: Literal["DEFERRED", "IMMEDIATE"], *, waiting: int, batch: int
    ) -> None:
        self._connection = connection
        self._begin = f"BEGIN {mode}"
        self._batch = batch
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.Queue[_Queued | None] = queue.Queue(waiting)
        self._closed = False
        # A daemon: a program that forgets to close its storage still ends, and loses nothing that was committed.
        self._thread = threading.Thread(target=self._work, name=f"sqlite {mode.lower()}", daemon=True)
        self._thread.start()

    async def run(
        self,
        work: Callable[[sqlite3.Connection], T],
        settled: Callable[[T], None] = _nothing,
        *,
        timeout: float = 30,
    ) -> T:
        """The result of `work`, which runs on the thread inside a transaction and may raise only before it writes.

        `settled` is called with the result on the event loop, in the order of the jobs, before the caller goes on, and
        also when the caller has gone. Raises Unavailable when too many jobs wait and when SQLite fails, and
        OutcomeUnknown after `timeout` seconds.
        """
        if self._closed:
            raise Unavailable("the storage is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        try:
            self._jobs.put_nowait(_Job(work, settled, future))
        except queue.Full as error:
            raise Unavailable("too many requests to the storage are waiting") from error
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError as error:
            raise OutcomeUnknown(f"the storage did not answer within {timeout:g} seconds") from error

    async def close(self) -> None:
        """Finish what waits, then let the connection go."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._jobs.put, None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        last = False
        try:
            while not last:
                jobs, last = self._next()
                self._loop.call_soon_threadsafe(_settle, self._transact(jobs))
        except RuntimeError:
            # The event loop is closed: nobody waits for an answer.
            if not self._loop.is_closed():
                raise
        finally:
            self._connection.close()

    def _next(self) -> tuple[Sequence[_Queued], bool]:
        """Waits for a job; returns it with those that wait behind it, and whether the end has come."""
        jobs: list[_Queued] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == self._batch:
                return jobs, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, False
        return jobs, True

    def _transact(self, jobs: Sequence[_Queued]) -> Sequence[_Settle]:
        try:
            self._connection.execute(self._begin)
            settles = [job.run(self._connection) for job in jobs]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return [partial(job.fail, _unavailable(error)) for job in jobs]
        return settles


def _settle(settles: Sequence[_Settle]) -> None:
    for settle in settles:
        settle()


def _unavailable(cause: sqlite3.Error) -> Unavailable:
    error = Unavailable(f"SQLite failed: {cause}")
    error.__cause__ = cause
    return error
