"""The storage contract under generated histories, concurrent writers and a writer that is killed."""

import asyncio
import random
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.contract.conftest import DEADLINE, OPENERS, Backend
from tests.contract.followers import Follower, State, follow, under

from onepass.storage.interface import Compacted, Conflict, Op, Record, Storage

KEYS = st.sampled_from([b"/a", b"/a/1", b"/a/2", b"/b", b"/b/\xff", b"/b/\xff\xff", b"\xff"])
PREFIXES = st.sampled_from([b"", b"/a", b"/a/", b"/b/\xff", b"\xff", b"/none"])


# Any history


class StorageMachine(RuleBasedStateMachine):
    """Any history of commits, reads, compactions, restarts and watches, beside a model that keeps every state."""

    kind: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.storage = self.open()
        self.now = self.runner.run(self.storage.revision())
        self.states: dict[int, State] = {self.now: {}}
        self.compacted = self.now
        self.followers: list[Follower] = []

    def open(self) -> Storage:
        return self.runner.run(OPENERS[self.kind](Path(self.directory.name) / "store", True))

    def teardown(self) -> None:
        self.runner.run(self.storage.close())
        self.runner.close()
        self.directory.cleanup()

    @rule(
        writes=st.dictionaries(KEYS, st.none() | st.binary(max_size=3), max_size=4),
        expect=st.sampled_from(["anything", "the truth", "something else"]),
    )
    def commit(self, writes: dict[bytes, bytes | None], expect: str) -> None:
        state = dict(self.states[self.now])
        truth = {key: state[key].modified if key in state else 0 for key in writes}
        wrong = 1 if expect == "something else" else 0
        ops = [Op(k, v, None if expect == "anything" else truth[k] + wrong) for k, v in writes.items()]
        if wrong and ops:
            with pytest.raises(Conflict):
                self.runner.run(self.storage.commit(ops))
            return
        for key, value in writes.items():
            old = state.pop(key, None)
            if value is not None:
                state[key] = Record(key, value, old.created if old else self.now + 1, self.now + 1)
        if state != self.states[self.now]:
            self.now += 1
            self.states[self.now] = state
        assert self.runner.run(self.storage.commit(ops)) == self.now

    @rule(prefix=PREFIXES, limit=st.integers(0, 4), back=st.integers(0, 8))
    def read(self, prefix: bytes, limit: int, back: int) -> None:
        revision = max(self.now - back, min(self.states))
        expected = under(self.states[revision], prefix)
        read: list[Record] = []
        remaining = 1
        while remaining:
            after = read[-1].key if read else b""
            try:
                page = self.runner.run(self.storage.range(prefix, after=after, limit=limit, revision=revision))
            except Compacted:
                assert revision < self.compacted
                return
            assert revision >= self.compacted
            assert page.revision == revision
            read += page.records
            remaining = page.remaining
            assert len(read) + remaining == len(expected)
        assert read == expected

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self.runner.run(self.storage.get(key)) == self.states[self.now].get(key)

    @rule(back=st.integers(0, 8))
    def compact(self, back: int) -> None:
        revision = max(self.now - back, 1)
        self.runner.run(self.storage.compact(revision))
        self.compacted = max(self.compacted, revision)

    @rule(prefix=PREFIXES)
    def list_then_watch(self, prefix: bytes) -> None:
        self.followers.append(self.runner.run(follow(self.storage, prefix)))

    @rule(prefix=PREFIXES, back=st.integers(0, 8))
    def watch_from_the_past(self, prefix: bytes, back: int) -> None:
        revision = max(self.now - back, self.compacted)
        self.followers.append(Follower(self.storage, prefix, under(self.states[revision], prefix), revision))

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def catch_up(self, data: st.DataObject) -> None:
        follower = data.draw(st.sampled_from(self.followers))
        try:
            self.runner.run(follower.reach(self.now))
        except Compacted:
            assert self.compacted > follower.reached, "what it has not been told is gone"
            self.followers.remove(follower)
        else:
            assert follower.records == under(self.states[self.now], follower.prefix)

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.storage.close())
        self.followers.clear()
        self.storage = self.open()

    @invariant()
    def the_revision_is_the_number_of_changes(self) -> None:
        assert self.runner.run(self.storage.revision()) == self.now


