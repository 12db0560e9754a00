"""How controllers write status: through the registry's store, as the system itself."""

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
    """Writes `status` of one kind's objects."""

    store: Store

    async def write(self, name: str, uid: str, status: Callable[[Object], Object]) -> None:
        """Replace the status by what `status` makes of it. An object that is gone, or another by now, is left alone."""

        def change(obj: Object) -> Object:
            if meta.uid(obj) != uid:
                return obj
            return obj | {"status": status(meta.section(obj, "status"))}

        try:
            await self.store.update("", name, change, Write(actor(), field_validation="Ignore", subresource="status"))
        except ApiError as refused:
            if refused.reason != "NotFound":
                raise
