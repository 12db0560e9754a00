"""The storage contract on etcd (3.4 and later), for several programs at once.

One watch on the whole store feeds the watchers of this program; one that comes late or falls behind reads what it
missed by a watch of its own. Reads are linearizable: each sees every commit that was told, by any program, before it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import structlog
from aetcd.rpc import rpc_pb2

from onepass.storage import etcdmessages
from onepass.storage.etcdclient import COMPACT, RANGE, TXN, Access, Client, Patience, Refused
from onepass.storage.etcdmessages import FORMAT, Keyspace
from onepass.storage.fanout import Fanout
from onepass.storage.interface import (
    Change,
    Compacted,
    Conflict,
    FutureRevision,
    Op,
    Page,
    Progress,
    Record,
    StorageError,
    Unavailable,
    Unusable,
)

log = structlog.get_logger(__name__)

_TRIES = 100  # of what others keep getting in the way of


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of an EtcdStorage. Times are seconds."""

    queue: int = 1000  # changes that wait for one watcher; beyond it the watcher reads etcd
    page: int = 1000  # records read at once
    quiet: float = 5  # between two Progress of a quiet watch
    history: float = 300  # `run` keeps what is at least this young, and at most twice as old; 0 keeps everything
    told: float = 1  # how long a commit that is done waits for the watchers to be told
    tick: float = 60  # how often `run` looks
    pause: float = 0.2  # before the feeding watch is tried again when no server answers
    patience: Patience = field(default_factory=Patience)


async def open_etcd(access: Access, prefix: str, limits: Limits | None = None) -> "EtcdStorage":
    """The storage under `prefix`, which is made when absent. Raises Unavailable, and Unusable with a sentence when
    etcd refuses us or what is there was written by a newer version."""
    limits = limits or Limits()
    client, space = Client(access, limits.patience), Keyspace.under(prefix)
    try:
        return EtcdStorage(client, space, await _anchor(client, space), limits)
    except Refused as error:
        await client.close()
        raise Unusable(f"etcd refuses to be the storage: {error}") from error
    except BaseException:
        await client.close()
        raise