def test_any_history_reads_and_watches_as_the_model_does(kind: str) -> None:
    machine = type("Machine", (StorageMachine,), {"kind": kind})
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=40, deadline=None))


# Concurrent writers


async def test_concurrent_writers_never_lose_an_update(backend: Backend) -> None:
    storage = await backend.open(tight=True)
    start = await storage.commit([Op(b"/counter", b"0")])
    follower = await follow(storage, b"/counter")
    revisions: list[int] = []

    async def add(times: int) -> None:
        while times:
            record = await storage.get(b"/counter")
            assert record is not None
            try:
                op = Op(b"/counter", b"%d" % (int(record.value) + 1), expected=record.modified)
                revisions.append(await storage.commit([op]))
            except Conflict:
                continue
            times -= 1

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(add(10))
    record = await storage.get(b"/counter")
    assert record == Record(b"/counter", b"80", start, start + 80)
    assert sorted(revisions) == list(range(start + 1, start + 81))
    await follower.reach(start + 80)
    assert follower.records == [record]


async def test_of_two_creations_at_once_one_wins(storage: Storage) -> None:
    outcomes = await asyncio.gather(
        *(storage.commit([Op(b"/a", b"%d" % n, expected=0)]) for n in range(10)), return_exceptions=True
    )
    [(winner, revision)] = [(n, outcome) for n, outcome in enumerate(outcomes) if isinstance(outcome, int)]
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 9
    assert await storage.get(b"/a") == Record(b"/a", b"%d" % winner, revision, revision)


@pytest.mark.parametrize("seed", range(5))
async def test_list_then_watch_ends_in_the_state_of_the_store(backend: Backend, seed: int) -> None:
    storage = await backend.open(tight=True)
    chance = random.Random(seed)
    names = [b"/%d/%d" % (n % 3, n) for n in range(12)]
    followers: list[Follower] = []

    async def write(times: int) -> None:
        for _ in range(times):
            chosen = chance.sample(names, chance.randint(1, 4))
            await storage.commit([Op(name, chance.choice([None, chance.randbytes(4)])) for name in chosen])

    async def watch(prefix: bytes) -> None:
        for _ in range(chance.randint(0, 20)):
            await storage.get(b"")  # begins at another moment each time
        follower = await follow(storage, prefix)
        followers.append(follower)
        await follower.reach(await storage.revision())

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(write(25))
        for prefix in (b"", b"/0/", b"/1/", b"/2/1", b"/none"):
            group.create_task(watch(prefix))
    end = await storage.range(b"")
    for follower in followers:
        await follower.reach(end.revision)
        assert follower.records == [r for r in end.records if r.key.startswith(follower.prefix)]


# A writer that is killed

WRITER = """
import asyncio, sys
from pathlib import Path
from onepass.storage.interface import Op
from tests.contract.conftest import OPENERS

async def write(storage, number):
    for n in range(1_000_000):
        value = b"%d" % n
        revision = await storage.commit([Op(b"/left/%d" % number, value), Op(b"/right/%d" % number, value)])
        print(number, n, revision, flush=True)

async def main(kind, path):
    storage = await OPENERS[kind](Path(path), False)
    await asyncio.gather(*(write(storage, number) for number in range(4)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("acknowledged", [1, 20, 300])
async def test_nothing_that_was_acknowledged_is_lost_when_the_writer_is_killed(
    kind: str, acknowledged: int, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    storage = await OPENERS[kind](path, False)
    start = await storage.revision()
    await storage.close()
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, kind, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    last: dict[int, int] = {}
    newest = 0
    async with asyncio.timeout(DEADLINE):
        for _ in range(acknowledged):
            number, n, revision = map(int, (await writer.stdout.readline()).split())
            last[number] = n
            newest = max(newest, revision)
        writer.kill()
        await writer.communicate()
    storage = await OPENERS[kind](path, False)
    try:
        end = await storage.range(b"")
        values = {record.key: record.value for record in end.records}
        assert end.revision >= newest
        for number, n in last.items():
            assert int(values[b"/left/%d" % number]) >= n
        for number in range(4):
            assert values.get(b"/left/%d" % number) == values.get(b"/right/%d" % number), "a commit is whole"
        replayed = Follower(storage, b"", [], start)
        await replayed.reach(end.revision)
        assert replayed.records == end.records
        assert await storage.commit([Op(b"/next", b"")]) > end.revision
    finally:
        await storage.close()
