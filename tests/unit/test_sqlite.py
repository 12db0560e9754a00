"""What is the SQLite storage's own: its file, its threads and its housekeeping. The rest is tests/contract."""

import asyncio
import os
import sqlite3
import stat
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from onepass.storage import sqlite
from onepass.storage.interface import Conflict, Op, OutcomeUnknown, Unavailable, Unusable
from onepass.storage.sqlitethread import SQLiteThread

DEADLINE = 120


async def refusal(path: Path) -> str:
    with pytest.raises(Unusable) as caught:
        await sqlite.open_sqlite(path)
    return str(caught.value)


# The file


def modes_in(directory: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()}


async def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch(0o644)
    storage = await sqlite.open_sqlite(path)
    await storage.commit([Op(b"/a", b"secret")])
    try:
        modes = modes_in(tmp_path)
        assert set(modes) >= {"store.db", "store.db-wal", "store.db.lock"}
        assert set(modes.values()) == {0o600}, modes
    finally:
        await storage.close()


async def test_commits_are_on_the_disk_before_they_are_told(tmp_path: Path) -> None:
    storage = await sqlite.open_sqlite(tmp_path / "store.db")
    try:
        journal, synchronous = await storage._writer.run(
            lambda c: (c.execute("PRAGMA journal_mode").fetchone()[0], c.execute("PRAGMA synchronous").fetchone()[0])
        )
        assert (journal, synchronous) == ("wal", 2)
    finally:
        await storage.close()


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert f"the directory {tmp_path}/missing does not exist" in await refusal(tmp_path / "missing" / "store.db")
    (tmp_path / "file").touch()
    assert "Not a directory" in await refusal(tmp_path / "file" / "store.db")
    (tmp_path / "store.db").mkdir()
    assert "Is a directory" in await refusal(tmp_path / "store.db")


async def test_a_directory_that_may_not_be_written_to_is_refused() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o555)  # noqa: PTH101
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may write everywhere
        try:
            message = await refusal(Path(directory) / "store.db")
        finally:
            os.seteuid(user)
        assert message.endswith("Permission denied")


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"apiVersion: v1\nkind: Config\n" * 100)
    before = path.read_bytes()
    assert await refusal(path) == f"{path} is not a database: move it away, or use another path"
    assert path.read_bytes() == before


async def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    path.chmod(0o644)
    before = path.read_bytes()
    assert "is a database of another program" in await refusal(path)
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


async def test_a_database_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await (await sqlite.open_sqlite(path)).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "was written by a newer onepass (schema 99, this one knows 1)" in await refusal(path)


async def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await (await sqlite.open_sqlite(path)).close()
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xee" * 3996  # the schema's page, after the header
    path.write_bytes(content)
    assert str(path) in await refusal(path)


async def test_a_store_that_is_open_cannot_be_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    link = tmp_path / "link.db"
    link.symlink_to(path)
    storage = await sqlite.open_sqlite(path)
    for other in (path, link):
        assert f"{other} is in use by process {os.getpid()}" in await refusal(other)
    await storage.close()
    await (await sqlite.open_sqlite(link)).close()