class EtcdStorage:
    """Storage on etcd; made by open_etcd."""

    def __init__(self, client: Client, space: Keyspace, revision: int, limits: Limits) -> None:
        """`revision` is that of the newest change of the store."""
        self._client = client
        self._space = space
        self._limits = limits
        self._fanout = Fanout(revision, limits.queue)
        self._newest = revision  # of the changes that the fan-out has told or skipped
        self._committing = 0
        self._settled = asyncio.Event()
        # The counterpart of SQLite's threads: it belongs to the storage and ends with it.
        self._feeding = asyncio.create_task(self._feed(), name="etcd watch")

    async def get(self, key: bytes) -> Record | None:
        self._open()
        answer = await self._client.call(RANGE, rpc_pb2.RangeRequest(key=self._space.data + key))
        return self._space.record(answer.kvs[0]) if answer.kvs else None

    async def revision(self) -> int:
        self._open()
        return (await self._client.call(RANGE, rpc_pb2.RangeRequest(key=self._space.tip))).header.revision

    async def range(self, prefix: bytes, *, after: bytes = b"", limit: int = 0, revision: int = 0) -> Page:
        self._open()
        for _ in range(_TRIES):
            try:
                return await self._range(prefix, after, limit, revision)
            except FutureRevision as early:
                raise FutureRevision(await self.revision()) from early
            except Compacted as gone:
                if revision:
                    raise await self._compacted() from gone
        raise Unavailable("etcd forgets its history faster than a list can be read")

    async def commit(self, ops: Sequence[Op]) -> int:
        keys = {op.key for op in ops}
        if len(keys) < len(ops) or b"" in keys:
            raise ValueError("a commit names each key once, and none of them is empty")
        self._open()
        self._committing += 1
        try:
            for _ in range(_TRIES):
                revision = await self._commit(ops)
                if revision:
                    return revision
        finally:
            self._committing -= 1
            if not self._committing:
                self._settled.set()
        raise Unavailable("other writers keep getting in the way; nothing was written")

    async def watch(self, prefix: bytes, after: int) -> AsyncGenerator[Change | Progress]:
        watcher = self._fanout.join(prefix, after)
        told, behind = after, True  # every change up to `told` has been told
        try:
            if after > self._fanout.revision and after > (now := await self.revision()):
                raise FutureRevision(now)
            while not self._fanout.closed:
                watcher.check()
                if watcher.behind is not None:
                    # It queues again from here on; what it missed is read from etcd meanwhile.
                    start, newest = max(watcher.catch_up(), told), self._newest
                    told = max(start, self._fanout.revision)
                    if start < newest:
                        async with aclosing(self._missed(prefix, start, newest)) as missed:
                            async for change in missed:
                                yield change
                    behind = True
                taken = watcher.take()
                for change in taken:
                    if change.revision > told:  # else it has been told
                        yield change
                told = max(told, taken[-1].revision) if taken else told
                if behind and not watcher.pending:
                    behind = False
                    yield Progress(told)
                if not await self._fanout.news(watcher, self._limits.quiet):
                    told = max(told, self._fanout.revision)
                    yield Progress(told)
        except Unavailable:
            if not self._fanout.closed:
                raise
        except Compacted as gone:
            raise gone if gone.oldest else await self._compacted() from gone
        finally:
            self._fanout.leave(watcher)

    async def compact(self, revision: int) -> None:
        self._open()
        if revision < 1:
            return
        try:
            await self._client.call(COMPACT, rpc_pb2.CompactionRequest(revision=revision))
        except Compacted:
            pass  # somebody was there before
        except FutureRevision as early:
            raise FutureRevision(await self.revision()) from early

    async def run(self) -> None:
        """Compact history as it grows old, and keep up with an etcd that others write to, until cancelled or closed."""
        mark, since = 0, asyncio.get_running_loop().time()
        while not self._fanout.closed:
            await asyncio.wait((self._feeding,), timeout=self._limits.tick)
            if self._feeding.done() and not self._fanout.closed:
                await self._feeding  # raises what has ended it
            try:
                now = await self.revision()
                if now > self._fanout.revision:
                    # Others have written. The watchers learn from a change of our own that they have missed nothing.
                    await self._client.call(TXN, rpc_pb2.TxnRequest(success=[self._space.touch()]))
                age = asyncio.get_running_loop().time() - since
                if self._limits.history and (not mark or age >= self._limits.history):
                    await self.compact(mark)
                    mark, since = now, asyncio.get_running_loop().time()
            except Unavailable as error:  # the next round makes up for it
                log.debug("cannot look after the history of etcd", error=str(error))

    async def close(self) -> None:
        self._fanout.close()
        while self._committing:
            self._settled.clear()
            await self._settled.wait()
        self._feeding.cancel()
        await asyncio.wait((self._feeding,))
        await self._client.close()

    def _open(self) -> None:
        if self._fanout.closed:
            raise Unavailable("the storage is closed")

    async def _range(self, prefix: bytes, after: bytes, limit: int, revision: int) -> Page:
        """In pieces, so that neither etcd nor the event loop is held for long; each at the revision of the first."""
        records: list[Record] = []
        while True:
            piece = min(limit - len(records), self._limits.page) if limit else self._limits.page
            request = self._space.page(prefix, records[-1].key if records else after, piece, revision)
            answer = await self._client.call(RANGE, request)
            revision = revision or answer.header.revision
            records += map(self._space.record, answer.kvs)
            remaining = answer.count - len(answer.kvs)
            if not remaining or len(records) == limit:
                return Page(records, revision, remaining)

    async def _commit(self, ops: Sequence[Op]) -> int:
        """The revision, or 0 when another writer came in between and it is to be tried again. Raises Conflict."""
        wanted = ops
        if all(op.value is None and not op.expected for op in ops):
            # A commit that changes nothing must not write the tip: only what is there is deleted.
            look = await self._client.call(TXN, self._space.look(ops))
            found = etcdmessages.revisions(look)
            _expect(ops, found)
            if not any(found):
                return look.header.revision
            wanted = [replace(op, expected=at) for op, at in zip(ops, found, strict=True)]
        answer = await self._client.call(TXN, self._space.transaction(wanted))
        if answer.succeeded:
            # Watchers of this program know of a commit when it is done, as they do with SQLite.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.told):
                    await self._fanout.reached(answer.header.revision)
            return answer.header.revision
        _expect(ops, etcdmessages.revisions(answer))
        return 0

    async def _missed(self, prefix: bytes, after: int, newest: int) -> AsyncGenerator[Change]:
        """The changes after revision `after`, to the end of `newest`, which has one."""
        async with aclosing(self._client.watch(self._space.watch(after))) as responses:
            async for response in responses:
                for revision, changes in self._space.commits(response, after):
                    for change in changes:
                        if change.key.startswith(prefix):
                            yield change
                    if revision >= newest:
                        return

    async def _feed(self) -> None:
        """Tell every change to the fan-out, whatever becomes of etcd meanwhile."""
        away = False
        while True:
            try:
                async with aclosing(self._client.watch(self._space.watch(self._fanout.revision))) as responses:
                    async for response in responses:
                        if away:
                            log.info("etcd answers again")
                        away = False
                        await self._heard(response)
            except Compacted:
                await self._skip()
            except StorageError as error:
                if not away:
                    log.warning("the watch on etcd has ended and is tried again", error=str(error))
                away = True
                await asyncio.sleep(self._limits.pause)

    async def _heard(self, response: rpc_pb2.WatchResponse) -> None:
        told = self._fanout.revision
        if response.created and response.header.revision < told and await self.revision() < told:
            log.error("etcd has gone back to an earlier revision: it was restored, or is another one")
            raise Compacted(0)
        for revision, changes in self._space.commits(response, told):
            self._newest = revision
            self._fanout.publish(revision, changes)

    async def _skip(self) -> None:
        """What has happened since the last change is not to be had: every watcher has to begin anew."""
        with contextlib.suppress(StorageError):  # it is tried again
            self._newest = await _anchor(self._client, self._space)
            self._fanout.restart(self._newest)

    async def _compacted(self) -> Compacted:
        return Compacted(await self._client.oldest(self._space.tip))


def _expect(ops: Sequence[Op], found: Sequence[int]) -> None:
    for op, at in zip(ops, found, strict=True):
        if op.expected is not None and op.expected != at:
            raise Conflict(op.key)


async def _anchor(client: Client, space: Keyspace) -> int:
    """The revision of the newest change of the store: one is made if that of the tip is not surely it."""
    answer = await client.call(RANGE, rpc_pb2.RangeRequest(key=space.tip))
    if answer.kvs and answer.kvs[0].value != FORMAT:
        raise Unusable(
            f"what etcd has under {space.root.decode()} was written by a newer onepass: use that version, or a backup"
        )
    if answer.kvs and answer.kvs[0].mod_revision == answer.header.revision:
        return answer.header.revision
    return (await client.call(TXN, rpc_pb2.TxnRequest(success=[space.touch()]))).header.revision
