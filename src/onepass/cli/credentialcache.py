"""What a login leaves on the user's machine: one file for each provider or gateway, readable by the user alone.

A lock beside each file lets one of several kubectl renew it while the others wait for the result.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from onepass.cli.failure import Failure

WAIT_SECONDS = 360.0  # longer than a person gets to sign in


def folder(environment: Mapping[str, str] = os.environ) -> Path:
    """$ONEPASS_CACHE_DIR, else `onepass` in $XDG_CACHE_HOME, else in ~/.cache."""
    if chosen := environment.get("ONEPASS_CACHE_DIR", ""):
        return Path(chosen)
    base = environment.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "onepass"


@dataclass(frozen=True, slots=True)
class Slot:
    """One file."""

    path: Path

    @classmethod
    def of(cls, where: Path, *what: str) -> "Slot":
        """The file for `what`: the same words, the same file."""
        name = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]
        return cls(where / f"{name}.json")

    def read(self) -> dict[str, object]:
        """What is kept; nothing for a file that is missing or damaged, or that others may read."""
        try:
            if self.path.stat().st_mode & 0o077 or self.path.stat().st_uid != os.getuid():
                return {}
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, content: Mapping[str, object]) -> None:
        from onepass.runtime import datadir

        try:
            datadir.write_private(self.path, json.dumps(content).encode())
        except OSError as error:
            raise Failure(
                f"{self.path} cannot be written ({error.strerror})", "name a folder by ONEPASS_CACHE_DIR"
            ) from error

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)

    @contextmanager
    def locked(self, seconds: float = WAIT_SECONDS) -> Iterator[None]:
        """Hold the lock for the block; it is let go when the process ends, however it does. Raises Failure."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Failure(
                f"{self.path.parent} cannot be used ({error.strerror})", "name a folder by ONEPASS_CACHE_DIR"
            ) from error
        try:
            deadline = time.monotonic() + seconds
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise Failure(
                            "another process has been signing in for too long", f"see who holds {self.path}"
                        ) from None
                    time.sleep(0.05)
            yield
        finally:
            os.close(handle)
