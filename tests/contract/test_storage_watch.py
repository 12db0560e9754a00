"""The storage contract, watching and forgetting: what onepass.storage.interface promises, on every backend."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from tests.contract.conftest import DEADLINE, Backend, fill, keys, take, told, until_progress

from onepass.storage.interface import Change, Compacted, Conflict, Op, Progress, Record, Storage, Unavailable

# Watching


async def test_a_watch_tells_what_was_before_it_and_then_what_comes(storage: Storage) -> None:
    start = await storage.revision()
    await fill(storage, b"/a", b"/other")
    watch = storage.watch(b"/a", start)
    assert told(await until_progress(watch)) == [(start + 1, b"/a", b"value of /a")]
    await fill(storage, b"/other", b"/ab")
    await storage.commit([Op(b"/a", None)])
    assert told(await take(watch, 2)) == [(start + 4, b"/ab", b"value of /ab"), (start + 5, b"/a", None)]


async def test_a_watch_leaves_out_what_its_caller_has_seen(storage: Storage) -> None:
    revisions = await fill(storage, b"/a", b"/b", b"/c")
    watch = storage.watch(b"/", revisions[1])
    assert [change.key for change in await until_progress(watch)] == [b"/c"]


@pytest.mark.parametrize("live", [False, True], ids=["from the log", "live"])
async def test_a_change_tells_what_was_there_before(storage: Storage, live: bool) -> None:
    start = await storage.revision()
    watch = storage.watch(b"", start)
    if live:
        assert await until_progress(watch) == []
    for op in (Op(b"/a", b"1"), Op(b"/a", b"2"), Op(b"/a", None), Op(b"/a", b"3")):
        await storage.commit([op])
    one = Record(b"/a", b"1", start + 1, start + 1)
    two = Record(b"/a", b"2", start + 1, start + 2)
    assert await take(watch, 4) == [
        Change(start + 1, b"/a", one, None),
        Change(start + 2, b"/a", two, one),
        Change(start + 3, b"/a", None, two),
        Change(start + 4, b"/a", Record(b"/a", b"3", start + 4, start + 4), None),
    ]


@pytest.mark.parametrize("live", [False, True], ids=["from the log", "live"])
async def test_changes_of_one_commit_come_in_the_order_of_its_ops(backend: Backend, live: bool) -> None:
    storage = await backend.open(tight=True)
    names = [b"/c", b"/a", b"/d", b"/b", b"/e"]  # more than a watcher's queue and than one stretch of the log
    watch = storage.watch(b"", await storage.revision())
    if live:
        assert await until_progress(watch) == []
    revision = await storage.commit([Op(name, b"") for name in names])
    assert told(await take(watch, 5)) == [(revision, name, b"") for name in names]


async def test_a_refused_commit_is_not_told(storage: Storage) -> None:
    watch = storage.watch(b"", await storage.revision())
    await until_progress(watch)
    with pytest.raises(Conflict):
        await storage.commit([Op(b"/a", b"1"), Op(b"/b", b"1", expected=99)])
    await fill(storage, b"/c")
    assert [change.key for change in await take(watch, 1)] == [b"/c"]


async def test_a_quiet_watch_tells_its_progress(backend: Backend) -> None:
    storage = await backend.open(tight=True)
    watch = storage.watch(b"/quiet", await storage.revision())
    assert await until_progress(watch) == []
    (elsewhere,) = await fill(storage, b"/elsewhere")
    async with asyncio.timeout(DEADLINE):
        async for event in watch:
            assert isinstance(event, Progress)
            if event.revision == elsewhere:
                break


async def test_a_watcher_that_falls_behind_still_gets_everything_once_and_in_order(backend: Backend) -> None:
    storage = await backend.open(tight=True)
    start = await storage.revision()
    slow = storage.watch(b"/w/", start)
    assert await until_progress(slow) == []
    for round_ in range(4):
        names = [b"/w/%d-%d" % (round_, n) for n in range(7)]
        revisions = await fill(storage, b"/unwatched", *names)
        assert told(await take(slow, 7)) == [
            (revision, name, b"value of " + name) for revision, name in zip(revisions[1:], names, strict=True)
        ]


async def test_what_is_committed_while_a_watcher_reads_the_log_is_told_once(backend: Backend) -> None:
    storage = await backend.open(tight=True)
    start = await storage.revision()
    names = [b"/1", b"/2", b"/3", b"/4", b"/5"]
    await fill(storage, *names)
    watch = storage.watch(b"", start)
    first = await take(watch, 1)
    await fill(storage, b"/meanwhile")
    rest = await until_progress(watch)
    await fill(storage, b"/after")
    last = await take(watch, 1)
    assert [change.key for change in first + rest + last] == [*names, b"/meanwhile", b"/after"]


async def test_watchers_do_not_hinder_each_other(backend: Backend) -> None:
    storage = await backend.open(tight=True)
    start = await storage.revision()
    stuck = storage.watch(b"", start)
    await until_progress(stuck)
    keen = storage.watch(b"", start)
    await until_progress(keen)
    for n in range(20):
        await storage.commit([Op(b"/a", b"%d" % n)])
        assert [change.record.value for change in await take(keen, 1) if change.record] == [b"%d" % n]
    assert len(await take(stuck, 20)) == 20


async def test_a_watch_that_is_closed_ends_and_leaves_the_others(storage: Storage) -> None:
    start = await storage.revision()
    closed, open_ = storage.watch(b"", start), storage.watch(b"", start)
    await until_progress(closed)
    await until_progress(open_)
    await closed.aclose()
    await fill(storage, b"/a")
    assert len(await take(open_, 1)) == 1
    assert [event async for event in closed] == []


# Compaction


async def test_compaction_forgets_history_and_keeps_what_is_current(storage: Storage) -> None:
    revisions = await fill(storage, b"/a", b"/b", b"/a", b"/gone")
    revisions.append(await storage.commit([Op(b"/gone", None)]))
    before = await storage.range(b"")
    await storage.compact(revisions[2])
    assert await storage.range(b"") == before
    assert keys(await storage.range(b"", revision=revisions[2])) == [b"/a", b"/b"]
    assert keys(await storage.range(b"", revision=revisions[3])) == [b"/a", b"/b", b"/gone"]
    for forgotten in (revisions[0], revisions[1]):
        with pytest.raises(Compacted) as caught:
            await storage.range(b"", revision=forgotten)
        assert caught.value.oldest == revisions[2]
    await storage.compact(revisions[-1])
    assert (await storage.range(b"")).records == before.records
    assert await storage.revision() == revisions[-1]


async def test_compacting_again_or_earlier_changes_nothing(storage: Storage) -> None:
    revisions = await fill(storage, b"/a", b"/b", b"/c")
    for revision in (revisions[1], revisions[1], revisions[0], 0):
        await storage.compact(revision)
    assert keys(await storage.range(b"", revision=revisions[1])) == [b"/a", b"/b"]


async def test_a_watch_from_forgotten_history_is_refused_and_one_after_it_is_not(storage: Storage) -> None:
    revisions = await fill(storage, b"/a", b"/a", b"/a")
    await storage.compact(revisions[1])
    with pytest.raises(Compacted):
        await anext(storage.watch(b"", revisions[0] - 1))
    (change,) = await until_progress(storage.watch(b"", revisions[1]))
    assert change.revision == revisions[2]
    assert change.previous is not None
    assert change.previous.modified == revisions[1]


async def test_a_watcher_whose_next_revision_is_compacted_is_told_so(backend: Backend) -> None:
    storage = await backend.open(tight=True)
    start = await storage.revision()
    slow, keen = storage.watch(b"", start), storage.watch(b"", start)
    await until_progress(slow)
    await until_progress(keen)
    last = (await fill(storage, b"/a", b"/b", b"/c", b"/d"))[-1]
    await take(keen, 4)  # so what overflowed the queue of the other has been told
    await storage.compact(last)
    with pytest.raises(Compacted):
        await take(slow, 4)


async def test_a_watcher_that_has_seen_everything_outlives_compaction(backend: Backend) -> None:
    storage = await backend.open(tight=True)
    watch = storage.watch(b"/mine/", await storage.revision())
    await until_progress(watch)
    await storage.compact((await fill(storage, *[b"/other"] * 9))[-1])
    names = [b"/mine/%d" % n for n in range(5)]  # beyond its queue, so that it has to read the log after all
    await fill(storage, *names)
    assert [change.key for change in await take(watch, 5)] == names


# Closing


async def test_everything_is_there_after_closing_and_opening_again(backend: Backend) -> None:
    storage = await backend.open()
    start = await storage.revision()
    await fill(storage, b"/a", b"/b", b"/c")
    last = await storage.commit([Op(b"/b", None), Op(b"/a", b"2")])
    await storage.compact(start + 2)
    before = await storage.range(b"")
    await storage.close()
    again = await backend.open()
    assert await again.range(b"") == before
    assert await again.revision() == last
    with pytest.raises(Compacted):
        await again.range(b"", revision=start + 1)
    changes = await until_progress(again.watch(b"", start + 2))
    assert told(changes) == [(start + 3, b"/c", b"value of /c"), (last, b"/b", None), (last, b"/a", b"2")]
    assert await again.commit([Op(b"/d", b"4")]) == last + 1


async def test_revisions_are_never_given_twice_even_when_history_is_forgotten(backend: Backend) -> None:
    storage = await backend.open()
    await fill(storage, b"/a")
    last = await storage.commit([Op(b"/a", None)])
    await storage.compact(last)
    await storage.close()
    assert await (await backend.open()).commit([Op(b"/a", b"2")]) == last + 1


async def test_closing_ends_open_watches(backend: Backend) -> None:
    storage = await backend.open()
    start = await storage.revision()
    waiting, unread = storage.watch(b"", start), storage.watch(b"", start)
    await until_progress(waiting)
    await until_progress(unread)
    async with asyncio.TaskGroup() as group:
        end = group.create_task(take_all(waiting))
        await asyncio.sleep(0)
        await storage.close()
    assert end.result() == []
    assert await take_all(unread) == []


async def take_all(watch: AsyncGenerator[Change | Progress]) -> list[Change | Progress]:
    async with asyncio.timeout(DEADLINE):
        return [event async for event in watch]


async def test_a_closed_store_answers_that_it_is_closed(backend: Backend) -> None:
    storage = await backend.open()
    await storage.close()
    await storage.close()
    with pytest.raises(Unavailable):
        await storage.get(b"/a")
    with pytest.raises(Unavailable):
        await storage.commit([Op(b"/a", b"1")])


async def test_commits_that_wait_when_the_store_is_closed_are_done(backend: Backend) -> None:
    storage = await backend.open()
    async with asyncio.TaskGroup() as group:
        commits = [group.create_task(storage.commit([Op(b"/%d" % n, b"")])) for n in range(50)]
        await asyncio.sleep(0)
        await storage.close()
    again = await backend.open()
    assert len((await again.range(b"")).records) == len({task.result() for task in commits}) == 50
