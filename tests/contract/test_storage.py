"""The storage contract, reading and writing: what onepass.storage.interface promises, on every backend."""

import pytest
from tests.contract.conftest import fill, keys

from onepass.storage.interface import Conflict, FutureRevision, Op, Page, Record, Storage, TooLarge

# Reading and writing


async def test_an_empty_store_has_a_revision_and_nothing_else(storage: Storage) -> None:
    assert await storage.revision() >= 1
    assert await storage.get(b"/a") is None
    assert await storage.range(b"") == Page([], await storage.revision(), 0)


async def test_a_key_remembers_when_it_was_created_and_modified(storage: Storage) -> None:
    first = await storage.commit([Op(b"/a", b"1")])
    assert await storage.get(b"/a") == Record(b"/a", b"1", first, first)
    second = await storage.commit([Op(b"/a", b"2")])
    assert second == first + 1
    assert await storage.get(b"/a") == Record(b"/a", b"2", first, second)


async def test_a_key_that_comes_back_is_created_anew(storage: Storage) -> None:
    await storage.commit([Op(b"/a", b"1")])
    await storage.commit([Op(b"/a", None)])
    assert await storage.get(b"/a") is None
    revision = await storage.commit([Op(b"/a", b"2", expected=0)])
    assert await storage.get(b"/a") == Record(b"/a", b"2", revision, revision)


@pytest.mark.parametrize(
    "value", [b"", b"\0", bytes(range(256)), b"x" * 1_000_000], ids=["empty", "nul", "all", "1 MB"]
)
async def test_values_are_any_bytes(storage: Storage, value: bytes) -> None:
    await storage.commit([Op(b"/a", value)])
    record = await storage.get(b"/a")
    assert record is not None
    assert record.value == value


@pytest.mark.parametrize(
    "ops",
    [
        [Op(b"/a", b"x" * 2_000_000), Op(b"/b", b"")],
        [Op(b"/%d" % n, b"x" * 1_000_000) for n in range(8)],
        [Op(b"/%d" % n, b"") for n in range(1000)],
    ],
    ids=["2 MB", "8 MB", "1000 keys"],
)
async def test_a_large_commit_is_done_or_refused_as_too_large(storage: Storage, ops: list[Op]) -> None:
    (before,) = await fill(storage, b"/before")
    try:
        await storage.commit(ops)
    except TooLarge:
        assert await storage.revision() == before
    else:
        assert len((await storage.range(b"")).records) == 1 + len(ops)


async def test_a_commit_writes_all_its_keys_at_one_revision(storage: Storage) -> None:
    await fill(storage, b"/old")
    revision = await storage.commit([Op(b"/a", b"1"), Op(b"/b", b"2"), Op(b"/old", None)])
    page = await storage.range(b"/")
    assert [(r.key, r.modified) for r in page.records] == [(b"/a", revision), (b"/b", revision)]
    assert page.revision == revision == await storage.revision()


@pytest.mark.parametrize("value", [b"2", None], ids=["put", "delete"])
async def test_a_write_that_expects_another_revision_is_a_conflict(storage: Storage, value: bytes | None) -> None:
    (at,) = await fill(storage, b"/a")
    for wrong in (0, at - 1, at + 1):
        with pytest.raises(Conflict) as caught:
            await storage.commit([Op(b"/a", value, expected=wrong)])
        assert caught.value.key == b"/a"
    with pytest.raises(Conflict):
        await storage.commit([Op(b"/absent", value, expected=at)])
    assert await storage.revision() == at
    await storage.commit([Op(b"/a", value, expected=at)])
    assert await storage.revision() == at + 1


async def test_a_conflict_leaves_every_key_of_the_commit_alone(storage: Storage) -> None:
    (at,) = await fill(storage, b"/b")
    with pytest.raises(Conflict) as caught:
        await storage.commit([Op(b"/a", b"1"), Op(b"/b", b"2", expected=at + 7), Op(b"/c", b"3")])
    assert caught.value.key == b"/b"
    assert keys(await storage.range(b"")) == [b"/b"]
    assert await storage.revision() == at


