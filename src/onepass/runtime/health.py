"""What `/readyz` asks, and what the data plane says of itself."""

from collections.abc import Mapping

import structlog

from onepass.apiserver.ports import Check
from onepass.registry.mirror import Mirror
from onepass.storage.interface import Storage, StorageError
from onepass.xds.stream import Rejection

log = structlog.get_logger(__name__)


class Health:
    """The checks; also the observer of the discovery service, which hears which Envoys are there."""

    def __init__(self, storage: Storage, mirror: Mirror) -> None:
        self._storage = storage
        self._mirror = mirror
        self._nodes: dict[str, int] = {}

    def checks(self) -> Mapping[str, Check]:
        """By the name that `/readyz/NAME` has."""
        return {"storage": self._stored, "mirror": self._mirrored, "data-plane": self._carried}

    def connected(self, node: str) -> None:
        self._nodes[node] = self._nodes.get(node, 0) + 1
        log.info("data plane connected", node=node)

    def disconnected(self, node: str) -> None:
        left = self._nodes.get(node, 0) - 1
        if left > 0:
            self._nodes[node] = left
        else:
            self._nodes.pop(node, None)
        log.info("data plane disconnected", node=node)

    def rejected(self, rejection: Rejection) -> None:
        log.error(
            "the data plane rejects its configuration and keeps the one before",
            node=rejection.node,
            type=rejection.type_url,
            message=rejection.message,
        )

    async def _stored(self) -> str:
        try:
            await self._storage.revision()
        except StorageError as error:
            return str(error)
        return ""

    async def _mirrored(self) -> str:
        await self._mirror.synced()
        return ""

    async def _carried(self) -> str:
        return "" if self._nodes else "no Envoy is connected"