async def test_another_process_is_named_and_its_lock_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    program = (
        "import asyncio, sys; from pathlib import Path; from onepass.storage import sqlite\n"
        "async def main():\n"
        "    storage = await sqlite.open_sqlite(Path(sys.argv[1]))\n"
        "    print('open', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert other.stdout is not None
    async with asyncio.timeout(DEADLINE):
        try:
            assert await other.stdout.readline() == b"open\n"
            assert f"in use by process {other.pid}" in await refusal(path)
        finally:
            other.kill()
            await other.communicate()
    await (await sqlite.open_sqlite(path)).close()


async def test_a_refused_opening_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database" * 100)
    first = await refusal(path)
    assert await refusal(path) == first, "and not that it is in use"
    path.unlink()
    await (await sqlite.open_sqlite(path)).close()


# Housekeeping


def rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        count: int = connection.execute("SELECT count(*) FROM log").fetchone()[0]
        return count
    finally:
        connection.close()


async def test_compaction_deletes_superseded_rows_and_deletions(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    storage = await sqlite.open_sqlite(path, sqlite.Limits(stretch=3))
    try:
        for n in range(20):
            await storage.commit([Op(b"/a", b"%d" % n), Op(b"/gone", b"")])
        last = await storage.commit([Op(b"/gone", None)])
        assert rows(path) == 41
        await storage.compact(last)
        assert rows(path) == 1
    finally:
        await storage.close()


async def test_run_forgets_old_history_until_the_store_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    storage = await sqlite.open_sqlite(path, sqlite.Limits(history=0.001))
    try:
        for n in range(20):
            await storage.commit([Op(b"/a", b"%d" % n)])
        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
            keeper = group.create_task(storage.run())
            while rows(path) > 1:
                await storage.get(b"/a")
            await storage.close()
        assert keeper.result() is None
    finally:
        await storage.close()


# The thread


@pytest.fixture
async def traced() -> AsyncIterator[tuple[SQLiteThread, list[str]]]:
    """A writer's thread on a database in memory, and the statements it has run."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("CREATE TABLE t (x INTEGER CHECK (x < 100))")
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    thread = SQLiteThread(connection, "IMMEDIATE", waiting=4, batch=3)
    yield thread, statements
    await thread.close()


def insert(connection: sqlite3.Connection, x: int) -> int:
    connection.execute("INSERT INTO t VALUES (?)", (x,))
    return x


class Gate:
    """A job that holds the thread until the test lets it go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._open = threading.Event()

    def __call__(self, _connection: sqlite3.Connection) -> None:
        self._loop.call_soon_threadsafe(self.entered.set)
        assert self._open.wait(DEADLINE)

    def open(self) -> None:
        self._open.set()


async def test_jobs_that_wait_share_a_transaction(traced: tuple[SQLiteThread, list[str]]) -> None:
    thread, statements = traced
    gate = Gate()
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        group.create_task(thread.run(gate))
        await gate.entered.wait()
        inserts = [group.create_task(thread.run(lambda c, x=x: insert(c, x))) for x in range(4)]  # type: ignore[misc]
        await asyncio.sleep(0)
        gate.open()
    assert [task.result() for task in inserts] == [0, 1, 2, 3]
    transaction = ["BEGIN IMMEDIATE", *(f"INSERT INTO t VALUES ({x})" for x in range(3)), "COMMIT"]
    assert statements[2:] == [*transaction, "BEGIN IMMEDIATE", "INSERT INTO t VALUES (3)", "COMMIT"]


async def test_a_job_that_is_refused_leaves_the_others_of_its_transaction(
    traced: tuple[SQLiteThread, list[str]],
) -> None:
    thread, _ = traced

    def refuse(_connection: sqlite3.Connection) -> None:
        raise Conflict(b"/a")

    gate = Gate()
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        group.create_task(thread.run(gate))
        await gate.entered.wait()
        outcomes = group.create_task(
            asyncio.wait_for(
                asyncio.gather(
                    thread.run(lambda c: insert(c, 1)),
                    thread.run(refuse),
                    thread.run(lambda c: insert(c, 2)),
                    return_exceptions=True,
                ),
                DEADLINE,
            )
        )
        await asyncio.sleep(0)
        gate.open()
    one, refused, two = outcomes.result()
    assert (one, two) == (1, 2)
    assert isinstance(refused, Conflict)
    assert await thread.run(lambda c: c.execute("SELECT x FROM t ORDER BY x").fetchall()) == [(1,), (2,)]


async def test_when_sqlite_fails_the_transaction_is_undone_and_everyone_in_it_is_told(
    traced: tuple[SQLiteThread, list[str]],
) -> None:
    thread, _ = traced
    outcomes = await asyncio.gather(
        *(thread.run(lambda c, x=x: insert(c, x)) for x in (1, 100, 2)),  # type: ignore[misc]
        return_exceptions=True,
    )
    failed = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
    assert failed
    assert all(isinstance(error.__cause__, sqlite3.IntegrityError) for error in failed)
    stored = await thread.run(lambda c: c.execute("SELECT x FROM t").fetchall())
    assert sorted(x for (x,) in stored) == sorted(outcome for outcome in outcomes if isinstance(outcome, int))


async def test_the_queue_is_bounded_and_every_wait_has_an_end(traced: tuple[SQLiteThread, list[str]]) -> None:
    thread, _ = traced
    gate = Gate()
    settled: list[int] = []
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        group.create_task(thread.run(gate))
        await gate.entered.wait()
        with pytest.raises(OutcomeUnknown, match="did not answer within 0 seconds"):
            await thread.run(lambda c: insert(c, 7), settled.append, timeout=0)
        for x in range(3):
            group.create_task(thread.run(lambda c, x=x: insert(c, x)))  # type: ignore[misc]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="too many requests"):
            await thread.run(lambda c: insert(c, 9))
        gate.open()
    await thread.run(lambda c: None)
    assert settled == [7], "what was done is told to the watchers though its caller has gone"
