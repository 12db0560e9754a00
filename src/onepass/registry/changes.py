"""What has changed of the objects in memory, for one who follows some of them.

A fleet of thousands has its statuses written all the time. Who follows says by what it tells an object from the one
before, so that it is woken by what concerns it, and is told which objects to look at.
"""

import asyncio
from collections.abc import Callable, Mapping

from onepass.api import meta
from onepass.api.meta import Object

Version = Callable[[Object], object]
Names = frozenset[tuple[str, str]]  # Resource.key, and the name of an object

_OF_EACH_WRITE = ("resourceVersion", "managedFields")


def wanted(obj: Object) -> object:
    """A Version that changes with whatever somebody asked for, and with nothing that was only found."""
    metadata = {key: value for key, value in meta.section(obj, "metadata").items() if key not in _OF_EACH_WRITE}
    return {**obj, "metadata": metadata, "status": None}


def exists(_obj: Object) -> object:
    """A Version of who cares for nothing but whether an object is there."""
    return None


class Changes:
    """The changes for one follower. It has to take them: they are kept until then, each object once."""

    def __init__(self, versions: Mapping[str, Version]) -> None:
        """`versions` by Resource.key: of other kinds nothing is heard."""
        self._versions = versions
        self._new: set[tuple[str, str]] = set()
        self._moved = asyncio.Event()
        self._count = 0

    @property
    def count(self) -> int:
        """Grows with every change."""
        return self._count

    def take(self) -> Names:
        """The objects that have changed, come or gone since the last time."""
        found = frozenset(self._new)
        self._new.clear()
        self._moved.clear()
        return found

    async def next(self) -> Names:
        """Waits until there is something to take, and takes it."""
        await self._moved.wait()
        return self.take()

    def note(self, key: str, before: Object | None, after: Object | None) -> None:
        """An object of the kind `key` is another one than before, or has come or gone."""
        version = self._versions.get(key)
        some = after if after is not None else before
        if version is None or some is None:
            return
        if before is None or after is None or meta.uid(before) != meta.uid(after) or version(before) != version(after):
            self._new.add((key, meta.name(some)))
            self.wake()

    def stir(self, key: str, obj: Object) -> None:
        """As though the object had changed."""
        if key in self._versions:
            self._new.add((key, meta.name(obj)))
            self.wake()

    def wake(self) -> None:
        self._count += 1
        self._moved.set()
