"""Renews the tokens of members before they end, and tells in `Cluster.status` until when each credential holds.

A new token is asked for with the present one, through Envoy like every request to a member, so that Python never holds
a connection that carries a credential. The old one stays valid until its end: no request fails in between.
"""

import base64
import hashlib
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import structlog

from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.controllers import conditions, connecting, feed, findings, refusals
from onepass.controllers.conditions import Condition
from onepass.controllers.findings import Answer
from onepass.controllers.loop import Loop, backoff
from onepass.controllers.probe import CLUSTERS
from onepass.controllers.refusals import Patience
from onepass.pki import lifetimes
from onepass.pki.lifetimes import BoundToken, Lifetime
from onepass.pki.sealing import Damaged, KeyMissing, SealError
from onepass.registry import credentials

REQUESTED = "onepass.karpor.io/rotate"  # an annotation: renew now. It goes when that is done.
CONDITION = "CredentialValid"
RETRY_SECONDS = (5.0, 300.0)  # the first and the longest pause after a renewal that failed
_SHARE, _SPREAD = 0.8, 0.05  # renewed when this share of the lifetime has passed, or a little less: not all at once
_DAY = 86400.0
_SKEW = 60.0  # seconds, as kube-apiserver allows to the times in a token
# Between two looks. Nothing wakes a loop when the clock is set, and its own stands still while the machine sleeps.
LOOK_SECONDS = 3600.0
_SHORTEST, _LONGEST = 600, 1 << 32  # seconds that a TokenRequest may ask for

log = structlog.get_logger(__name__)

Post = Callable[[str, str, bytes], Awaitable[Answer]]  # (cluster name, inner path, JSON) -> answer, through Envoy


class Secrets(Protocol):
    """Where the write-only part of a cluster is read; raises ValueError when it cannot be unsealed."""

    async def secret(self, name: str, uid: str) -> bytes | None: ...


class Clusters(Protocol):
    """Writes clusters: their status, or the rest. Raises ApiError for what the registry refuses."""

    async def write(self, name: str, uid: str, status: Callable[[Object], Object]) -> None: ...

    async def change(self, name: str, uid: str, change: Callable[[Object], Object]) -> None: ...


class NotRenewed(Exception):
    """The text is the end of a sentence about why."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is stored for a member. `what` names it in sentences."""

    what: str
    lifetime: Lifetime | None = None
    bound: BoundToken | None = None


def held(secret: bytes | None) -> Held | None:
    """None for a member without a credential. Raises ValueError for what the registry never stored."""
    if not secret:
        return None
    said: JSON = json.loads(secret)
    parts = said if isinstance(said, dict) else {}
    token = meta.text(parts, "serviceAccountToken")
    if token:
        return Held("token", lifetimes.of_token(token), lifetimes.bound(token))
    if not parts.get("x509"):
        return None
    from_certificate = lifetimes.of_certificate(_pem(meta.text(meta.section(parts, "x509"), "certificate")))
    return Held("client certificate", from_certificate)


def due(cluster: Object, lifetime: Lifetime) -> float:
    """When to renew, in Unix seconds; the same for the same credential, however often it is asked."""
    seed = hashlib.sha256(f"{meta.uid(cluster)}/{_fingerprint(cluster)}".encode()).digest()
    return lifetime.at(_SHARE - _SPREAD * int.from_bytes(seed[:4], "big") / 2**32)


@dataclass(frozen=True, slots=True)
class Case:
    """What matters of a credential beside itself: whether it is renewed, why that failed, and what the member says."""

    remedy: str  # what to do when it is of no use
    renews: bool = False
    failure: str = ""
    refused: bool = False
    taken: bool = False


