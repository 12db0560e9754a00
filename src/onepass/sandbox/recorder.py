"""Tells what happens to pods as Event objects, for `kubectl describe` and `kubectl get events`."""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import structlog

from onepass.access.identity import Identity
from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import Object
from onepass.registry import lifecycle, selection
from onepass.registry.store import Store, Write
from onepass.registry.strategy import Actor

log = structlog.get_logger(__name__)

_KEPT_SECONDS = 3600  # as kube-apiserver's --event-ttl
_SWEEP_SECONDS = 300
_REMEMBERED = 1000  # events that may still be counted up


class Recorder:
    """Writes events. What cannot be written is logged: nothing may fail because nobody could be told."""

    def __init__(self, events: Store, node: str, clock: Callable[[], float] = time.time) -> None:
        self._events = events
        self._node = node
        self._clock = clock
        self._known: OrderedDict[tuple[str, str, str], str] = OrderedDict()

    async def tell(self, about: Object, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """One more event about an object; the same one again is counted."""
        key = (meta.uid(about), reason, message)
        try:
            if (name := self._known.get(key)) is not None and await self._again(meta.namespace(about), name):
                return
            created = await self._events.create(
                meta.namespace(about) or "default", self._event(about, kind, reason, message), self._write()
            )
        except ApiError as error:
            log.warning("an event is lost", reason=reason, error=error.message)
            return
        self._known[key] = meta.name(created.obj)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    async def run(self) -> None:
        """Forget old events, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            oldest = lifecycle.timestamp(self._clock() - _KEPT_SECONDS)
            try:
                listing = await self._events.list("", selection.EVERYTHING)
                for event in listing.items:
                    if (meta.text(event, "lastTimestamp") or oldest) < oldest:
                        await self._events.delete(meta.namespace(event), meta.name(event), self._write())
            except ApiError as error:
                log.warning("old events stay", error=error.message)

    async def _again(self, namespace: str, name: str) -> bool:
        def count(event: Object) -> Object:
            before = event.get("count")
            again = (before if isinstance(before, int) else 1) + 1
            return {**event, "count": again, "lastTimestamp": lifecycle.timestamp(self._clock())}

        try:
            await self._events.update(namespace or "default", name, count, self._write())
        except ApiError as error:
            if error.code != 404:
                raise
            return False
        return True

    def _event(self, about: Object, kind: str, reason: str, message: str) -> Object:
        moment = lifecycle.timestamp(self._clock())
        scheduler = reason == "Scheduled"
        component = "default-scheduler" if scheduler else "kubelet"
        source: Object = {"component": component} if scheduler else {"component": component, "host": self._node}
        return {
            "metadata": {"name": f"{meta.name(about)}.{secrets.token_hex(8)}"},
            "involvedObject": {
                "apiVersion": about.get("apiVersion"),
                "kind": about.get("kind"),
                "namespace": meta.namespace(about),
                "name": meta.name(about),
                "uid": meta.uid(about),
                "resourceVersion": meta.text(meta.section(about, "metadata"), "resourceVersion"),
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "source": source,
            "reportingComponent": component,
            "reportingInstance": "" if scheduler else self._node,
        }

    def _write(self) -> Write:
        return Write(kubelet(self._node, self._clock()), field_validation="Ignore")


def kubelet(node: str, now: float) -> Actor:
    """The kubelet as a writer."""
    return Actor(Identity(f"system:node:{node}", ("system:nodes", "system:authenticated")), now, "kubelet")
