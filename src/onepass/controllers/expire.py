"""Says of every pass whether it is in force, why not, and which clusters it opens.

The gatekeeper reads the clock itself, so nothing here is needed for a pass to begin or to end: this is for people.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from onepass.access.policy import Policy
from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.controllers import feed
from onepass.controllers.loop import Loop
from onepass.registry import changes, lifecycle

PASSES = "passes.access.karpor.io"
CLUSTERS = "clusters.cluster.karpor.io"
NAMES = 50  # of the clusters of a pass, as many are told in its status


class Statuses(Protocol):
    """Writes the status of a pass; the registry's store in disguise."""

    async def write(self, name: str, uid: str, status: Callable[[Object], Object]) -> None: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """What is to be told of a pass, and after how many seconds that changes by itself (None: never)."""

    in_force: bool
    reason: str
    message: str
    clusters: tuple[str, ...]
    changes_in: float | None


def standing(granted: Object, clusters: frozenset[str], now: float) -> Standing:
    """How a pass stands at `now` (Unix seconds), given the names of those of its clusters that exist."""
    spec = meta.section(granted, "spec")
    begin, end = (_seconds(meta.text(spec, field)) for field in ("notBefore", "notAfter"))
    names = tuple(sorted(clusters))
    if spec.get("suspended") is True:
        return Standing(False, "Suspended", "an administrator has suspended it", (), None)
    if end is not None and now >= end:
        return Standing(False, "Expired", f"it ended at {meta.text(spec, 'notAfter')}", (), None)
    if begin is not None and now < begin:
        return Standing(False, "NotYet", f"it begins at {meta.text(spec, 'notBefore')}", (), begin - now)
    left = None if end is None else end - now
    if not names:
        return Standing(False, "NoClusters", "no cluster has one of its names or matches its selector", (), left)
    opened = "1 cluster" if len(names) == 1 else f"{len(names)} clusters"
    return Standing(True, "InForce", f"it opens {opened}", names, left)


def _seconds(moment: str) -> float | None:
    try:
        return datetime.fromisoformat(moment).timestamp() if moment else None
    except ValueError:
        return None


def applied(status: Object, told: Standing, generation: JSON, now: float) -> Object:
    """The status that tells `told`; equal to the one before when nothing has changed."""
    old = status.get("conditions")
    before = next((c for c in old if isinstance(c, dict)), {}) if isinstance(old, list) else {}
    value = "True" if told.in_force else "False"
    stamp = lifecycle.timestamp(now)
    condition: Object = {
        "type": "InForce",
        "status": value,
        "reason": told.reason,
        "message": told.message,
        "lastTransitionTime": before.get("lastTransitionTime", stamp) if before.get("status") == value else stamp,
    }
    return status | {
        "inForce": told.in_force,
        "clusters": list(told.clusters[:NAMES]),
        "observedGeneration": generation,
        "conditions": [condition],
    }


@dataclass(slots=True)
class Expire:
    """The controller."""

    objects: feed.Objects
    policy: Callable[[], Policy]
    statuses: Statuses
    clock: Callable[[], float] = time.time
    _opened: tuple[Policy | None, dict[str, frozenset[str]]] = field(default_factory=lambda: (None, {}))

    async def run(self) -> None:
        """Until cancelled."""
        loop = Loop("expire", self.reconcile)
        await feed.run(self.objects, PASSES, loop, self._version, beside={CLUSTERS: changes.wanted})

    async def reconcile(self, name: str) -> float | None:
        granted = self.objects.get(PASSES, name)
        if granted is None:
            return None
        now = self.clock()
        told = standing(granted, self._clusters(name), now)
        generation = meta.section(granted, "metadata").get("generation")
        status = meta.section(granted, "status")
        if applied(status, told, generation, now) != status:
            await self.statuses.write(name, meta.uid(granted), lambda current: applied(current, told, generation, now))
        return told.changes_in

    def _version(self, granted: Object) -> object:
        return meta.section(granted, "metadata").get("generation"), self._clusters(meta.name(granted))

    def _clusters(self, name: str) -> frozenset[str]:
        policy = self.policy()
        if self._opened[0] is not policy:
            existing = frozenset(policy.targets)
            opened = {g.origin: existing if "*" in g.clusters else g.clusters & existing for g in policy.grants}
            self._opened = (policy, opened)
        return self._opened[1].get(name, frozenset())
