"""The verbs on stored kinds, and the dispatch of every request that names a resource."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from onepass.access.attributes import Attributes
from onepass.access.identity import Identity
from onepass.api import errors, meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.apiserver import encoding, filters, parameters, patches, patching, printers, questions, reading, strictness
from onepass.apiserver.encoding import Media
from onepass.apiserver.endpoints import Endpoints, resource_of
from onepass.apiserver.metrics import Metrics
from onepass.apiserver.ports import Admission, Attempt, Authorizer, Connect, Kindless, Limits
from onepass.apiserver.watching import Stream
from onepass.registry import reads, selection
from onepass.registry.store import Event, Listing, Selection, Store, Write, Written

_META = "meta.k8s.io"
_ONE = {"Table": _META, "PartialObjectMetadata": _META}
_MANY = {"Table": _META, "PartialObjectMetadataList": _META}
_EVENTS = {"Table": _META, "PartialObjectMetadata": _META}
_STREAMED = (encoding.JSON_TYPE,)
_ON_ONE = frozenset({"get", "update", "patch", "delete"})
_TRIES = 16  # of a change that others overtake between its admission and its write


class _Overtaken(Exception):
    """The object is not the one any more that admission has seen."""


@dataclass(frozen=True, slots=True)
class Server:
    """What all requests share. `closing` is set when the server goes down."""

    endpoints: Endpoints
    admissions: Sequence[Admission]
    limits: Limits
    metrics: Metrics
    closing: asyncio.Event
    authorize: Authorizer
    clock: Callable[[], float] = time.time

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked: Attributes = scope["attributes"]
        if not asked.is_resource:
            raise errors.no_such_path()
        endpoint = self.endpoints.find(asked)
        answer: ASGIApp
        if isinstance(endpoint, Connect):
            answer = _connected(endpoint, asked, scope)
        elif scope["upgrade"]:
            raise errors.bad_request("this resource cannot be spoken to in another protocol")
        else:
            answer = await self._in_time(endpoint, Request(scope, receive))
        await answer(scope, receive, send)

    async def _in_time(self, endpoint: Store | Kindless, request: Request) -> ASGIApp:
        """The answer, not yet sent: how long a watch goes on, or a slow client reads, is another matter."""
        try:
            async with asyncio.timeout(self.limits.answer):
                if isinstance(endpoint, Kindless):
                    return await self._answered(endpoint, request)
                return await self._handled(endpoint, request)
        except TimeoutError as late:
            told = f"the request did not complete within {self.limits.answer:g} seconds"
            raise ApiError(504, "Timeout", f"Timeout: {told}", retry_after=1) from late

    async def _handled(self, store: Store, request: Request) -> ASGIApp:
        call = Call(self, store, request, request.scope["attributes"], request.scope["identity"])
        asked, strategy = call.asked, store.strategy
        served = ("get", "update", "patch") if asked.subresource else strategy.verbs
        whole = strategy.resource.namespaced and not asked.namespace
        misplaced = bool(asked.name) if asked.verb == "create" else asked.verb in _ON_ONE and not asked.name
        if asked.verb not in served or misplaced or (whole and asked.verb in ("create", "deletecollection")):
            raise errors.method_not_allowed()
        return await _VERBS[asked.verb](call)

    async def _answered(self, kind: Kindless, request: Request) -> Response:
        asked: Attributes = request.scope["attributes"]
        if asked.verb != "create" or asked.name or kind.resource.namespaced != bool(asked.namespace):
            raise errors.method_not_allowed()
        return await questions.answered(kind, request, self.limits, asked.namespace)

    async def admit(self, attempt: Attempt) -> None:
        for admission in self.admissions:
            await admission(attempt)


def _connected(connect: Connect, asked: Attributes, scope: Scope) -> ASGIApp:
    if scope.get("method", "GET") not in connect.methods:
        raise errors.method_not_allowed()
    _, _, tail = asked.path.partition(f"/{connect.parent.plural}/{asked.name}/{connect.name}")
    scope["path_params"] = {"namespace": asked.namespace, "name": asked.name, "tail": tail}
    return connect.handler


@dataclass(frozen=True, slots=True)
class Call:
    """One request to one store."""

    server: Server
    store: Store
    request: Request
    asked: Attributes
    identity: Identity

    @property
    def namespace(self) -> str:
        return self.asked.namespace if self.store.strategy.resource.namespaced else ""

    @property
    def query(self) -> parameters.Query:
        return parameters.query(self.request.scope)

    def media(self, kinds: Mapping[str, str], types: tuple[str, ...] = encoding.OFFERED) -> Media:
        return encoding.negotiate(self.request.headers.get("accept", ""), kinds, types)

    def write(self) -> Write:
        agent = self.request.headers.get("user-agent", "")
        asked = self.asked
        return parameters.write(self.query, self.identity, agent, self.server.clock(), asked.subresource, asked.verb)

    def selection(self) -> Selection:
        query = self.query
        return selection.parse(self.store.strategy, query.get("labelSelector", ""), query.get("fieldSelector", ""))

    def include(self) -> str:
        return printers.check_include(self.query.get("includeObject", ""))

    async def body(self) -> bytes:
        return await encoding.read(self.request, self.server.limits.body)

    async def sent(self, write: Write) -> tuple[Object, Write]:
        """The object in the body, and the options with what is odd in it."""
        kind, depth = encoding.media_type(self.request), self.server.limits.depth

        def how(body: bytes) -> tuple[Object, Write]:
            obj = encoding.load_object(body, kind, depth)
            return obj, replace(write, odd=strictness.asked(write.field_validation, body, kind))

        return await reading.read(await self.body(), how)

    def attempt(self, obj: Object | None, old: Object | None) -> Attempt:
        operation: Literal["CREATE", "UPDATE", "DELETE"]
        operation = "DELETE" if obj is None else "CREATE" if old is None else "UPDATE"
        name = self.asked.name or meta.name(obj or old or {})
        resource = self.store.strategy.resource
        return Attempt(self.identity, operation, resource, self.asked.subresource, self.namespace, name, obj, old)

    def shown(self, obj: Object, media: Media, code: int = 200, warnings: Iterable[str] = ()) -> Response:
        """One object in the representation that was asked for."""
        if media.kind == "Table":
            version = meta.text(meta.section(obj, "metadata"), "resourceVersion")
            obj = self._table([obj], {"resourceVersion": version}, media)
        elif media.kind:
            obj = printers.partial(obj, media)
        return questions.warned(encoding.respond(self.request, obj, media=media, code=code), warnings)

    def listed(self, listing: Listing, media: Media) -> Response:
        metadata: Object = {"resourceVersion": listing.resource_version}
        if listing.continue_token:
            metadata["continue"] = listing.continue_token
        if listing.remaining is not None:
            metadata["remainingItemCount"] = listing.remaining
        resource = self.store.strategy.resource
        items: list[JSON] = [*printers.items(resource, listing.items)]
        value: Object = {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
            "items": items,
        }
        if media.kind == "Table":
            value = self._table(listing.items, metadata, media)
        elif media.kind:
            value = printers.partial_list(listing.items, metadata, media)
        return encoding.respond(self.request, value, media=media)

    def _table(self, objects: Sequence[Object], metadata: Object, media: Media) -> Object:
        include, now = self.include(), self.server.clock()
        return printers.table(self.store.strategy, objects, metadata, media=media, include=include, now=now)

    def turning(self, media: Media) -> Callable[[Event], Object]:
        """How each event of a watch shows its object."""
        metrics, resource = self.server.metrics, self.store.strategy.resource
        include, headed = self.include() if media.kind == "Table" else "", True

        def turn(event: Event) -> Object:
            nonlocal headed
            metrics.told(resource)
            if not media.kind:
                return event.obj
            if media.kind != "Table":
                return printers.partial(event.obj, media)
            metadata: Object = {"resourceVersion": str(meta.resource_version(event.obj))}
            shown = printers.table(
                self.store.strategy,
                [event.obj],
                metadata,
                media=media,
                include=include,
                now=self.server.clock(),
                headed=headed,
            )
            headed = False
            return shown

        return turn


async def _get(call: Call) -> ASGIApp:
    media = call.media(_ONE)
    return call.shown(await call.store.get(call.namespace, call.asked.name), media)


async def _list(call: Call) -> ASGIApp:
    media = call.media(_MANY)
    return call.listed(await _page(call), media)


async def _page(call: Call) -> Listing:
    asked = parameters.listing(call.query)
    return await call.store.list(
        call.namespace,
        call.selection(),
        limit=asked.limit,
        continue_token=asked.continue_token,
        resource_version=asked.resource_version,
        resource_version_match=asked.resource_version_match,
    )


async def _watch(call: Call) -> ASGIApp:
    media, selected, asked = call.media(_EVENTS, _STREAMED), call.selection(), parameters.watching(call.query)
    limits, version = call.server.limits, asked.resource_version
    if not reads.version(version) and asked.initial is False:
        version = (await call.store.list(call.namespace, selected, limit=1)).resource_version
    seconds = asked.seconds or random.uniform(*limits.watch)  # noqa: S311  spreads load
    events = call.store.watch(
        call.namespace,
        selected,
        resource_version=version,
        bookmarks=asked.bookmarks,
        initial_events=bool(asked.initial),
    )
    stream = Stream(events, call.turning(media), min(seconds, limits.watch_longest), call.server.closing)

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        with call.server.metrics.watching(call.asked):
            await stream(scope, receive, send)

    return counted


async def _create(call: Call) -> ASGIApp:
    media, (obj, write) = call.media(_ONE), await call.sent(call.write())
    await call.server.admit(call.attempt(obj, None))
    written = await call.store.create(call.namespace, obj, write)
    return call.shown(written.obj, media, 201, written.warnings)


async def _update(call: Call) -> ASGIApp:
    media, (obj, write) = call.media(_ONE), await call.sent(call.write())
    if not meta.name(obj):
        told = f"the name of the object ({call.asked.name} based on URL) was undeterminable: name must be provided"
        raise errors.bad_request(told)
    written = await _changed(call, lambda _old: obj, write)
    return call.shown(written.obj, media, warnings=written.warnings)


async def _patch(call: Call) -> ASGIApp:
    media, asked, kind = call.media(_ONE), call.write(), encoding.media_type(call.request)
    patches.check_options(kind, call.query)
    strategy, limits = call.store.strategy, call.server.limits

    def how(body: bytes) -> tuple[patches.Change, Write]:
        return patching.read(kind, body, call.query, strategy, limits, asked)

    change, write = await reading.read(await call.body(), how)
    if write.form != "apply":
        written = await _changed(call, change, write)
        return call.shown(written.obj, media, warnings=written.warnings)
    for _ in range(_TRIES):
        try:
            written, code = await _changed(call, change, write), 200
        except ApiError as absent:
            if absent.code != 404 or call.asked.subresource:
                raise
            try:
                written, code = await _begun(call, change, write), 201
            except ApiError as taken:
                if taken.reason != "AlreadyExists":
                    raise
                continue
        return call.shown(written.obj, media, code, written.warnings)
    raise errors.conflict(strategy.resource, call.asked.name)


async def _begun(call: Call, change: patches.Change, write: Write) -> Written:
    """Create what is applied and not there, which takes the right to create. Raises already_exists."""
    await filters.require(call.server.authorize, call.identity, replace(call.asked, verb="create"))
    obj, name = change({}), call.asked.name
    patches.check_new(call.store.strategy.resource, obj, name)
    await call.server.admit(call.attempt(obj, None))
    return await call.store.create(call.namespace, obj, write)


async def _changed(call: Call, change: patches.Change, write: Write) -> Written:
    """Write a change that admission has seen as it is written."""
    name = call.asked.name
    if not call.server.admissions:
        return await call.store.update(call.namespace, name, change, write)
    for _ in range(_TRIES):
        old = await call.store.get(call.namespace, name)
        new = change(orjson.loads(orjson.dumps(old)))
        await call.server.admit(call.attempt(new, old))
        try:
            return await call.store.update(call.namespace, name, _only_of(old, new), write)
        except _Overtaken:
            continue
    raise errors.conflict(call.store.strategy.resource, name)


def _only_of(old: Object, new: Object) -> patches.Change:
    def change(current: Object) -> Object:
        if (meta.uid(current), meta.resource_version(current)) != (meta.uid(old), meta.resource_version(old)):
            raise _Overtaken
        return new

    return change


async def _delete(call: Call) -> ASGIApp:
    media, (wanted, write) = call.media(_ONE), await _deletion(call)
    if call.server.admissions:
        old = await call.store.get(call.namespace, call.asked.name)
        await call.server.admit(call.attempt(None, old))
    obj, gone = await call.store.delete(
        call.namespace,
        call.asked.name,
        write,
        uid=wanted.uid,
        resource_version=wanted.resource_version,
        grace_period=wanted.grace,
    )
    if not gone or call.store.strategy.tells_deleted:
        return call.shown(obj, media)
    resource = resource_of(call.store)
    details: Object = {"name": meta.name(obj), "kind": resource.plural, "uid": meta.uid(obj)}
    if resource.group:
        details["group"] = resource.group
    status: Object = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }
    return encoding.respond(call.request, status, media=Media(media.type))


async def _deletion(call: Call) -> tuple[parameters.Deletion, Write]:
    kind, depth = encoding.media_type(call.request), call.server.limits.depth
    body = await call.body()
    given = await reading.read(body, lambda sent: encoding.load_object(sent, kind, depth)) if body else None
    return parameters.deletion(call.query, given, call.write())


async def _delete_collection(call: Call) -> ASGIApp:
    media, (wanted, write) = call.media(_MANY), await _deletion(call)
    listing = await _page(call)
    for item in listing.items:
        await call.server.admit(call.attempt(None, item))
        try:
            await call.store.delete(
                call.namespace, meta.name(item), write, uid=meta.uid(item), grace_period=wanted.grace
            )
        except ApiError as error:
            if error.code not in (404, 409):  # gone, or another object of that name: not ours to delete
                raise
    return call.listed(listing, media)


_VERBS: Mapping[str, Callable[[Call], Awaitable[ASGIApp]]] = {
    "get": _get,
    "list": _list,
    "watch": _watch,
    "create": _create,
    "update": _update,
    "patch": _patch,
    "delete": _delete,
    "deletecollection": _delete_collection,
}
