"""The storage contract: an ordered map of bytes whose every change has a revision.

Modelled on etcd's key-value API as kine narrows it: one revision counter for the whole store, point and range reads at
a revision, compare-and-write of several keys in one transaction, and a watch that tells every change after a revision
once and in order. tests/contract/test_storage.py says the same as tests, and every backend passes it.

    StorageError
      Conflict       a write expected another revision of a key
      Compacted      a read or watch asks for a revision whose history is gone
      FutureRevision a read asks for a revision that is not there yet
      TooLarge       a commit is larger than the backend takes
      Unavailable    the backend does not answer, and nothing was written
        OutcomeUnknown it took a write and did not answer
      Unusable       the backend cannot be opened as it is; a person must act
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol


class StorageError(Exception):
    """Any refusal of the storage."""


class Conflict(StorageError):
    """`key` is at another revision than the write expected."""

    def __init__(self, key: bytes) -> None:
        super().__init__(f"{key!r} has changed")
        self.key = key


class Compacted(StorageError):
    """History before `oldest` is gone."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"revisions before {oldest} are compacted")
        self.oldest = oldest


class FutureRevision(StorageError):
    """The revision asked for lies after the current one."""

    def __init__(self, current: int) -> None:
        super().__init__(f"the current revision is {current}")
        self.current = current


class TooLarge(StorageError):
    """A commit is larger than the backend takes, and was not done."""


class Unavailable(StorageError):
    """The backend does not answer; nothing was written, and trying again later is right."""


class OutcomeUnknown(Unavailable):
    """The backend did not answer what it was asked, and whether a write was done is not known."""


class Unusable(StorageError):
    """The backend cannot be opened as it is; the message is a sentence for the person who started the program."""


@dataclass(frozen=True, slots=True)
class Record:
    """One key with its value. `created` is the revision of its first write since it was last absent."""

    key: bytes
    value: bytes
    created: int
    modified: int


@dataclass(frozen=True, slots=True)
class Page:
    """A range read: records in key order, the revision they hold at, and how many keys come after the last one."""

    records: Sequence[Record]
    revision: int
    remaining: int


@dataclass(frozen=True, slots=True)
class Op:
    """One write of a transaction. `value` None deletes.

    `expected` is the `modified` revision that the key must have: 0 for a key that must be absent, None for any.
    """

    key: bytes
    value: bytes | None
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One change as a watch tells it. `record` is None for a deletion; `previous` is None for a creation."""

    revision: int
    key: bytes
    record: Record | None
    previous: Record | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Every change up to `revision` has been told; what a bookmark is made of."""

    revision: int


class Storage(Protocol):
    """Ordered, versioned bytes. Safe to share between tasks of one event loop."""

    async def get(self, key: bytes) -> Record | None:
        """The record at the current revision."""
        ...

    async def range(self, prefix: bytes, *, after: bytes = b"", limit: int = 0, revision: int = 0) -> Page:
        """Records whose key starts with `prefix` and lies after `after`, at `revision` (0: the current one).

        `limit` 0 means all. Raises Compacted or FutureRevision.
        """
        ...

    async def commit(self, ops: Sequence[Op]) -> int:
        """Do every write or none; returns the new revision, which all of them share. Raises Conflict and TooLarge.

        Revisions grow; whether by one is the backend's business.

        Deleting an absent key whose `expected` is None changes nothing. When nothing changes, the current revision
        is returned. Each key stands in `ops` once at most and is not empty: anything else is a ValueError.
        """
        ...

    def watch(self, prefix: bytes, after: int) -> AsyncGenerator[Change | Progress]:
        """Every change under `prefix` with a revision greater than `after`, in order, then live, until close().

        The changes of one revision come in the order of their ops. A Progress comes when the iterator has caught up
        with the store, and from time to time (at most 10 s apart) while it is quiet. Raises Compacted or FutureRevision
        at the start, and Compacted later when the watcher has fallen behind its bounded queue so far that its next
        revision is compacted.
        """
        ...

    async def revision(self) -> int:
        """The current revision; at least 1."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget history before `revision`; what is current stays. Reads at, and watches after, it still work.

        Nothing happens when it is forgotten already. Raises FutureRevision.
        """
        ...

    async def close(self) -> None:
        """Flush and let go; open watches end."""
        ...
