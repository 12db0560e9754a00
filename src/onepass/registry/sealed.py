"""Records of write-only parts: each beside its object, sealed, under a key that no list and no watch comes across."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.pki import sealing
from onepass.pki.sealing import Damaged, SealError
from onepass.registry import records
from onepass.registry.strategy import Strategy
from onepass.storage.interface import Conflict, Op, Record, Storage

_ROOT = b"/secret"
OWN = _ROOT + b"/own/"  # the gateway's own keys, where replicas share them: see ownkeys


class Outdated(SealError):
    """The object is in another state than the one that was asked about."""


class Sealer(Protocol):
    """Turns a write-only part into bytes that are safe in the database; `context` binds them to their object.

    Both raise onepass.pki.sealing.SealError, and neither waits for anything.
    """

    def seal(self, secret: bytes, context: bytes) -> bytes: ...

    def unseal(self, sealed: bytes, context: bytes) -> bytes: ...


class Keys(Sealer, Protocol):
    """A sealer that knows its keys by name. All raise SealError for what is no sealed bytes."""

    def key(self, sealed: bytes) -> str: ...

    def fresh(self, sealed: bytes) -> bool:
        """Whether it is sealed as it would be now."""
        ...

    def at_hand(self, sealed: bytes) -> bool:
        """Whether there is a key to open it with now."""
        ...


@dataclass(frozen=True, slots=True)
class Records:
    """The sealed records of one storage. `bound` tells what of an object a record is bound to: see Strategy.bound."""

    storage: Storage
    sealer: Sealer
    bound: Callable[[Object], bytes]

    async def read(self, key: bytes, uid: str, generation: JSON = None) -> bytes | None:
        """The write-only part of the object `uid` at `key`; None when there is none. Raises SealError.

        With a `generation`, what belongs to another state of the object raises Outdated.
        """
        while True:
            stored, record = await self.storage.get(key), await self.storage.get(_ROOT + key)
            if record is None or stored is None:
                return None
            obj = records.readable(stored)
            if obj is None or meta.uid(obj) != uid:
                raise Damaged("it belongs to another object of that name")
            if generation is not None and meta.section(obj, "metadata").get("generation") != generation:
                raise Outdated("its object has changed meanwhile")
            try:
                return self.unsealed(record, obj)
            except SealError:
                # Both may have been written between the two reads; if not, they are what they are.
                again = await self.storage.get(key)
                if again is not None and again.modified == stored.modified:
                    raise

    async def opens(self, key: bytes, uid: str) -> bool:
        """Whether there is one, and it can be opened."""
        try:
            return await self.read(key, uid) is not None
        except SealError:
            return False

    def write(self, key: bytes, obj: Object, secret: bytes) -> Op:
        """The write that keeps it in step with its object: b"" removes it. Raises SealError."""
        return Op(_ROOT + key, self.sealer.seal(secret, self.context(_ROOT + key, obj)) if secret else None)

    def unsealed(self, record: Record, obj: Object) -> bytes:
        """Raises SealError."""
        if sealing.is_old(record.value):  # those were bound to the name and the uid only
            return self.sealer.unseal(record.value, _named(record.key, obj))
        return self.sealer.unseal(record.value, self.context(record.key, obj))

    def context(self, secret_key: bytes, obj: Object) -> bytes:
        return _named(secret_key, obj) + b"\0" + self.bound(obj)


@dataclass(slots=True)
class Census:
    """How many records each key has sealed. A key "" stands for what is no sealed bytes."""

    keys: Counter[str] = field(default_factory=Counter)
    waiting: int = 0  # those that are to be sealed anew
    closed: Counter[str] = field(default_factory=Counter)  # those of `keys` that could not be opened for that


@dataclass(frozen=True, slots=True)
class Resealing:
    """Seals the records of one kind anew, and the gateway's own keys.

    Each write is one of its own that another's write makes void.
    So it can end anywhere and begin again, and neither brings back what was deleted nor overwrites what is newer.
    """

    storage: Storage
    strategy: Strategy
    keys: Keys
    root: bytes = b"/registry"

    async def page(self, after: bytes, limit: int) -> Sequence[Record]:
        """The next records in key order; none after the last. Raises StorageError."""
        if not after or after.startswith(OWN):
            own = (await self.storage.range(OWN, after=after, limit=limit)).records
            if own:
                return own
            after = b""
        prefix = _ROOT + records.prefix(self.root, self.strategy.resource, "")
        return (await self.storage.range(prefix, after=after, limit=limit)).records

    def count(self, page: Sequence[Record], census: Census) -> None:
        """Add a page to a census."""
        for record in page:
            key, fresh = self._known(record)
            census.keys[key] += 1
            census.waiting += not fresh

    async def reseal(self, page: Sequence[Record], census: Census) -> None:
        """Seal those of a page that are not as they would be sealed now, and keep the census. Raises StorageError."""
        writes: list[tuple[str, Op]] = []
        for record in page:
            key, fresh = self._known(record)
            if fresh:
                continue
            write = await self._anew(record)
            if write is not None:
                writes.append((key, write))
            else:
                census.closed[key] += 1
        for key, write in await self._committed(writes):
            census.keys[key] -= 1
            census.keys[self.keys.key(write.value or b"")] += 1
            census.waiting -= 1

    async def _committed(self, writes: Sequence[tuple[str, Op]]) -> Sequence[tuple[str, Op]]:
        """All at once; one by one where somebody was faster with one of them."""
        if not writes:
            return ()
        try:
            await self.storage.commit([write for _, write in writes])
        except Conflict:
            if len(writes) == 1:
                return ()
            return [done for each in writes for done in await self._committed([each])]
        return writes

    async def _anew(self, record: Record) -> Op | None:
        """None for what cannot be opened, or belongs to no object any more."""
        try:
            if not self.keys.at_hand(record.value):
                return None
        except SealError:
            return None
        if record.key.startswith(OWN):
            try:
                own = self.keys.unseal(record.value, record.key)
                return Op(record.key, self.keys.seal(own, record.key), record.modified)
            except SealError:
                return None
        stored = await self.storage.get(record.key.removeprefix(_ROOT))
        obj = records.readable(stored) if stored is not None else None
        if obj is None:
            return None
        found = Records(self.storage, self.keys, self.strategy.bound)
        try:
            sealed = self.keys.seal(found.unsealed(record, obj), found.context(record.key, obj))
        except SealError:
            return None
        return Op(record.key, sealed, record.modified)

    def _known(self, record: Record) -> tuple[str, bool]:
        try:
            return self.keys.key(record.value), self.keys.fresh(record.value)
        except SealError:
            return "", False


async def is_any(storage: Storage) -> bool:
    """Whether a storage has anything that is sealed. Raises StorageError."""
    return bool((await storage.range(_ROOT + b"/", limit=1)).records)


def _named(secret_key: bytes, obj: Object) -> bytes:
    return secret_key + b"@" + meta.uid(obj).encode()
