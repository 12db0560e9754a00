"""Opening the database file: who may, what is in it, and a sentence for everything that can be wrong with it."""

import fcntl
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from onepass.storage import revisionlog
from onepass.storage.interface import Unusable

_APPLICATION = 0x0E9A55  # PRAGMA application_id, which tells our files from those of other programs
_SCHEMA_VERSION = 1


class Lock:
    """An exclusive lock that the kernel drops when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Locks `path` by a file of its own beside it. Raises Unusable when another open storage holds it."""
        real = path.resolve()  # one lock, whatever links lead to the file
        self._file = os.fdopen(_open(real.with_name(real.name + ".lock"), f"cannot lock the database {path}"), "r+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = self._file.read(20).strip()
            self._file.close()
            who = f" by process {holder}" if holder.isdigit() else ""
            raise Unusable(
                f"the database {path} is in use{who}: another onepass runs on it; stop that one or use another path"
            ) from error
        self._file.truncate(0)
        print(os.getpid(), file=self._file, flush=True)

    def release(self) -> None:
        self._file.close()


def connect(path: Path, count: int) -> Sequence[sqlite3.Connection]:
    """Connections to the database `path`, which is made if need be, each for any one thread.

    Call it with the lock held. Raises Unusable when the file cannot be had or is not a database of this schema.
    """
    os.close(_open(path, f"cannot open the database {path}"))
    connections: list[sqlite3.Connection] = []
    try:
        for _ in range(count):
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
            connections.append(connection)
            _check(connection, path)  # before anything that would alter a file of another program
            path.chmod(0o600)  # before SQLite puts files of the same mode beside it
            _configure(connection)
    except (sqlite3.DatabaseError, OSError, Unusable) as error:
        for connection in connections:
            connection.close()
        if isinstance(error, Unusable):
            raise
        if isinstance(error, sqlite3.DatabaseError) and error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise Unusable(f"{path} is not a database: move it away, or use another path") from error
        raise Unusable(f"cannot use the database {path}: {error}") from error
    return connections


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # NORMAL would lose the last commits with the power: a permission that was taken back would be there again.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -16000")  # KiB


def _open(path: Path, refusal: str) -> int:
    """A descriptor of `path`, which is created for its owner alone if need be; SQLite gives the same mode to the files
    that it puts beside the database. Raises Unusable with `refusal` and the reason."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as error:
        raise Unusable(f"{refusal}: the directory {path.parent} does not exist") from error
    except OSError as error:
        raise Unusable(f"{refusal}: {os.strerror(error.errno or 0)}") from error


def _check(connection: sqlite3.Connection, path: Path) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    if application == _APPLICATION and version == _SCHEMA_VERSION:
        return
    if application == _APPLICATION and version > _SCHEMA_VERSION:
        raise Unusable(
            f"the database {path} was written by a newer onepass (schema {version}, this one knows {_SCHEMA_VERSION}): "
            "use that version, or restore a backup"
        )
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise Unusable(f"{path} is a database of another program: use another path")
    connection.executescript(
        f"BEGIN; {revisionlog.SCHEMA}"
        f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;"
    )
