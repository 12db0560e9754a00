"""The lease of the controllers: one replica has it, whatever the storage does."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from onepass.runtime.leader import KEY, Election, Sole, Terms
from onepass.storage import sqlite
from onepass.storage.interface import Op, Record, Unavailable
from onepass.storage.sqlite import SqliteStorage


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Reach:
    """One replica's way to the storage, which can be cut."""

    def __init__(self, storage: SqliteStorage) -> None:
        self.storage = storage
        self.cut = False
        self.lost = False  # what is written is done, and nobody is told

    async def get(self, key: bytes) -> Record | None:
        if self.cut:
            raise Unavailable("cut")
        return await self.storage.get(key)

    async def commit(self, ops: Sequence[Op]) -> int:
        if self.cut:
            raise Unavailable("cut")
        done = await self.storage.commit(ops)
        if self.lost:
            raise Unavailable("whether the write was done is not known")
        return done


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteStorage]:
    opened = await sqlite.open_sqlite(tmp_path / "lease.db")
    yield opened
    await opened.close()


def replica(storage: SqliteStorage, name: str, clock: Clock) -> tuple[Election, Reach]:
    reach = Reach(storage)
    return Election(reach, Terms(), name, clock), reach  # type: ignore[arg-type]


async def test_the_first_has_it_and_the_others_wait_until_it_is_not_renewed(storage: SqliteStorage) -> None:
    clock = Clock()
    (first, way), (second, _) = replica(storage, "first", clock), replica(storage, "second", clock)
    await first.step()
    await second.step()
    assert (first.leading, second.leading) == (True, False)
    for _ in range(20):
        clock.now += 2
        await first.step()
        await second.step()
        assert (first.leading, second.leading) == (True, False)
    way.cut = True
    led = []
    while not second.leading:
        clock.now += 1
        await first.step()
        await second.step()
        assert not (first.leading and second.leading)
        led.append(first.leading)
    assert led.count(True) == 9  # ten seconds after it began the last write that was done it stops
    assert len(led) == 15  # and five later another has it
    way.cut = False
    await first.step()
    assert (first.leading, second.leading) == (False, True)


async def test_a_holder_that_is_not_scheduled_in_time_does_not_lead_for_that_moment(storage: SqliteStorage) -> None:
    clock = Clock()
    first, _ = replica(storage, "first", clock)
    await first.step()
    clock.now += 10
    assert not first.leading
    await first.step()
    assert first.leading  # nobody had taken it


async def test_a_renewal_whose_outcome_is_not_known_loses_nothing(storage: SqliteStorage) -> None:
    clock = Clock()
    first, way = replica(storage, "first", clock)
    await first.step()
    way.lost = True
    clock.now += 2
    await first.step()
    way.lost = False
    clock.now += 2
    await first.step()
    clock.now += 9
    assert first.leading


async def test_whoever_comes_with_a_clock_of_its_own_waits_a_whole_lease(storage: SqliteStorage) -> None:
    there, late = Clock(), Clock()
    late.now = 1_000_000.0
    (first, _), (second, _) = replica(storage, "first", there), replica(storage, "second", late)
    await first.step()
    await second.step()
    late.now += 14
    await second.step()
    assert not second.leading
    late.now += 1
    await second.step()
    assert second.leading


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"holder": null}', b'{"holder": "x", "seconds": "soon"}'])
async def test_a_record_that_cannot_be_read_is_taken_over_after_a_lease(storage: SqliteStorage, value: bytes) -> None:
    clock = Clock()
    await storage.commit([Op(KEY, value or b" ")])
    first, _ = replica(storage, "first", clock)
    await first.step()
    assert not first.leading
    clock.now += 15
    await first.step()
    assert first.leading


@pytest.mark.parametrize(
    ("seconds", "waits"),
    [("1e12", 60), ('"inf"', 60), ("-1e12", 15), ("0", 15), ('"nan"', 15), ('"-inf"', 15), ("20", 20)],
    ids=["huge", "without-end", "negative", "none", "no-number", "endlessly-negative", "longer"],
)
async def test_no_record_holds_the_lease_for_ever_or_makes_two_leaders(
    storage: SqliteStorage, seconds: str, waits: int
) -> None:
    clock = Clock()
    await storage.commit([Op(KEY, f'{{"holder": "x", "seconds": {seconds}}}'.encode())])
    first, _ = replica(storage, "first", clock)
    await first.step()
    clock.now += waits - 1
    await first.step()
    assert not first.leading
    clock.now += 1
    await first.step()
    assert first.leading


async def test_work_is_done_while_it_leads_and_the_lease_is_given_up_at_the_end(storage: SqliteStorage) -> None:
    clock = Clock()
    (first, way), (second, _) = replica(storage, "first", clock), replica(storage, "second", clock)
    began, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    running = asyncio.create_task(first.during(work))
    election = asyncio.create_task(first.run())
    async with asyncio.timeout(60):
        await began.wait()
    election.cancel()
    await asyncio.wait((election,))
    assert not way.cut
    await second.step()
    assert second.leading
    running.cancel()
    await asyncio.wait((running,))
    assert ended.is_set()


async def test_work_ends_when_the_lease_is_lost_and_begins_again_with_it(storage: SqliteStorage) -> None:
    clock = Clock()
    first, way = replica(storage, "first", clock)
    told: asyncio.Queue[str] = asyncio.Queue()

    async def work() -> None:
        told.put_nowait("begins")
        try:
            await asyncio.Event().wait()
        finally:
            told.put_nowait("ends")

    running = asyncio.create_task(first.during(work))
    async with asyncio.timeout(60):
        await first.step()
        assert await told.get() == "begins"
        way.cut = True
        clock.now += 11
        await first.step()
        assert await told.get() == "ends"
        way.cut = False
        await first.step()
        assert await told.get() == "begins"
    running.cancel()
    await asyncio.wait((running,))


async def test_what_ends_the_work_is_told() -> None:
    async def work() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await Sole().during(work)


async def test_what_ends_the_work_of_a_leader_is_told(storage: SqliteStorage) -> None:
    async def work() -> None:
        raise RuntimeError("broken")

    first, _ = replica(storage, "first", Clock())
    await first.step()
    with pytest.raises(RuntimeError, match="broken"):
        await first.during(work)
