"""One Kubernetes-style API server, made of the kinds that it is given. Built twice: for the gateway and for members."""

from collections.abc import Mapping, Sequence

from starlette.applications import Starlette

from onepass.apiserver.ports import (
    Admission,
    Authenticate,
    Authorizer,
    Check,
    Connect,
    Kindless,
    Limits,
    VersionInfo,
)
from onepass.registry.store import Store


def build(
    *,
    stores: Sequence[Store],
    authenticate: Authenticate,
    authorize: Authorizer,
    version: VersionInfo,
    connects: Sequence[Connect] = (),
    kindless: Sequence[Kindless] = (),
    admissions: Sequence[Admission] = (),
    checks: Mapping[str, Check] | None = None,
    aliases: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> Starlette:
    """The ASGI application. `stores` and `kindless` are discovered in their order.

    `aliases` maps path prefixes to the ones that they stand for. Serve it with `onepass.apiserver.serving`.
    """
    raise NotImplementedError(
        stores, authenticate, authorize, version, connects, kindless, admissions, checks, aliases, limits
    )
