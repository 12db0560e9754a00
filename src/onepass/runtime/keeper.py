"""Keeps the trust of a running gateway up to date: what ends is renewed, what changed on the disk is taken over.

Everything reaches the data plane as a secret or a filter's configuration, so no listener drains and no stream is cut.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from onepass.runtime import trust
from onepass.runtime.datadir import DataDir
from onepass.runtime.sealer import Sealer
from onepass.runtime.settings import Settings, SettingsError
from onepass.runtime.sharedkeys import NotShared, SharedKeys
from onepass.runtime.trust import Trust

log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0
_PAUSE = 0.5  # seconds between tries to get the keys of all replicas
_ANYWAY_SECONDS = 3600.0  # what ends soon is noticed without a change of files


@dataclass(slots=True)
class Keeper:
    """Holds the trust of now. `changed` is called with each new one."""

    data: DataDir
    settings: Settings
    trust: Trust
    shared: SharedKeys | None = None  # with other replicas
    changed: Callable[[Trust], None] = lambda _trust: None
    clock: Callable[[], float] = time.time
    _seen: object = field(init=False)
    _looked: float = field(init=False)

    def __post_init__(self) -> None:
        self._seen, self._looked = self._stamp(), self.clock()

    @classmethod
    async def open(
        cls,
        data: DataDir,
        settings: Settings,
        sealer: Sealer,
        shared: SharedKeys | None,
        waiting: Callable[[str], None],
    ) -> "Keeper":
        """With the keys that the gateway begins with. `waiting` hears why those of other replicas are not to be had.

        Raises SettingsError for what a person must mend.
        """
        if shared is not None:
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(sealer.run(), name="seal")  # a plugin is asked only while this runs
                await _joined(data, shared, waiting)
                asked.cancel()
        trust.prepare(data, time.time())
        return cls(data, settings, trust.load(data, settings, time.time()), shared)

    def sign_client(self, request: bytes, seconds: int | None) -> bytes:
        """As Trust.sign_client, with the authority that issues now."""
        return self.trust.sign_client(request, seconds)

    def revocations(self, serials: frozenset[str]) -> bytes:
        """As Trust.revocations, for the authorities of now."""
        return self.trust.revocations(serials)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self.shared:
                group.create_task(self.shared.follow(self._again), name="shared keys")
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                await self.look()

    def _again(self) -> None:
        self._seen = None

    async def look(self) -> None:
        """Load anew if there is a reason to. What cannot be loaded is told, and what was trusted stays trusted."""
        now, stamp = self.clock(), self._stamp()
        if stamp == self._seen and now - self._looked < _ANYWAY_SECONDS:
            return
        try:
            trust.prepare(self.data, now)
            if self.shared:
                await self.shared.share()
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


async def _joined(data: DataDir, shared: SharedKeys, waiting: Callable[[str], None]) -> None:
    told, unused = "", False
    while True:
        try:
            await shared.share(unused=unused)  # before anything is made that others have
            unused = unused or shared.none()
            trust.prepare(data, time.time())
            await shared.share(unused=unused)
            shared.begin()
            return
        except NotShared as error:
            if str(error) != told:
                told = str(error)
                waiting(f"waiting for the keys that all replicas share: {told}")
        await asyncio.sleep(_PAUSE)
