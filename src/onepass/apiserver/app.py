"""One Kubernetes-style API server, made of the kinds that it is given. Built twice: for the gateway and for members."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from onepass.api.meta import JSON
from onepass.apiserver import authentication, encoding, filters, healthz
from onepass.apiserver.discovery import Discovery
from onepass.apiserver.endpoints import Endpoints
from onepass.apiserver.handlers import Server
from onepass.apiserver.metrics import Metrics
from onepass.apiserver.openapi import OpenAPI
from onepass.apiserver.ports import (
    Admission,
    Authenticate,
    Authorizer,
    Check,
    Connect,
    Judged,
    Kindless,
    Limits,
    VersionInfo,
)
from onepass.registry.store import Store

_NOTHING: Mapping[str, str] = MappingProxyType({})
_NO_CHECKS: Mapping[str, Check] = MappingProxyType({})


def build(
    *,
    stores: Sequence[Store],
    authenticate: Authenticate,
    authorize: Authorizer,
    version: VersionInfo,
    connects: Sequence[Connect] = (),
    kindless: Sequence[Kindless] = (),
    admissions: Sequence[Admission] = (),
    checks: Mapping[str, Check] = _NO_CHECKS,
    aliases: Mapping[str, str] = _NOTHING,
    limits: Limits | None = None,
    registry: CollectorRegistry | None = None,
    documents: Sequence[Route] = (),
    judged: Judged = authentication.nobody_has,
) -> Starlette:
    """The ASGI application. `stores` and `kindless` are discovered in their order.

    `aliases` maps path prefixes to the ones that they stand for; `registry` is what `/metrics` tells, beside the
    server's own counts; `documents` are more routes; `judged` tells what
    whoever is in front has decided about. Serve it with `onepass.apiserver.serving`, which ends its watches by
    `state.closing`.
    """
    limits = limits or Limits()
    endpoints = Endpoints(stores, connects, kindless)
    metrics = Metrics(endpoints, registry or CollectorRegistry())
    closing = asyncio.Event()
    fixed = [
        Route("/version", _version(version)),
        Route("/version/", _version(version)),
        *healthz.routes(checks, closing),
        Route("/metrics", metrics.answer),
        *OpenAPI(endpoints, version).routes(),
        *Discovery(endpoints).routes(),
        *documents,
    ]
    app = Starlette(
        routes=[
            Route("/", _index(fixed)),
            *fixed,
            # Also what the routes above take with other methods: it finds nothing there, and says so as a Status.
            Mount("/", Server(endpoints, admissions, limits, metrics, closing, authorize)),
        ],
        middleware=[
            Middleware(filters.Observe, metrics),
            Middleware(filters.Answer),
            Middleware(filters.Understand, aliases),
            Middleware(filters.Identify, authenticate, authorize),
            Middleware(filters.Bound, limits, endpoints, metrics),
            Middleware(filters.Authorize, authorize, endpoints, judged),
        ],
    )
    app.router.redirect_slashes = False
    app.state.closing = closing
    return app


def _index(routes: Sequence[Route]) -> Callable[[Request], Awaitable[Response]]:
    """What is at the root: the paths that lead somewhere."""
    paths: list[JSON] = [*sorted({route.path for route in routes if "{" not in route.path and route.path[-1] != "/"})]

    async def answer(request: Request) -> Response:
        return encoding.respond(request, {"paths": paths})

    return answer


def _version(version: VersionInfo) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return encoding.respond(request, version.told())

    return answer
