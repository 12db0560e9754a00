"""Attends to the streams that are open: lists them, and ends those that have lost their right.

Each is judged when it begins, whenever the policy changes, and when its right was to end. What many streams have in
common is judged once: ten thousand watches of the same pods by the same user cost one decision.
"""

import asyncio
import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import orjson
import structlog

from onepass.access import requestinfo, standing
from onepass.access.policy import Policy
from onepass.access.standing import Acting, Claim, Elsewhere
from onepass.api import errors, meta
from onepass.api.meta import JSON, Object
from onepass.registry import lifecycle
from onepass.registry.streams import RESOURCE, Open

log = structlog.get_logger(__name__)

_AT_ONCE = 200  # claims judged before others may run
LOST = "onepass_right_lost"  # what the audit log says of a stream that was ended here
ENDED = "onepass_stream_ended"


class Companion(Protocol):
    """One open stream, and the way to end it."""

    @property
    def id(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def told(self) -> Mapping[str, JSON]: ...

    async def end(self, details: str, body: bytes) -> None: ...


class Changes(Protocol):
    """Tells when objects have changed that the policy is made of."""

    async def synced(self) -> None: ...

    async def next(self) -> object: ...


@dataclass(slots=True)
class _Shared:
    """Streams with the same claim."""

    claim: Claim
    open: dict[str, Companion] = field(default_factory=dict)
    until: int | None = None


@dataclass(slots=True)
class Attend:
    """The controller; also the keeper that the companions' service tells. `shown` is what the API shows."""

    changes: Changes
    policy: Callable[[], Policy]
    acting: Acting
    elsewhere: Elsewhere
    shown: Open
    clock: Callable[[], float]
    _claims: dict[Claim, _Shared] = field(default_factory=dict)
    _of: dict[str, _Shared] = field(default_factory=dict)  # by the id of a stream
    _new: set[Claim] = field(default_factory=set)
    _ends: list[tuple[int, int, Claim]] = field(default_factory=list)  # a heap: when, a number that tells apart, which
    _odd: list[Companion] = field(default_factory=list)  # to be ended, as nothing is known of them
    _count: int = 0
    _stale: bool = True
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def opened(self, companion: Companion) -> None:
        try:
            claim = _claim(companion.told)
        except (requestinfo.Malformed, ValueError) as error:
            # The gatekeeper let it pass, and nobody could ever end it.
            log.error("a stream says nothing that can be judged", id=companion.id, error=str(error))  # noqa: TRY400
            self._odd.append(companion)
            self._wake.set()
            return
        shared = self._claims.setdefault(claim, _Shared(claim))
        shared.open[companion.id] = companion
        self._of[companion.id] = shared
        self.shown.add(companion.id, _object(companion, claim, self.clock()))
        # Between Envoy's decision and this moment the policy may have changed.
        self._new.add(claim)
        self._wake.set()

    def closed(self, companion: Companion) -> None:
        shared = self._of.pop(companion.id, None)
        self.shown.remove(companion.id)
        if shared is None:
            return
        shared.open.pop(companion.id, None)
        if not shared.open:
            self._claims.pop(shared.claim, None)

    async def end(self, name: str, by: str) -> None:
        """End the stream `name` because somebody asks for it. Raises not_found."""
        shared = self._of.get(name)
        companion = shared.open.get(name) if shared else None
        if companion is None:
            raise errors.not_found(RESOURCE, name)
        log.info("stream ended", id=name, by=by)
        await companion.end(ENDED, _refusal("this stream was ended by an administrator"))

    def again(self) -> None:
        """Judge every stream anew: something has changed that is no object."""
        self._stale = True
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        await self.changes.synced()  # an empty policy would end every stream
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="attend: follow")
            while True:
                await self._woken()
                await self._judge_those(self._due())

    async def _follow(self) -> None:
        while True:
            await self.changes.next()
            self.again()

    async def _woken(self) -> None:
        """Something has changed, a stream has begun, or a right has come to its end."""
        wait = self._ends[0][0] - self.clock() if self._ends else None
        if wait is None or wait > 0:
            try:
                await asyncio.wait_for(self._wake.wait(), wait)
            except TimeoutError:
                return
        self._wake.clear()

    def _due(self) -> list[Claim]:
        """Which claims have to be judged now."""
        now = self.clock()
        due, self._new = self._new, set()
        while self._ends and self._ends[0][0] <= now:
            due.add(heapq.heappop(self._ends)[2])
        if self._stale:
            self._stale = False
            return list(self._claims)
        return list(due)

    async def _judge_those(self, claims: list[Claim]) -> None:
        policy, (odd, self._odd) = self.policy(), (self._odd, [])
        lost = [(companion, "this stream says nothing that can be judged") for companion in odd]
        for index, claim in enumerate(claims):
            if index % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            shared = self._claims.get(claim)
            if shared is None:
                continue
            found = standing.judge(policy, claim, self.clock(), self.acting, self.elsewhere)
            if found.lost:
                lost += [(companion, found.lost) for companion in shared.open.values()]
            elif found.until is not None and found.until != shared.until:
                self._count += 1
                heapq.heappush(self._ends, (found.until, self._count, claim))
            shared.until = found.until
        for companion, why in lost:
            log.info("stream lost its right", id=companion.id, why=why)
            await companion.end(LOST, _refusal(why))


def _refusal(why: str) -> bytes:
    return orjson.dumps(errors.forbidden(f"forbidden: {why}").status())


def _claim(told: Mapping[str, JSON]) -> Claim:
    """What the gatekeeper tells of a stream (gatekeeper.lua, `announce`). Raises ValueError, or Malformed."""
    request, stream = _mapping(told, "request"), _mapping(told, "stream")
    user = _mapping(request, "user")
    name = meta.text(user, "username")
    if not name or not meta.text(stream, "path"):
        raise ValueError("there is no user or no path")
    return Claim(
        user=name,
        groups=_texts(user, "groups"),
        uid=meta.text(user, "uid"),
        serial=meta.text(stream, "serial"),
        issuer=meta.text(stream, "issuer"),
        cluster=meta.text(stream, "cluster"),
        method=meta.text(stream, "method"),
        path=meta.text(stream, "path"),
        query=meta.text(stream, "query"),
        upgrade=stream.get("upgrade") is True,
        headers=_texts(stream, "as"),
        as_user=stream.get("as_user") is True,
        front=meta.text(stream, "front"),
    )


def _mapping(told: Mapping[str, JSON], key: str) -> Object:
    value = told.get(key)
    return value if isinstance(value, dict) else {}


def _texts(told: Object, key: str) -> tuple[str, ...]:
    value = told.get(key)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _object(companion: Companion, claim: Claim, now: float) -> Object:
    """A Stream (access.karpor.io/v1beta1)."""
    asked = claim.attributes
    acts_as = meta.text(_mapping(_mapping(companion.told, "request"), "impersonatedUser"), "username")
    spec: Object = {
        "user": claim.user,
        "groups": [*claim.groups],
        **({"actsAs": acts_as} if acts_as else {}),
        "cluster": claim.cluster,
        "verb": asked.verb,
        "resource": asked.qualified,
        "apiGroup": asked.group,
        "namespace": asked.namespace,
        "object": asked.name,
        "path": claim.path,
        "source": companion.source,
    }
    began = lifecycle.timestamp(now)
    metadata: Object = {"name": companion.id, "uid": companion.id, "creationTimestamp": began}
    return {"apiVersion": RESOURCE.api_version, "kind": RESOURCE.kind, "metadata": metadata, "spec": spec}
