"""Deletes certificate signing requests that nobody needs any more, as kube-controller-manager's csrcleaner does.

One that has got its certificate is kept until that ends: it is the record by which the certificate is taken back.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from onepass.api import meta
from onepass.api.meta import Object
from onepass.controllers import feed
from onepass.controllers.loop import Loop

REQUESTS = "certificatesigningrequests.certificates.k8s.io"
PENDING_SECONDS, SETTLED_SECONDS = 24 * 3600.0, 3600.0  # as in k8s.io/kubernetes/pkg/controller/certificates/cleaner


class Requests(Protocol):
    """Deletes; the registry's store in disguise."""

    async def delete(self, name: str, uid: str) -> None: ...


# When the certificate of a request ends (Unix seconds); None when it has none, or one that cannot be read.
Ends = Callable[[Object], float | None]


def due(request: Object, ends: Ends) -> float:
    """When a request is to go (Unix seconds)."""
    end = ends(request)
    if end is not None:
        return end
    status = meta.section(request, "status")
    conditions = status.get("conditions")
    since = [_moment(meta.section(request, "metadata"), "creationTimestamp")]
    listed = [each for each in (conditions if isinstance(conditions, list) else []) if isinstance(each, dict)]
    since += [_moment(condition, "lastUpdateTime") for condition in listed]
    return max(since) + (SETTLED_SECONDS if listed else PENDING_SECONDS)


def _moment(obj: Object, key: str) -> float:
    try:
        return datetime.fromisoformat(meta.text(obj, key)).timestamp()
    except ValueError:
        return 0.0


@dataclass(slots=True)
class Clean:
    """The controller."""

    objects: feed.Objects
    requests: Requests
    ends: Ends
    clock: Callable[[], float] = time.time

    async def run(self) -> None:
        """Until cancelled."""
        await feed.run(self.objects, REQUESTS, Loop("clean", self.reconcile))

    async def reconcile(self, name: str) -> float | None:
        request = self.objects.get(REQUESTS, name)
        if request is None:
            return None
        left = due(request, self.ends) - self.clock()
        if left > 0:
            return left
        await self.requests.delete(name, meta.uid(request))
        return None
