"""From one stream of commits to many watchers, each behind a bounded queue."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from onepass.storage.interface import Change, Compacted


class Watcher:
    """One watcher's place. Either its queue holds every change since it was last taken, or it has to read the log."""

    def __init__(self, prefix: bytes, after: int, capacity: int) -> None:
        self.prefix = prefix
        # The revision after which the log has to be read, None while the queue is complete.
        self.behind: int | None = after
        self.void = False  # the log does not lead on from where it is
        self.queue: deque[Change] = deque()
        self.wake = asyncio.Event()
        self._capacity = capacity

    def offer(self, changes: Sequence[Change]) -> None:
        """Queue all changes of one commit that concern this watcher, or none of them and fall behind."""
        if self.behind is not None:
            return
        if len(self.queue) + len(changes) <= self._capacity:
            self.queue.extend(changes)
        else:
            self.behind = (self.queue or changes)[0].revision - 1
            self.queue.clear()
        self.wake.set()

    def take(self) -> Sequence[Change]:
        """Everything queued, which leaves the queue empty."""
        taken = self.queue
        self.queue = deque()
        self.wake.clear()
        return taken

    @property
    def pending(self) -> bool:
        return self.void or self.behind is not None or bool(self.queue)

    def check(self) -> None:
        """Raises Compacted when it cannot go on."""
        if self.void:
            raise Compacted(0)

    def catch_up(self) -> int:
        """Queue from here on. Returns the revision after which the log holds what was missed."""
        assert self.behind is not None
        after, self.behind = self.behind, None
        return after


class Fanout:
    """All watchers of a store. Lives on the event loop: no call waits, so each commit is told to all or to none."""

    def __init__(self, revision: int, capacity: int) -> None:
        self.revision = revision
        self.closed = False
        self._capacity = capacity
        self._watchers: set[Watcher] = set()
        self._moved = asyncio.Event()

    def join(self, prefix: bytes, after: int) -> Watcher:
        watcher = Watcher(prefix, after, self._capacity)
        self._watchers.add(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    def publish(self, revision: int, changes: Sequence[Change]) -> None:
        """Tell the commit that made `revision`; commits come in the order of their revisions."""
        self._move(revision)
        for watcher in self._watchers:
            mine = [change for change in changes if change.key.startswith(watcher.prefix)]
            if mine:
                watcher.offer(mine)

    async def news(self, watcher: Watcher, seconds: float) -> bool:
        """Waits until there is something to tell; False when nothing came for so long."""
        if not watcher.pending and not self.closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await watcher.wake.wait()
        # The queue itself and not the outcome of the wait: a commit may have come just after the time was up.
        return watcher.pending or self.closed

    async def reached(self, revision: int) -> None:
        """Returns when what was committed up to `revision` has been told."""
        while self.revision < revision and not self.closed:
            await self._moved.wait()

    def restart(self, revision: int) -> None:
        """What was committed up to `revision` cannot be told: nobody can go on from where he is."""
        self._move(revision)
        for watcher in self._watchers:
            watcher.void = True
            watcher.wake.set()

    def close(self) -> None:
        """Wake every watcher, to end."""
        self.closed = True
        self._move(self.revision)
        for watcher in self._watchers:
            watcher.wake.set()

    def _move(self, revision: int) -> None:
        self.revision = revision
        # Wakes whoever waits now; whoever comes later waits on a new event.
        self._moved.set()
        self._moved = asyncio.Event()
