"""`serviceaccounts/token`: tokens for service accounts, as `kubectl create token` asks for them."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from onepass.access.identity import Identity
from onepass.api import authentication_v1, errors, meta
from onepass.api.errors import Cause
from onepass.api.meta import Object, Resource
from onepass.apiserver import questions
from onepass.apiserver.ports import Connect, Kindless, Limits
from onepass.registry import causes, lifecycle
from onepass.registry.store import Store

RESOURCE = Resource("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests", "tokenrequest", namespaced=True)

_SHORTEST, _USUAL, _LONGEST = 600, 3600, 1 << 32  # seconds, as in k8s.io/kubernetes/pkg/apis/authentication/validation


@dataclass(frozen=True, slots=True)
class Account:
    """A service account as it stands."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Token:
    """A token, the audiences that it has got, and when it expires (Unix seconds)."""

    token: str
    audiences: tuple[str, ...]
    expires: float


class Signer(Protocol):
    """Makes tokens; `audiences` empty means the server's own, and the lifetime may come out shorter than asked."""

    def __call__(self, account: Account, audiences: Sequence[str], seconds: int, now: float) -> Token: ...


def connect(
    accounts: Store, sign: Signer, limits: Limits | None = None, clock: Callable[[], float] = time.time
) -> Connect:
    """The subresource. `accounts` is the store of service accounts."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        namespace, name = scope["path_params"]["namespace"], scope["path_params"]["name"]
        account = await accounts.get(namespace, name)
        warnings: list[str] = []

        async def answer(obj: Object, _identity: Identity, _namespace: str) -> Object:
            answered = _answer(obj, Account(namespace, name, meta.uid(account)), sign, clock())
            warnings.extend(_shortened(obj, answered))
            return answered

        kind = Kindless(RESOURCE, authentication_v1.TokenRequest, answer)
        response = await questions.answered(kind, Request(scope, receive), limits or Limits(), namespace)
        await questions.warned(response, warnings)(scope, receive, send)

    return Connect(
        parent=accounts.strategy.resource,
        name="token",
        kind=RESOURCE.kind,
        api_version=RESOURCE.api_version,
        handler=handle,
        methods=("POST",),
        verbs=("create",),
        model=authentication_v1.TokenRequest,
    )


def _shortened(asked: Object, answered: Object) -> Iterator[str]:
    """A warning, as kube-apiserver words it (pkg/registry/core/serviceaccount/storage/token.go)."""
    wanted, given = (meta.section(each, "spec").get("expirationSeconds") for each in (asked, answered))
    if isinstance(wanted, int) and isinstance(given, int) and given < wanted:
        yield f"requested expiration of {wanted} seconds shortened to {given} seconds"


def _answer(obj: Object, account: Account, sign: Signer, now: float) -> Object:
    metadata, spec = meta.section(obj, "metadata"), meta.section(obj, "spec")
    seconds = spec.get("expirationSeconds", _USUAL)
    wrong: list[Cause] = []
    for key, expected in (("name", account.name), ("namespace", account.namespace)):
        given = meta.text(metadata, key)
        if given not in ("", expected):
            told = f"must match the service account {key} if specified"
            wrong.append(causes.invalid(f"metadata.{key}", given, told))
    if not isinstance(seconds, int) or seconds < _SHORTEST:
        told = "may not specify a duration less than 10 minutes"
        wrong.append(causes.invalid("spec.expirationSeconds", seconds, told))
    elif seconds > _LONGEST:
        told = "may not specify a duration larger than 2^32 seconds"
        wrong.append(causes.invalid("spec.expirationSeconds", seconds, told))
    if "boundObjectRef" in spec:
        wrong.append(causes.forbidden("spec.boundObjectRef", "tokens are bound to their service account only"))
    if wrong:
        raise errors.invalid(RESOURCE, account.name, wrong)
    assert isinstance(seconds, int)
    asked = spec.get("audiences")
    audiences = [item for item in asked if isinstance(item, str)] if isinstance(asked, list) else []
    token = sign(account, audiences, seconds, now)
    stamp = lifecycle.timestamp(now)
    return {
        **obj,
        "metadata": {"name": account.name, "namespace": account.namespace, "creationTimestamp": stamp},
        "spec": {"audiences": [*token.audiences], "expirationSeconds": int(token.expires) - int(now)},
        "status": {"token": token.token, "expirationTimestamp": lifecycle.timestamp(token.expires)},
    }
