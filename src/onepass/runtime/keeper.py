"""Keeps the trust of a running gateway up to date: what ends is renewed, what changed on the disk is taken over.

Everything reaches the data plane as a secret or a filter's configuration, so no listener drains and no stream is cut.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from onepass.runtime import trust
from onepass.runtime.datadir import DataDir
from onepass.runtime.settings import Settings, SettingsError
from onepass.runtime.sharedkeys import NotShared
from onepass.runtime.trust import Trust

log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0
_ANYWAY_SECONDS = 3600.0  # what ends soon is noticed without a change of files


Share = Callable[[], Awaitable[None]]  # brings what was made in step with other replicas; raises NotShared


async def _alone() -> None:
    """There are no other replicas."""


@dataclass(slots=True)
class Keeper:
    """Holds the trust of now. `changed` is called with each new one."""

    data: DataDir
    settings: Settings
    trust: Trust
    share: Share = _alone
    changed: Callable[[Trust], None] = lambda _trust: None
    clock: Callable[[], float] = time.time
    _seen: object = field(init=False)
    _looked: float = field(init=False)

    def __post_init__(self) -> None:
        self._seen, self._looked = self._stamp(), self.clock()

    def sign_client(self, request: bytes, seconds: int | None) -> bytes:
        """As Trust.sign_client, with the authority that issues now."""
        return self.trust.sign_client(request, seconds)

    def revocations(self, serials: frozenset[str]) -> bytes:
        """As Trust.revocations, for the authorities of now."""
        return self.trust.revocations(serials)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Load anew if there is a reason to. What cannot be loaded is told, and what was trusted stays trusted."""
        now, stamp = self.clock(), self._stamp()
        if stamp == self._seen and now - self._looked < _ANYWAY_SECONDS:
            return
        try:
            trust.prepare(self.data, now)
            await self.share()
            found = trust.load(self.data, self.settings, now, self.trust)
        except NotShared as error:
            log.debug("the authorities of all replicas cannot be compared now", error=str(error))
            return  # and tried again with the next look
        except SettingsError as error:
            if stamp != self._seen:
                log.warning("the changed authorities cannot be used, those of before stay", error=str(error))
            self._seen, self._looked = stamp, now
            return
        self._looked = now
        self._seen = self._stamp()  # preparing may have made the next authority, and sharing brought one
        if found != self.trust:
            log.info("authorities or certificates have changed")
            self.trust = found
            self.changed(found)

    def _stamp(self) -> object:
        extra = (self.settings.client_ca_file, self.settings.client_crl_file)
        return tuple(map(_written, sorted(self.data.pki.glob("*-ca*")))), tuple(map(_written, filter(None, extra)))


def _written(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), found.st_mtime_ns, found.st_ino
