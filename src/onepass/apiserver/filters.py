"""What every request goes through before it is served; `app` lists them in their order, outermost first."""

import re
import time
import traceback
import uuid
from collections.abc import Mapping

import orjson
import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onepass.access import requestinfo
from onepass.access.attributes import Attributes
from onepass.access.identity import ANONYMOUS, Identity
from onepass.api import errors
from onepass.api.errors import ApiError
from onepass.api.meta import Resource
from onepass.apiserver import authentication
from onepass.apiserver.endpoints import Endpoints
from onepass.apiserver.metrics import Metrics
from onepass.apiserver.ports import Authenticate, Authorizer, Judged, Limits

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
log = structlog.get_logger("onepass.apiserver")


class Observe:
    """Gives the request an id, and leaves a line in the log and a count in the metrics when it ends."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = time.monotonic()
        # The one by which the data plane's audit log knows the request, when it came that way.
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _UUID.fullmatch(given) else str(uuid.uuid4())
        code = size = 0

        async def observed(message: Message) -> None:
            nonlocal code, size
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                code = message["status"]
                MutableHeaders(scope=message)["Audit-Id"] = request_id
            elif message["type"] == "websocket.accept":
                code = 101
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, observed)
        finally:
            seconds = time.monotonic() - begun
            asked: Attributes | None = scope.get("attributes")
            self.metrics.observe(asked, code, seconds, size)
            identity: Identity | None = scope.get("identity")
            caller: Identity | None = scope.get("caller")
            log.info(
                "request",
                id=request_id,
                method=scope.get("method", "GET"),
                path=scope["path"],
                user=identity.user if identity else "",
                **({"impersonated_by": caller.user} if caller is not None and caller != identity else {}),
                verb=asked.verb if asked else "",
                code=code,
                seconds=round(seconds, 6),
                agent=Headers(scope=scope).get("user-agent", "")[:200],
            )


class Answer:
    """Turns a refusal, and any fault, into a Status; the one place that catches everything."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noticed(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] in ("http.response.start", "websocket.accept")
            await send(message)

        try:
            await self.app(scope, receive, noticed)
            return
        except ClientDisconnect:
            return
        except ApiError as refused:
            error = refused
        except Exception as fault:  # noqa: BLE001  the outermost filter
            # As text: a renderer that shows the values of variables would show credentials.
            told = "".join(traceback.format_exception(fault))
            log.error("request failed", path=scope["path"], traceback=told)  # noqa: TRY400
            error = errors.internal("an error on the server has prevented the request from succeeding")
        if not begun:
            # On a WebSocket the refusal goes out instead of the 101.
            await refusal(error)(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1011, "reason": error.message[:120]})
        else:
            # Half an answer must not look like a whole one: the connection is cut.
            raise error


