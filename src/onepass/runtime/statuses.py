"""How controllers write: through the registry's store, as the system itself."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from onepass.access.identity import Identity
from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import Object
from onepass.registry.store import Store, Write
from onepass.registry.strategy import Actor

SYSTEM = Identity("system:onepass", ("system:authenticated",))


def actor() -> Actor:
    """The system, now."""
    return Actor(SYSTEM, time.time(), "onepass")


@dataclass(frozen=True, slots=True)
class Statuses:
    """Writes what controllers write of one kind's objects: `status`, or the rest."""

    store: Store

    async def write(self, name: str, uid: str, status: Callable[[Object], Object]) -> None:
        """Replace the status by what `status` makes of it. An object that is gone, or another by now, is left alone."""

        await self._write(name, uid, lambda obj: obj | {"status": status(meta.section(obj, "status"))}, "status")

    async def change(self, name: str, uid: str, change: Callable[[Object], Object]) -> None:
        """Replace the object by what `change` makes of it, everything but its status; else as `write`."""
        await self._write(name, uid, change, "")

    async def delete(self, name: str, uid: str) -> None:
        """Delete the object. One that is gone, or another by now, or may not be deleted yet, is left alone."""
        try:
            await self.store.delete("", name, Write(actor()), uid=uid)
        except ApiError as refused:
            if refused.code not in (403, 404, 409):
                raise

    async def _write(self, name: str, uid: str, change: Callable[[Object], Object], subresource: str) -> None:
        def same(obj: Object) -> Object:
            return change(obj) if meta.uid(obj) == uid else obj

        try:
            await self.store.update("", name, same, Write(actor(), field_validation="Ignore", subresource=subresource))
        except ApiError as refused:
            if refused.reason != "NotFound":
                raise