def told(credential: Held, now: float, case: Case) -> Condition:
    """What is said of a credential. Its own end comes before a refusal, which is what comes of that."""
    what, lifetime = credential.what, credential.lifetime
    because = f"; it is not renewed: {case.failure}" if case.failure else ""
    if lifetime is not None and lifetime.ends <= now:
        return Condition(CONDITION, False, "Expired", f"the {what} ended {_day(lifetime.ends)}{because}; {case.remedy}")
    if lifetime is not None and _begins_in(lifetime, now) > 0:
        return _early(what, _day(lifetime.begins), case.taken)
    if case.refused:
        return Condition(CONDITION, False, "Refused", f"the member refuses the {what}{because}; {case.remedy}")
    if lifetime is None:
        if case.failure:
            return Condition(CONDITION, True, "RenewalFails", f"the {what} is not renewed: {case.failure}")
        return Condition(CONDITION, True, "NoEnd", f"the {what} does not say when it ends")
    days = int((lifetime.ends - now) // _DAY)
    left = f"{days} days left" if days > 1 else ("1 day left" if days else "less than a day left")
    reason, ending = "Valid", "; it is renewed before that" if case.renews else ""
    if case.failure:
        reason, ending = "RenewalFails", because
    elif not case.renews and lifetime.ends - now <= lifetimes.SOON:
        reason, ending = "EndsSoon", f"; before that, {case.remedy}"
    return Condition(CONDITION, True, reason, f"the {what} ends {_day(lifetime.ends)}, {left}{ending}")


def _early(what: str, begins: str, taken: bool) -> Condition:
    if taken:
        ahead = (
            f"the member takes the {what}, which counts only from {begins}: the gateway's clock is behind the member's"
        )
        return Condition(CONDITION, True, "ClockBehind", f"{ahead}; set the one that is wrong")
    early = f"the {what} counts only from {begins}; compare the clocks of the gateway and of the member, or wait"
    return Condition(CONDITION, False, "NotYetValid", early)


def _day(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


def _begins_in(lifetime: Lifetime, now: float) -> float:
    """Seconds until a credential counts by our clock, which may be a little behind that of who made it."""
    return lifetime.begins - _SKEW - now


def closed(error: ValueError, remedy: str) -> Condition:
    """What is said of a credential that is stored and cannot be opened."""
    reason, why, what_to_do = "Unreadable", "what is stored is none", f"; {remedy}"
    if isinstance(error, SealError):
        reason, why = error.reason, str(error)
        if isinstance(error, KeyMissing):
            what_to_do = f"; give the key back with --seal-key, or {remedy}"
        elif not isinstance(error, Damaged):
            what_to_do = ""  # it says so itself, or mends itself
    return Condition(CONDITION, False, reason, f"the stored credential cannot be opened: {why}{what_to_do}")


@dataclass(slots=True)
class Rotate:
    """The controller. Several replicas may run it: of two new tokens the first one that is written is kept."""

    objects: feed.Objects
    secrets: Secrets
    clusters: Clusters
    post: Post
    clock: Callable[[], float] = time.time
    concurrency: int = 16
    _failures: dict[str, int] = field(default_factory=dict)
    _closed: set[str] = field(default_factory=set)  # whose credential cannot be opened
    _keys: int = 0
    _patience: Patience = field(default_factory=lambda: Patience(*RETRY_SECONDS))

    async def run(self) -> None:
        """Until cancelled."""

        def version(cluster: Object) -> object:
            return _version(cluster), self._keys if meta.name(cluster) in self._closed else 0

        await feed.run(self.objects, CLUSTERS, Loop("rotate", self.reconcile, workers=self.concurrency), version)

    def again(self) -> None:
        """With the next change of the mirror, look at those again whose credential could not be opened."""
        self._keys += 1

    async def reconcile(self, name: str) -> float | None:
        """Look at one member; returns after how many seconds to look again."""
        cluster = self.objects.get(CLUSTERS, name)
        if cluster is None or meta.section(credentials.of(cluster), "execConfig"):  # those are kept by `programs`
            self._failures.pop(name, None)
            self._closed.discard(name)
            self._patience.forget(name)
            return None
        try:
            credential = held(await self.secrets.secret(name, meta.uid(cluster)))
        except ValueError as error:
            self._closed.add(name)
            await self._tell(cluster, closed(error, refusals.remedy(cluster)))
            return RETRY_SECONDS[1]
        self._closed.discard(name)
        if credential is None:
            await self._tell(cluster, None)
            return None
        return await self._kept_up(name, cluster, credential)

    async def _kept_up(self, name: str, cluster: Object, credential: Held) -> float | None:
        renews, failure, now = credentials.of(cluster).get("renew") is True, "", self.clock()
        remedy = refusals.remedy(cluster)
        when = due(cluster, credential.lifetime) if renews and credential.lifetime else None
        refused, taken = refusals.refuses(cluster), refusals.takes(cluster)
        if taken:
            self._patience.forget(name)
        patient = self._patience.wait(name, now, 0.0) if refused and renews else 0.0
        requested = REQUESTED in meta.annotations(cluster)
        wanted = when is None or when <= now or refused
        if renews and (requested or (wanted and not patient)):
            if refused:
                self._patience.tried(name, now)
            try:
                await self._renew(name, cluster, credential)
            except NotRenewed as error:
                failure = str(error)
                log.warning("a credential is not renewed", cluster=name, error=failure)
            else:
                self._failures.pop(name, None)
                return None  # what was written brings the member here again
        await self._tell(cluster, told(credential, now, Case(remedy, renews, failure, refused, taken)))
        if failure:
            self._failures[name] = self._failures.get(name, 0) + 1
            return backoff(*RETRY_SECONDS, self._failures[name]) * random.uniform(0.75, 1.25)  # noqa: S311  spreads what failed together
        return patient or _next_look(credential.lifetime, when, now)

    async def _renew(self, name: str, cluster: Object, credential: Held) -> None:
        """Raises NotRenewed."""
        if credential.bound is None:
            raise NotRenewed("it is no bound token of a service account")
        token = await self._requested(name, credential.bound)
        before = _fingerprint(cluster)

        def swapped(current: Object) -> Object:
            given = credentials.of(current)
            if given.get("fingerprint") != before:
                return current  # somebody was faster, or has registered another credential
            given["serviceAccountToken"] = token
            annotations = meta.section(meta.section(current, "metadata"), "annotations")
            annotations.pop(REQUESTED, None)
            return current

        try:
            await self.clusters.change(name, meta.uid(cluster), swapped)
        except ApiError as refused:
            raise NotRenewed(f"the new token cannot be stored: {refused.message}") from refused
        log.info("a credential is renewed", cluster=name)

    async def _requested(self, name: str, bound: BoundToken) -> str:
        """A new token for the same account and as long a time. Raises NotRenewed."""
        seconds = max(_SHORTEST, min(_LONGEST, bound.lifetime.seconds))
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        path = f"/api/v1/namespaces/{bound.namespace}/serviceaccounts/{bound.account}/token"
        try:
            answer = await self.post(name, path, json.dumps(request).encode())
        except (OSError, TimeoutError) as error:
            raise NotRenewed(f"the member does not answer: {connecting.why(error)}") from error
        status = findings.parsed(answer.body)
        account = f"service account {bound.namespace}/{bound.account}"
        if answer.unknown:
            raise NotRenewed("the data plane does not know the member")
        if answer.code == 401:
            raise NotRenewed("the member refuses the present token")
        if answer.code == 403:
            raise NotRenewed(f"{account} may not make tokens for itself: give it `create` on serviceaccounts/token")
        if answer.code == 404:
            raise NotRenewed(f"{account} is gone from the member: leave the member, and join it again")
        if answer.code not in (200, 201):
            said = findings.printable(meta.text(status, "message"))
            raise NotRenewed(f"the member answered {answer.code} {said}".strip())
        token = meta.text(meta.section(status, "status"), "token")
        new = lifetimes.bound(token)
        if new is None or (new.namespace, new.account) != (bound.namespace, bound.account):
            raise NotRenewed("the member did not answer with a token of the same service account")
        if new.lifetime.ends <= self.clock():
            raise NotRenewed("the member gave a token that has ended already; compare the clocks")
        return token

    async def _tell(self, cluster: Object, condition: Condition | None) -> None:
        def applied(status: Object) -> Object:
            before = status.get("conditions")
            if condition is None:
                found = conditions.without(before, CONDITION)
                return status if not before or found == before else {**status, "conditions": found}
            return {**status, "conditions": conditions.merged(before, self.clock(), condition)}

        status = meta.section(cluster, "status")
        if applied(status) != status:
            await self.clusters.write(meta.name(cluster), meta.uid(cluster), applied)


def _next_look(lifetime: Lifetime | None, when: float | None, now: float) -> float | None:
    """When it begins to count, the days that are left change, or it is time to renew, whatever comes first."""
    if lifetime is None:
        return None
    changes = [_begins_in(lifetime, now), (lifetime.ends - now) % _DAY + 1.0 if lifetime.ends > now else 0.0]
    changes.append(when - now if when is not None else 0.0)
    return max(1.0, min([LOOK_SECONDS, *(each for each in changes if each > 0)]))


def _version(cluster: Object) -> object:
    return refusals.version(cluster), meta.annotations(cluster).get(REQUESTED)


def _fingerprint(cluster: Object) -> str:
    return meta.text(credentials.of(cluster), "fingerprint")


def _pem(encoded: str) -> bytes:
    return base64.b64decode(encoded)
