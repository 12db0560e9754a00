"""The revision log in SQL: every version of every key is a row that knows when it began and when it was superseded.

A row stands at every revision r with `revision <= r < superseded`; the newest row of a key has `superseded` NULL. A
deletion is a row without a value that is superseded by its own revision: it stands at no revision, and is there for
the watchers alone. So one condition serves reads of now and of then, and history is forgotten by deleting what was
superseded.

Every function runs inside a transaction that its caller has begun, and none waits for anything but the disk.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from onepass.storage.interface import Change, Compacted, Conflict, FutureRevision, Op, Page, Record

SCHEMA = """
CREATE TABLE log (
  id INTEGER PRIMARY KEY,      -- in the order of writing
  revision INTEGER NOT NULL,
  key BLOB NOT NULL,
  value BLOB,                  -- NULL: the key was deleted
  created INTEGER NOT NULL,    -- the revision of the first write since the key was last absent
  previous INTEGER,            -- the id of the row that this one superseded
  superseded INTEGER           -- the revision that superseded this one
) STRICT;
CREATE UNIQUE INDEX log_current ON log (key) WHERE superseded IS NULL;
CREATE UNIQUE INDEX log_history ON log (key, revision);
CREATE INDEX log_revision ON log (revision);
CREATE INDEX log_superseded ON log (superseded) WHERE superseded IS NOT NULL;
CREATE TABLE state (current INTEGER NOT NULL, compacted INTEGER NOT NULL) STRICT;
INSERT INTO state VALUES (1, 0);
"""

_Row: TypeAlias = tuple[bytes, bytes, int, int]
_COLUMNS = "key, value, created, revision"


@dataclass(frozen=True, slots=True)
class Committed:
    """What one commit did: the revision it left, and its changes, none when nothing changed."""

    revision: int
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the log: after row `row` of `revision`, or after all of it."""

    revision: int
    row: int = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of the log, and the place where it ends; `complete` when that is the end of the log."""

    changes: Sequence[Change]
    end: Cursor
    complete: bool


def current(connection: sqlite3.Connection) -> int:
    """The current revision."""
    return _state(connection)[0]


def get(connection: sqlite3.Connection, key: bytes) -> Record | None:
    """The current record of `key`."""
    found = connection.execute(f"SELECT {_COLUMNS} FROM log WHERE key = ? AND superseded IS NULL", (key,)).fetchone()  # noqa: S608 - a constant
    return None if found is None else Record(*found)


def read(connection: sqlite3.Connection, prefix: bytes, after: bytes, limit: int, revision: int) -> Page:
    """One page of the keys under `prefix` after `after`, as Storage.range tells it."""
    now, compacted = _state(connection)
    if revision > now:
        raise FutureRevision(now)
    if revision and revision < compacted:
        raise Compacted(compacted)
    condition, arguments = _under(prefix, after)
    if revision in (0, now):
        condition += " AND superseded IS NULL"
    else:
        condition += " AND revision <= ? AND ifnull(superseded > ?, 1)"
        arguments += [revision, revision]
    # What is put together here are constants; every value is a parameter.
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM log WHERE {condition} ORDER BY key LIMIT ?",  # noqa: S608
        [*arguments, limit or -1],
    )
    records = [Record(*row) for row in rows]
    remaining = 0
    if limit and len(records) == limit:
        total: int = connection.execute(f"SELECT count(*) FROM log WHERE {condition}", arguments).fetchone()[0]  # noqa: S608
        remaining = total - limit
    return Page(records, revision or now, remaining)


def changes(connection: sqlite3.Connection, prefix: bytes, start: Cursor, limit: int) -> Stretch:
    """At most `limit` changes under `prefix` that come after `start`. Raises Compacted and FutureRevision."""
    now, compacted = _state(connection)
    if start.revision > now:
        raise FutureRevision(now)
    if start.revision < compacted:
        raise Compacted(compacted)
    condition, arguments = _under(prefix, column="+log.key")  # the + keeps SQLite on the index of revisions
    rows = connection.execute(
        f"SELECT log.id, log.revision, log.key, log.value, log.created, old.value, old.created, old.revision"  # noqa: S608
        f" FROM log LEFT JOIN log AS old ON old.id = log.previous"
        f" WHERE (log.revision, log.id) > (?, ?) AND {condition} ORDER BY log.revision, log.id LIMIT ?",
        [start.revision, start.row, *arguments, limit],
    ).fetchall()
    told = [
        Change(
            revision,
            key,
            None if value is None else Record(key, value, created, revision),
            None if old_revision is None else Record(key, old_value, old_created, old_revision),
        )
        for _, revision, key, value, created, old_value, old_created, old_revision in rows
    ]
    if len(rows) < limit:
        return Stretch(told, Cursor(now), True)
    return Stretch(told, Cursor(rows[-1][1], rows[-1][0]), False)


def commit(connection: sqlite3.Connection, ops: Sequence[Op]) -> Committed:
    """Check every op, then write all of them at the next revision. Raises Conflict before anything is written."""
    found = [_newest(connection, op.key) for op in ops]
    for op, old in zip(ops, found, strict=True):
        if op.expected is not None and op.expected != (old[1].modified if old else 0):
            raise Conflict(op.key)
    now = current(connection)
    done = [
        _write(connection, now + 1, op, old)
        for op, old in zip(ops, found, strict=True)
        if op.value is not None or old is not None
    ]
    if not done:
        return Committed(now, ())
    connection.execute("UPDATE state SET current = ?", (now + 1,))
    return Committed(now + 1, done)


def compact(connection: sqlite3.Connection, revision: int) -> None:
    """Refuse reads before `revision` from now on; `sweep` then deletes what nobody can read any more."""
    now, compacted = _state(connection)
    if revision > now:
        raise FutureRevision(now)
    if revision > compacted:
        connection.execute("UPDATE state SET compacted = ?", (revision,))


def sweep(connection: sqlite3.Connection, limit: int) -> bool:
    """Delete at most `limit` rows of compacted history; False once there is none left."""
    gone = connection.execute(
        "DELETE FROM log WHERE id IN"
        " (SELECT id FROM log WHERE superseded <= (SELECT compacted FROM state) ORDER BY superseded LIMIT ?)",
        (limit,),
    )
    return gone.rowcount == limit


def _state(connection: sqlite3.Connection) -> tuple[int, int]:
    row: tuple[int, int] = connection.execute("SELECT current, compacted FROM state").fetchone()
    return row


def _newest(connection: sqlite3.Connection, key: bytes) -> tuple[int, Record] | None:
    """The id and the record of the row that a write to `key` would supersede."""
    row: tuple[int, bytes, int, int] | None = connection.execute(
        "SELECT id, value, created, revision FROM log WHERE key = ? AND superseded IS NULL", (key,)
    ).fetchone()
    return None if row is None else (row[0], Record(key, *row[1:]))


def _write(connection: sqlite3.Connection, revision: int, op: Op, old: tuple[int, Record] | None) -> Change:
    previous = None
    created = revision
    if old is not None:
        row, previous = old
        created = previous.created
        connection.execute("UPDATE log SET superseded = ? WHERE id = ?", (revision, row))
    connection.execute(
        "INSERT INTO log (revision, key, value, created, previous, superseded) VALUES (?, ?, ?, ?, ?, ?)",
        (revision, op.key, op.value, created, old[0] if old else None, revision if op.value is None else None),
    )
    record = None if op.value is None else Record(op.key, op.value, created, revision)
    return Change(revision, op.key, record, previous)


def _under(prefix: bytes, after: bytes = b"", column: str = "key") -> tuple[str, list[bytes | int]]:
    """The SQL condition for keys that start with `prefix` and lie after `after`, with its arguments."""
    lower = f"{column} > ?" if after >= prefix else f"{column} >= ?"
    stem = prefix.rstrip(b"\xff")
    if not stem:
        return lower, [max(prefix, after)]
    return f"{lower} AND {column} < ?", [max(prefix, after), stem[:-1] + bytes([stem[-1] + 1])]
