"""Says of every pass when a request was last allowed by it: `status.lastUsed`, for people.

The data plane knows, and only its audit log tells. A pass is written at most once a minute, and few at a time.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import Object
from onepass.controllers import feed
from onepass.controllers.expire import PASSES
from onepass.registry import lifecycle

log = structlog.get_logger(__name__)

LOOK_SECONDS, WRITE_SECONDS, MOST_WRITES = 5.0, 60.0, 50


class Uses(Protocol):
    """What the data plane did."""

    async def news(self) -> Mapping[str, float]:
        """The last use (Unix seconds) of each pass that was used since the last call."""
        ...


class Statuses(Protocol):
    """Writes the status of a pass; the registry's store in disguise."""

    async def write(self, name: str, uid: str, status: Callable[[Object], Object]) -> None: ...


@dataclass(slots=True)
class Used:
    """The controller."""

    objects: feed.Objects
    uses: Uses
    statuses: Statuses
    clock: Callable[[], float] = time.time
    _untold: dict[str, float] = field(default_factory=dict)
    _written: dict[str, float] = field(default_factory=dict)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Take what is new, and write what is due, longest waiting first."""
        for name, moment in (await self.uses.news()).items():
            self._untold[name] = max(moment, self._untold.get(name, moment))
        now = self.clock()
        self._written = {name: at for name, at in self._written.items() if now - at < WRITE_SECONDS}
        due = [name for name in self._untold if name not in self._written][:MOST_WRITES]
        for name in due:
            moment = self._untold.pop(name)
            granted = self.objects.get(PASSES, name)
            if granted is not None:
                self._written[name] = now
                try:
                    await self.statuses.write(name, meta.uid(granted), functools.partial(later, moment=moment))
                except ApiError as error:  # it is told with the next use, or in a minute
                    log.debug("the use of a pass cannot be written", name=name, error=error.message)
                    self._untold.setdefault(name, moment)


def later(status: Object, moment: float) -> Object:
    """The status with this use, unless it tells of a later one."""
    stamp = lifecycle.timestamp(moment)
    return status if meta.text(status, "lastUsed") >= stamp else {**status, "lastUsed": stamp}
