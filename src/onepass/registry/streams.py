"""The streams that are open now, as objects that nobody writes: read from memory, never stored."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

from onepass.api import errors, meta
from onepass.api.access_v1beta1 import Stream
from onepass.api.meta import JSON, Object, Resource
from onepass.registry import reads
from onepass.registry.reads import Event, Listing, Selection
from onepass.registry.store import Store, Write
from onepass.registry.strategy import Column, Strategy

RESOURCE = Resource("access.karpor.io", "v1beta1", "Stream", "streams", "stream", namespaced=False)

_HISTORY = 2048  # changes that a watch can be behind before it has to list anew
_QUIET = 10.0  # seconds between two bookmarks


def _spec(name: str) -> Callable[[Object], str]:
    return lambda obj: meta.text(meta.section(obj, "spec"), name)


def _cell(name: str) -> Callable[[Object, float], JSON]:
    return lambda obj, _now: meta.text(meta.section(obj, "spec"), name)


STRATEGY = Strategy(
    resource=RESOURCE,
    model=Stream,
    columns=(
        Column("User", _cell("user"), description="Who opened it."),
        Column("Cluster", _cell("cluster"), description="The member cluster; empty for the gateway's own API."),
        Column("Verb", _cell("verb"), description="What is done; exec, attach and port-forward are create."),
        Column("Resource", _cell("resource"), description="The resource, with its subresource."),
        Column("Namespace", _cell("namespace"), description="The namespace in the cluster."),
        Column("Object", _cell("object"), description="The name of the object, when it is about one."),
        Column("Source", _cell("source"), priority=1, description="Where the connection comes from."),
        Column("Path", _cell("path"), priority=1, description="The path in the cluster."),
    ),
    verbs=("delete", "deletecollection", "get", "list", "watch"),
    selectable={f"spec.{name}": _spec(name) for name in ("user", "cluster", "verb", "resource", "namespace")},
)


@dataclass(frozen=True, slots=True)
class _Change:
    revision: int
    gone: bool
    obj: Object


@dataclass(slots=True)
class Open:
    """The objects of one place, by name. `first` must be greater than any revision of an earlier run."""

    first: int
    objects: dict[str, Object] = field(default_factory=dict)
    changes: deque[_Change] = field(default_factory=lambda: deque(maxlen=_HISTORY))
    revision: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.revision = self.first

    def add(self, name: str, obj: Object) -> None:
        self.objects[name] = self._change(obj, gone=False)

    def remove(self, name: str) -> None:
        """Also what is not there any more."""
        obj = self.objects.pop(name, None)
        if obj is not None:
            self._change(obj, gone=True)

    def since(self, revision: int) -> list[_Change]:
        """What came after `revision`. Raises expired when that is not known any more."""
        oldest = self.changes[0].revision if self.changes else self.revision + 1
        if revision < self.first or (revision < self.revision and revision < oldest - 1):
            raise errors.expired(f"too old resource version: {revision}")
        found: list[_Change] = []
        for change in reversed(self.changes):
            if change.revision <= revision:
                break
            found.append(change)
        return found[::-1]

    def _change(self, obj: Object, *, gone: bool) -> Object:
        self.revision += 1
        obj = {**obj, "metadata": {**meta.section(obj, "metadata"), "resourceVersion": str(self.revision)}}
        self.changes.append(_Change(self.revision, gone, obj))
        self.moved.set()
        self.moved = asyncio.Event()
        return obj


class Streams(Store):
    """What the API server serves: reads from memory, and a deletion that ends the stream. Nothing else is served."""

    def __init__(self, open_: Open, end: Callable[[str, str], Awaitable[None]]) -> None:
        """`end` ends the stream of a name on behalf of a user."""
        self.strategy = STRATEGY
        self._open = open_
        self._end = end

    async def get(self, namespace: str, name: str) -> Object:
        found = self._open.objects.get(name)
        if found is None:
            raise errors.not_found(RESOURCE, name)
        return found

    async def list(
        self,
        namespace: str,
        selection: Selection,
        *,
        limit: int = 0,
        continue_token: str = "",
        resource_version: str = "",
        resource_version_match: str = "",
    ) -> Listing:
        """Everything at once, whatever the limit: that is allowed, and nothing is kept for a second page."""
        if continue_token:
            raise errors.expired("a list of streams has one page")
        if reads.version(resource_version) > self._open.revision:
            raise reads.too_large(reads.version(resource_version), self._open.revision)
        return Listing([obj for obj in self._open.objects.values() if selection.matches(obj)], str(self._open.revision))

    async def watch(
        self,
        namespace: str,
        selection: Selection,
        *,
        resource_version: str = "",
        bookmarks: bool = False,
        initial_events: bool = False,
    ) -> AsyncGenerator[Event, None]:
        told = reads.version(resource_version)
        if not told or initial_events:
            told = self._open.revision
            for obj in [obj for obj in self._open.objects.values() if selection.matches(obj)]:
                yield Event("ADDED", obj)
            if bookmarks:
                yield reads.bookmark(RESOURCE, told, {"k8s.io/initial-events-end": "true"})
        while True:
            moved = self._open.moved
            for change in self._open.since(told):
                told = change.revision
                if selection.matches(change.obj):
                    yield Event("DELETED" if change.gone else "ADDED", change.obj)
            if moved is not self._open.moved:
                continue
            try:
                async with asyncio.timeout(_QUIET):
                    await moved.wait()
            except TimeoutError:
                if bookmarks:
                    yield reads.bookmark(RESOURCE, told, {})

    async def delete(
        self,
        namespace: str,
        name: str,
        write: Write,
        *,
        uid: str = "",
        resource_version: str = "",
        grace_period: int | None = None,
    ) -> tuple[Object, bool]:
        """End the stream. Returns when its Envoy has been told."""
        obj = await self.get(namespace, name)
        self._expect(obj, uid, resource_version)
        if not write.dry_run:
            await self._end(name, write.actor.identity.user)
            self._open.remove(name)
        return obj, True
