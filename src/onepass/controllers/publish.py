"""Objects to the data plane: compiles the policy and the members, and hands the whole to the discovery service.

Changes are held for a moment, so that an import of a hundred clusters is a few snapshots and not a hundred; the moment
has an end, so that a steady stream of changes cannot starve it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from onepass.access.policy import Policy
from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.controllers.feed import Objects
from onepass.gateway.ir import Member
from onepass.pki.sealing import SealError
from onepass.registry.sealed import Outdated

CLUSTERS = "clusters.cluster.karpor.io"
HOLD_SECONDS = 0.005  # a change waits this long for its neighbours
HOLD_LONGEST_SECONDS = 0.05
RETRY_SECONDS = 1.0  # while the storage does not answer

log = structlog.get_logger(__name__)


_Made = tuple[object, Member | None]  # what it was made of, and None for what cannot be one


class Secrets(Protocol):
    """Where the write-only part of a cluster is read; raises ValueError when it cannot be unsealed.

    Outdated says that the cluster is of another generation by now.
    """

    async def secret(self, name: str, uid: str, generation: JSON = None) -> bytes | None: ...


class Plane(Protocol):
    """Takes what the data plane should be. `member` may raise ValueError for a cluster that cannot be one."""

    def policy(self) -> Policy: ...

    def member(self, cluster: Object, secret: bytes | None) -> Member: ...

    def show(self, policy: Policy, members: dict[str, Member]) -> None: ...


@dataclass(slots=True)
class Publish:
    """The controller. It keeps the members it made, by the generation of their cluster, so that only changes cost."""

    objects: Objects
    secrets: Secrets
    plane: Plane
    published: Callable[[int], None] = lambda _generation: None
    _members: dict[str, _Made] = field(default_factory=dict)
    _unread: bool = False  # a credential could not be read from the storage

    async def run(self) -> None:
        """Until cancelled."""
        generation = -1
        while True:
            generation = await self.objects.changed(generation)
            generation = await self._held(generation)
            await self.publish()
            self.published(generation)
            while self._unread:
                await asyncio.sleep(RETRY_SECONDS)
                await self.publish()

    def again(self) -> None:
        """With the next change of the mirror, try those again that could not be made."""
        self._members = {name: made for name, made in self._members.items() if made[1]}

    async def _held(self, generation: int) -> int:
        clock = asyncio.get_running_loop().time
        end = clock() + HOLD_LONGEST_SECONDS
        while (left := end - clock()) > 0:
            try:
                async with asyncio.timeout(min(HOLD_SECONDS, left)):
                    generation = await self.objects.changed(generation)
            except TimeoutError:
                break
        return generation

    async def publish(self) -> None:
        """One snapshot of everything."""
        self._unread = False
        clusters = self.objects.list(CLUSTERS)
        members: dict[str, _Made] = {}
        for cluster in clusters:
            name = meta.name(cluster)
            key = _key(cluster)
            known = self._members.get(name)
            made = known if known and known[0] == key else await self._made(cluster, key, known)
            if made:
                members[name] = made
        self._members = members
        self.plane.show(self.plane.policy(), {name: member for name, (_, member) in members.items() if member})

    async def _made(self, cluster: Object, key: object, known: _Made | None) -> _Made | None:
        metadata = meta.section(cluster, "metadata")
        name, generation = meta.name(cluster), metadata.get("generation")
        try:
            secret = await self.secrets.secret(name, meta.uid(cluster), generation)
            return key, self.plane.member(cluster, secret)
        except Outdated:  # the mirror is about to tell: no credential goes to where another one was meant to
            self._unread = True  # and where it tells nothing more, this is tried again
            return known
        except ApiError as error:  # the storage does not answer: what is published stays, and this is tried again
            log.info("cluster is not published yet", cluster=name, error=error.message)
            self._unread = True
            return known
        except SealError as error:  # its conditions tell it as well; a lost key may close thousands
            log.info("cluster is not published", cluster=name, error=str(error))
        except Exception as error:  # noqa: BLE001  one bad cluster must not keep the others from being published
            log.warning("cluster is not published", cluster=name, error=str(error))
        return key, None


def _key(cluster: Object) -> object:
    """What a member is made of: the spec, by its generation, and the protocol that the probe saw."""
    generation = meta.section(cluster, "metadata").get("generation")
    return meta.uid(cluster), generation, meta.section(cluster, "status").get("alpn")
