"""Gives an approved CertificateSigningRequest its certificate, as kube-controller-manager's signer does."""

import base64
import binascii
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.controllers import feed
from onepass.controllers.loop import Loop
from onepass.registry import lifecycle

REQUESTS = "certificatesigningrequests.certificates.k8s.io"


class SigningError(Exception):
    """The request can never be signed; the text goes into its Failed condition."""


class Signer(Protocol):
    """Signs: PEM of a PKCS#10 request and a lifetime in seconds (None: the longest) to a PEM chain."""

    def __call__(self, request: bytes, seconds: int | None) -> bytes: ...


class Requests(Protocol):
    """Writes the status of a request; the registry's store in disguise."""

    async def write(self, name: str, uid: str, status: Callable[[Object], Object]) -> None: ...


def _has(status: Object, kind: str) -> bool:
    conditions = status.get("conditions")
    return any(
        isinstance(c, dict) and c.get("type") == kind and c.get("status") in ("True", None)
        for c in (conditions if isinstance(conditions, list) else [])
    )


def wanted(request: Object) -> bool:
    """Approved, and neither denied, failed, nor signed."""
    status = meta.section(request, "status")
    settled = status.get("certificate") or any(_has(status, kind) for kind in ("Denied", "Failed"))
    return _has(status, "Approved") and not settled


def _failed(status: Object, why: str, now: float) -> Object:
    stamp = lifecycle.timestamp(now)
    old = status.get("conditions")
    condition: Object = {
        "type": "Failed",
        "status": "True",
        "reason": "SignerValidationFailure",
        "message": why,
        "lastUpdateTime": stamp,
        "lastTransitionTime": stamp,
    }
    conditions: list[JSON] = [*(old if isinstance(old, list) else []), condition]
    return status | {"conditions": conditions}


@dataclass(slots=True)
class Sign:
    """The controller."""

    objects: feed.Objects
    requests: Requests
    signer: Signer
    clock: Callable[[], float] = time.time

    async def run(self) -> None:
        """Until cancelled."""
        await feed.run(self.objects, REQUESTS, Loop("sign", self.reconcile))

    async def reconcile(self, name: str) -> float | None:
        request = self.objects.get(REQUESTS, name)
        if request is None or not wanted(request):
            return None
        spec = meta.section(request, "spec")
        seconds = spec.get("expirationSeconds")
        try:
            pem = base64.b64decode(meta.text(spec, "request"), validate=True)
            chain = self.signer(pem, seconds if isinstance(seconds, int) else None)
        except (SigningError, ValueError) as error:
            why = "the request is not base64" if isinstance(error, binascii.Error) else str(error)
            await self.requests.write(name, meta.uid(request), lambda status: _failed(status, why, self.clock()))
            return None
        issued = base64.b64encode(chain).decode()

        def sign(status: Object) -> Object:
            return status if status.get("certificate") else status | {"certificate": issued}

        await self.requests.write(name, meta.uid(request), sign)
        return None
