"""Copies of a store that are kept by list and watch, and check each change against what they hold."""

import asyncio
from collections.abc import AsyncGenerator

from tests.contract.conftest import DEADLINE

from onepass.storage.interface import Change, Progress, Record, Storage

State = dict[bytes, Record]


def under(state: State, prefix: bytes) -> list[Record]:
    return [state[key] for key in sorted(state) if key.startswith(prefix)]


class Follower:
    """List, then watch: a copy of everything under a prefix that checks each change against what it holds."""

    def __init__(self, storage: Storage, prefix: bytes, records: list[Record], revision: int) -> None:
        self.prefix = prefix
        self.state = {record.key: record for record in records}
        self.reached = revision
        self.watch: AsyncGenerator[Change | Progress] = storage.watch(prefix, revision)

    async def reach(self, revision: int) -> None:
        """Follow until every change up to `revision` has been told."""
        async with asyncio.timeout(DEADLINE):
            while self.reached < revision:
                event = await anext(self.watch)
                if isinstance(event, Progress):
                    assert event.revision >= self.reached, "progress does not go back"
                    self.reached = event.revision
                    continue
                assert event.revision > self.reached, "nothing is told after the progress that covers it"
                assert event.key.startswith(self.prefix)
                assert event.previous == self.state.pop(event.key, None), "no change is lost or told twice"
                if event.record is not None:
                    assert event.record.modified == event.revision
                    self.state[event.key] = event.record

    @property
    def records(self) -> list[Record]:
        return under(self.state, self.prefix)


async def follow(storage: Storage, prefix: bytes) -> Follower:
    page = await storage.range(prefix)
    return Follower(storage, prefix, list(page.records), page.revision)
