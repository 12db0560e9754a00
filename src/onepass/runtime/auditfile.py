"""The audit log's file: Envoy writes it; here it is made before, and set aside when it has grown.

A file is renamed first and reopened by Envoy afterwards, so that each record ends up in one of the two.
"""

import asyncio
import contextlib
import itertools
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import structlog

from onepass.runtime.settings import SettingsError

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 1.0
_LOOKS = 5  # after so many looks at the file, Envoy is asked whether it could write
_COUNTS = re.compile(r"^filesystem\.write_(failed|completed): (\d+)$", re.MULTILINE)


@dataclass(slots=True)
class AuditFile:
    """One file; `maxsize` in bytes, `maxbackup` 0 keeps every file that was set aside. `admin` is Envoy's socket."""

    path: Path
    maxsize: int
    maxbackup: int
    admin: str
    _reopen: bool = field(default=False, init=False)  # Envoy has yet to be told of a new file
    _failed: int = field(default=0, init=False)  # writes that Envoy could not do, when it was asked last
    _completed: int = field(default=0, init=False)  # those that it could
    _losing: bool = field(default=False, init=False)

    def prepare(self) -> None:
        """Make the file for its owner alone: Envoy would let others read it. Raises SettingsError with a sentence."""
        try:
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
        except OSError as error:
            told = f"--audit-log-path {self.path}: {error.strerror}; name a file where you may write"
            raise SettingsError(told) from error

    async def run(self) -> None:
        """Until cancelled."""
        transport = httpx2.AsyncHTTPTransport(uds=self.admin)
        async with httpx2.AsyncClient(transport=transport, timeout=5) as client:
            for number in itertools.count():
                await asyncio.sleep(_LOOK_SECONDS)
                await self.look(client)
                if number % _LOOKS == 0:
                    await self.ask(client)

    async def ask(self, client: httpx2.AsyncClient) -> None:
        """Tell when records are lost because Envoy cannot write them (the disk is full), and when that is over."""
        try:
            answer = (
                await client.get("http://envoy/stats", params={"filter": "^filesystem.write_"})
            ).raise_for_status()
        except httpx2.HTTPError:  # an Envoy that is away writes nothing, and who starts it tells of that
            return
        counts = {what: int(count) for what, count in _COUNTS.findall(answer.text)}
        failed, completed = counts.get("failed", 0), counts.get("completed", 0)
        if failed < self._failed or completed < self._completed:  # a new Envoy counts from 0
            self._failed = self._completed = 0
        # Where nothing was to be written, nothing is known to be better.
        losing = failed > self._failed or (self._losing and completed == self._completed)
        if losing and not self._losing:
            log.error("the audit log cannot be written, records are lost: is the disk full?", path=str(self.path))
        elif self._losing and not losing:
            log.warning("the audit log is written again", path=str(self.path), writes_lost=failed)
        self._failed, self._completed, self._losing = failed, completed, losing

    async def look(self, client: httpx2.AsyncClient) -> None:
        """Set the file aside if it is too large. `client` asks Envoy's admin interface."""
        try:
            if not self._reopen and self.path.stat().st_size >= self.maxsize:
                self.path.rename(self._aside())
                self._reopen = True
            if self._reopen:
                self.prepare()
                (await client.post("http://envoy/reopen_logs")).raise_for_status()
                self._reopen = False
                self._prune()
        except FileNotFoundError:
            self._reopen = True  # somebody took it away
        except (OSError, httpx2.HTTPError, SettingsError) as error:
            log.warning("the audit log cannot be set aside yet", path=str(self.path), error=str(error))

    def backups(self) -> list[Path]:
        """What was set aside, oldest first."""
        return sorted(self.path.parent.glob(f"{self.path.stem}-[0-9][0-9][0-9][0-9]-*{self.path.suffix}"))

    def _aside(self) -> Path:
        # As lumberjack has it, which kube-apiserver uses: names that sort by time.
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
        return self.path.with_name(f"{self.path.stem}-{moment}{self.path.suffix}")

    def _prune(self) -> None:
        for old in self.backups()[: -self.maxbackup] if self.maxbackup else ():
            with contextlib.suppress(FileNotFoundError):
                old.unlink()
