"""Objects to the data plane: compiles the policy and the members, and hands the whole to the discovery service.

Changes are held for a moment, so that an import of a hundred clusters is a few snapshots and not a hundred; the moment
has an end, so that a steady stream of changes cannot starve it.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from onepass.access.policy import Policy
from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.controllers import feed
from onepass.controllers.feed import Objects
from onepass.gateway.ir import Member
from onepass.pki.sealing import SealError
from onepass.registry import changes, currentpolicy
from onepass.registry.changes import Changes
from onepass.registry.sealed import Outdated

CLUSTERS = "clusters.cluster.karpor.io"
HOLD_SECONDS = 0.005  # a change waits this long for its neighbours
HOLD_LONGEST_SECONDS = 0.05
RETRY_SECONDS = 1.0  # while the storage does not answer
HOLD_FOUND_SECONDS = 0.5  # one that nobody asked for: a probe has seen which protocol a member speaks

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
    published: Callable[[], None] = lambda: None
    _members: dict[str, _Made] = field(default_factory=dict)
    _unread: set[str] = field(default_factory=set)  # whose credential could not be read from the storage

    async def run(self) -> None:
        """Until cancelled."""
        wanted = self.objects.follow(currentpolicy.CONCERNS)
        every = self.objects.follow({**currentpolicy.CONCERNS, CLUSTERS: _concern})
        wanted.take()
        changed = every.take()
        while True:
            await self.publish({name for key, name in changed if key == CLUSTERS})
            self.published()
            try:
                async with asyncio.timeout(RETRY_SECONDS if self._unread else None):
                    changed = await every.next()
            except TimeoutError:
                changed = frozenset()
            else:
                await _held(wanted)
                changed |= every.take()

    def again(self) -> None:
        """With the next change of the mirror, try those again that could not be made."""
        self._members = {name: made for name, made in self._members.items() if made[1]}

    async def publish(self, changed: Iterable[str]) -> None:
        """One snapshot of everything, for which these clusters are looked at."""
        unread, self._unread = self._unread, set()
        for name in sorted(unread.union(changed)):
            cluster, known = self.objects.get(CLUSTERS, name), self._members.pop(name, None)
            if cluster is None:
                continue
            key = _key(cluster)
            made = known if known and known[0] == key else await self._made(cluster, key, known)
            if made:
                self._members[name] = made
        members = {name: member for name, (_, member) in self._members.items() if member}
        self.plane.show(self.plane.policy(), members)

    async def _made(self, cluster: Object, key: object, known: _Made | None) -> _Made | None:
        metadata = meta.section(cluster, "metadata")
        name, generation = meta.name(cluster), metadata.get("generation")
        try:
            secret = await self.secrets.secret(name, meta.uid(cluster), generation)
            return key, self.plane.member(cluster, secret)
        except Outdated:  # the mirror is about to tell: no credential goes to where another one was meant to
            self._unread.add(name)  # and where it tells nothing more, this is tried again
            return known
        except ApiError as error:  # the storage does not answer: what is published stays, and this is tried again
            log.info("cluster is not published yet", cluster=name, error=error.message)
            self._unread.add(name)
            return known
        except SealError as error:  # its conditions tell it as well; a lost key may close thousands
            log.info("cluster is not published", cluster=name, error=str(error))
        except Exception as error:  # noqa: BLE001  one bad cluster must not keep the others from being published
            log.warning("cluster is not published", cluster=name, error=str(error))
        return key, None


async def _held(wanted: Changes) -> None:
    """Returns when what has changed is to be shown, with what came meanwhile of what was asked for."""
    if not wanted.take():
        try:
            async with asyncio.timeout(HOLD_FOUND_SECONDS):
                await wanted.next()
        except TimeoutError:
            return
    clock = asyncio.get_running_loop().time
    end, count = clock() + HOLD_LONGEST_SECONDS, -1
    while wanted.count != count and (left := end - clock()) > 0:
        count = wanted.count
        await asyncio.sleep(min(HOLD_SECONDS, left))
    wanted.take()


def _concern(cluster: Object) -> object:
    return changes.wanted(cluster), _alpn(cluster)


def _key(cluster: Object) -> object:
    """What a member is made of: what was asked for, and the protocol that the probe saw."""
    return meta.uid(cluster), feed.generation(cluster), _alpn(cluster)


def _alpn(cluster: Object) -> JSON:
    return meta.section(cluster, "status").get("alpn")