def refusal(error: ApiError) -> Response:
    headers = {"Cache-Control": "no-cache, private"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return Response(orjson.dumps(error.status()), error.code, headers, media_type="application/json")


class Understand:
    """Reads the request line into `scope["attributes"]`, after putting aliases of a path in place of the alias."""

    def __init__(self, app: ASGIApp, aliases: Mapping[str, str]) -> None:
        self.app = app
        self.aliases = aliases

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw: bytes = scope["raw_path"]
        path = raw.decode("latin-1")
        for alias, meant in self.aliases.items():
            if path.startswith(alias):
                path = meant + path.removeprefix(alias)
        scope["upgrade"] = upgrades(scope)
        query: bytes = scope["query_string"]
        try:
            decoded = requestinfo.decode(path)
            scope["attributes"] = requestinfo.attributes(
                scope.get("method", "GET"), decoded, query.decode("latin-1"), scope["upgrade"]
            )
        except requestinfo.Malformed as error:
            raise errors.bad_request(str(error)) from error
        scope["raw_path"], scope["path"] = path.encode("latin-1"), decoded
        await self.app(scope, receive, send)


def upgrades(scope: Scope) -> bool:
    """Whether the request asks for another protocol on its connection; h2c is an offer that a server may ignore."""
    if scope["type"] == "websocket":
        return True
    headers = Headers(scope=scope)
    tokens = {token.strip().lower() for value in headers.getlist("connection") for token in value.split(",")}
    return "upgrade" in tokens and headers.get("upgrade", "h2c").lower() != "h2c"


class Identify:
    """Finds out who asks, then lets them act as another where they may: `scope["caller"]` and `scope["identity"]`."""

    def __init__(self, app: ASGIApp, authenticate: Authenticate, authorize: Authorizer) -> None:
        self.app = app
        self.authenticate = authenticate
        self.authorize = authorize

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        identity = await self.authenticate(connection) or authentication.NOBODY
        scope["caller"] = scope["identity"] = identity
        wanted = authentication.impersonated(connection.headers)
        if wanted is not None:
            for asked in authentication.needed(connection.headers):
                await require(self.authorize, identity, asked)
            scope["identity"] = wanted
        await self.app(scope, receive, send)


class Bound:
    """Bounds how many requests are answered at a time, those that write and those that read each by themselves.

    As kube-apiserver's --max-mutating-requests-inflight and --max-requests-inflight: what is more gets 429 at once.
    What goes on for long (watches and streams) and what asks for health is not counted, and whoever is in a group of
    `limits.unbounded` always gets through, so that an overloaded server can still be looked after.
    """

    def __init__(self, app: ASGIApp, limits: Limits, endpoints: Endpoints, metrics: Metrics) -> None:
        self.app = app
        self.limits = limits
        self.endpoints = endpoints
        self.metrics = metrics
        self.running = {"mutating": 0, "readOnly": 0}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked: Attributes = scope["attributes"]
        if self._free(asked):
            await self.app(scope, receive, send)
            return
        kind = "readOnly" if asked.verb in ("get", "list") else "mutating"
        most = self.limits.reading if kind == "readOnly" else self.limits.writing
        identity: Identity = scope["identity"]
        if self.running[kind] >= most and self.limits.unbounded.isdisjoint(identity.groups):
            self.metrics.dropped(asked, 429)
            raise errors.too_many_requests("Too many requests, please try again later.", 1)
        self.running[kind] += 1
        try:
            with self.metrics.running.labels(kind).track_inprogress():
                await self.app(scope, receive, send)
        finally:
            self.running[kind] -= 1

    def _free(self, asked: Attributes) -> bool:
        if not asked.is_resource:
            return asked.path.strip("/").partition("/")[0] in ("livez", "readyz", "healthz")
        connect = self.endpoints.connect(asked)
        # A connect that has a model answers one question; one without is a stream.
        return asked.verb == "watch" or (connect is not None and connect.model is None)


class Authorize:
    """Lets through what the rules allow. An anonymous caller that they do not allow has yet to log in: 401.

    What `judged` says that another has decided already is not decided again.
    """

    def __init__(self, app: ASGIApp, authorize: Authorizer, endpoints: Endpoints, judged: Judged) -> None:
        self.app = app
        self.authorize = authorize
        self.endpoints = endpoints
        self.judged = judged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked: Attributes = scope["attributes"]
        connect = self.endpoints.connect(asked)
        guarded = connect is not None and connect.guards_itself
        if not guarded and not self.judged(HTTPConnection(scope)):
            await require(self.authorize, scope["identity"], asked)
        await self.app(scope, receive, send)


async def require(authorize: Authorizer, identity: Identity, asked: Attributes) -> None:
    """Raises forbidden, or unauthorized for an anonymous caller, unless the rules allow what is asked."""
    verdict = await authorize.allows(identity, asked)
    if verdict.allowed:
        return
    if identity.user == ANONYMOUS:
        raise errors.unauthorized()
    raise forbidden(identity, asked, verdict.reason)


def forbidden(identity: Identity, asked: Attributes, reason: str = "") -> ApiError:
    """The refusal in kube-apiserver's words (k8s.io/apiserver/pkg/endpoints/handlers/responsewriters)."""
    tail = f": {reason}" if reason else ""
    if not asked.is_resource:
        told = f'User "{identity.user}" cannot {asked.verb} path "{asked.path}"'
        return errors.forbidden(f"forbidden: {told}{tail}")
    qualified = f"{asked.resource}.{asked.group}" if asked.group else asked.resource
    named = f'{qualified} "{asked.name}"' if asked.name else qualified
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    told = (
        f'User "{identity.user}" cannot {asked.verb} resource "{asked.qualified}" in API group "{asked.group}" {where}'
    )
    resource = Resource(asked.group, asked.version, "", asked.resource, "", bool(asked.namespace))
    return errors.forbidden(f"{named} is forbidden: {told}{tail}", resource, asked.name)
