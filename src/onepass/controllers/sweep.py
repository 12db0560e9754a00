"""Empties namespaces that have been deleted."""

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog

from onepass.access.identity import Identity
from onepass.api.errors import ApiError
from onepass.registry import namespaces
from onepass.registry.mirror import Mirror
from onepass.registry.store import Store
from onepass.registry.strategy import Actor

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0


class Sweep:
    """Deletes what is left behind, whenever a namespace has changed; `stores` by Resource.key."""

    def __init__(self, stores: Mapping[str, Store], clock: Callable[[], float] = time.time) -> None:
        self._stores = stores
        self._namespaces = stores[namespaces.RESOURCE.key]
        self._mirror = Mirror({namespaces.RESOURCE.key: self._namespaces})
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._mirror.run())
            await self._mirror.synced()
            while True:
                generation = self._mirror.generation
                actor = Actor(Identity("system:serviceaccount:kube-system:namespace-controller"), self._clock())
                try:
                    await namespaces.sweep(self._namespaces, tuple(self._stores.values()), actor)
                except ApiError as error:
                    log.warning("deleted namespaces are not emptied yet", error=error.message)
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                await self._mirror.changed(generation)
