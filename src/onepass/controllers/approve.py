"""Approves requests for a short-lived certificate in the requester's own name, for whom an administrator allows that.

The right is `create certificatesigningrequests/selfclient`, after the `selfnodeclient` by which Kubernetes' approving
controller lets kubelets renew theirs. Nobody has it at first.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from onepass.access.attributes import Attributes
from onepass.access.identity import Identity
from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.controllers import feed
from onepass.controllers.loop import Loop
from onepass.registry import lifecycle

REQUESTS = "certificatesigningrequests.certificates.k8s.io"
LONGEST_SECONDS = 24 * 3600
RIGHT = Attributes("create", "", True, "certificates.k8s.io", "v1", "certificatesigningrequests", "selfclient")


class Requests(Protocol):
    """Writes the status of a request; the registry's store in disguise."""

    async def write(self, name: str, uid: str, status: Callable[[Object], Object]) -> None: ...


# Whom a request in PEM would name: the user and the groups. Raises ValueError.
Named = Callable[[Object], tuple[str, tuple[str, ...]]]


def wanted(request: Object, named: Named) -> Identity | None:
    """Who asks, when it is for themselves, for a day at most, and not decided yet; otherwise None."""
    spec, status = meta.section(request, "spec"), meta.section(request, "status")
    if status.get("conditions") or status.get("certificate"):
        return None
    seconds = spec.get("expirationSeconds")
    if not isinstance(seconds, int) or seconds > LONGEST_SECONDS:
        return None
    listed = spec.get("groups")
    groups = tuple(each for each in listed if isinstance(each, str)) if isinstance(listed, list) else ()
    asks = Identity(meta.text(spec, "username"), groups, meta.text(spec, "uid"))
    try:
        user, organizations = named(request)
    except ValueError:
        return None
    return asks if user == asks.user and set(organizations) <= set(groups) else None


@dataclass(slots=True)
class Approve:
    """The controller. `allows` is the gateway's own authorization."""

    objects: feed.Objects
    requests: Requests
    named: Named
    allows: Callable[[Identity, Attributes], bool]
    clock: Callable[[], float] = time.time

    async def run(self) -> None:
        """Until cancelled."""
        await feed.run(self.objects, REQUESTS, Loop("approve", self.reconcile))

    async def reconcile(self, name: str) -> float | None:
        request = self.objects.get(REQUESTS, name)
        asks = wanted(request, self.named) if request is not None else None
        if request is None or asks is None or not self.allows(asks, RIGHT):
            return None
        stamp = lifecycle.timestamp(self.clock())
        condition: Object = {
            "type": "Approved",
            "status": "True",
            "reason": "AutoApproved",
            "message": "the requester may renew a short-lived certificate in their own name",
            "lastUpdateTime": stamp,
            "lastTransitionTime": stamp,
        }

        def approve(status: Object) -> Object:
            told: list[JSON] = [condition]
            return status if status.get("conditions") else status | {"conditions": told}

        await self.requests.write(name, meta.uid(request), approve)
        return None