@pytest.mark.parametrize("expected", [None, 0])
async def test_deleting_what_is_not_there_changes_nothing(storage: Storage, expected: int | None) -> None:
    (at,) = await fill(storage, b"/a")
    assert await storage.commit([Op(b"/absent", None, expected)]) == at
    assert await storage.commit([]) == at
    assert await storage.commit([Op(b"/absent", None, expected), Op(b"/a", b"2")]) == at + 1


@pytest.mark.parametrize("ops", [[Op(b"/a", b"1"), Op(b"/a", b"2")], [Op(b"", b"1")]], ids=["twice", "empty"])
async def test_a_commit_that_makes_no_sense_is_refused(storage: Storage, ops: list[Op]) -> None:
    before = await storage.revision()
    with pytest.raises(ValueError, match="key"):
        await storage.commit(ops)
    assert await storage.revision() == before


# Ranges


@pytest.mark.parametrize(
    ("prefix", "after", "expected"),
    [
        (b"", b"", [b"/a", b"/a/1", b"/a/2", b"/b", b"\xff", b"\xff\xff", b"\xff\xffz"]),
        (b"/a/", b"", [b"/a/1", b"/a/2"]),
        (b"/a", b"/a", [b"/a/1", b"/a/2"]),
        (b"/a", b"/a/1", [b"/a/2"]),
        (b"/a", b"/a/15", [b"/a/2"]),
        (b"/a", b"/b", []),
        (b"/b", b"/a", [b"/b"]),
        (b"\xff", b"", [b"\xff", b"\xff\xff", b"\xff\xffz"]),
        (b"\xff\xff", b"", [b"\xff\xff", b"\xff\xffz"]),
        (b"/a%", b"", []),
        (b"/A", b"", []),
    ],
)
async def test_a_range_is_the_keys_under_a_prefix_after_a_key(
    storage: Storage, prefix: bytes, after: bytes, expected: list[bytes]
) -> None:
    await fill(storage, b"/b", b"\xff\xffz", b"/a", b"/a/2", b"\xff", b"/a/1", b"\xff\xff")
    assert keys(await storage.range(prefix, after=after)) == expected


async def test_pages_of_a_range_join_to_the_whole_at_one_revision(storage: Storage) -> None:
    await fill(storage, *(b"/p/%03d" % n for n in range(10)), b"/q")
    first = await storage.range(b"/p/", limit=4)
    assert (len(first.records), first.remaining) == (4, 6)
    await fill(storage, b"/p/0005", b"/p/999")
    await storage.commit([Op(b"/p/007", None), Op(b"/p/008", b"changed")])
    second = await storage.range(b"/p/", after=first.records[-1].key, limit=4, revision=first.revision)
    third = await storage.range(b"/p/", after=second.records[-1].key, limit=4, revision=first.revision)
    assert (second.remaining, third.remaining, second.revision) == (2, 0, first.revision)
    assert keys(first) + keys(second) + keys(third) == [b"/p/%03d" % n for n in range(10)]
    assert third.records[0].value == b"value of /p/008"


async def test_a_page_that_ends_with_the_last_key_has_nothing_remaining(storage: Storage) -> None:
    await fill(storage, b"/p/1", b"/p/2")
    assert (await storage.range(b"/p/", limit=2)).remaining == 0


async def test_every_past_revision_can_be_read(storage: Storage) -> None:
    (created,) = await fill(storage, b"/a")
    changed = await storage.commit([Op(b"/a", b"2")])
    deleted = await storage.commit([Op(b"/a", None)])
    again = await storage.commit([Op(b"/a", b"3")])
    states = [(await storage.range(b"/a", revision=r)).records for r in (created - 1, created, changed, deleted, again)]
    assert states == [
        [],
        [Record(b"/a", b"value of /a", created, created)],
        [Record(b"/a", b"2", created, changed)],
        [],
        [Record(b"/a", b"3", again, again)],
    ]


async def test_the_future_cannot_be_read(storage: Storage) -> None:
    (at,) = await fill(storage, b"/a")
    with pytest.raises(FutureRevision) as caught:
        await storage.range(b"", revision=at + 1)
    assert caught.value.current == at
    with pytest.raises(FutureRevision):
        await anext(storage.watch(b"", at + 1))
    with pytest.raises(FutureRevision):
        await storage.compact(at + 1)
