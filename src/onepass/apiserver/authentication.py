"""Who asks: the front proxy's headers, and the impersonation that a caller asks for.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#authenticating-proxy and #user-impersonation
"""

import re
from collections.abc import Iterator
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from onepass.access.attributes import Attributes
from onepass.access.identity import ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, Identity
from onepass.api import errors

NOBODY = Identity(ANONYMOUS, (UNAUTHENTICATED,))

_ACCOUNT = re.compile(r"system:serviceaccount:([a-z0-9-]+):([a-z0-9.-]+)")


async def front_proxy(connection: HTTPConnection) -> Identity | None:
    """The user that the proxy in front names. Right only where nothing but that proxy can connect."""
    found = _named(connection.headers, "x-remote-")
    if found is None:
        return None
    # The library reads headers as Latin-1; the gatekeeper writes names as UTF-8, and lets nothing else pass.
    return Identity(_utf8(found.user), tuple(map(_utf8, found.groups)), found.uid, found.extra)


def judged_by_host(connection: HTTPConnection) -> bool:
    """Whether a host cluster has decided about this request (gatekeeper.lua, `to_apiserver`)."""
    return connection.headers.get("x-onepass-judged") == "host"


def nobody_has(_connection: HTTPConnection) -> bool:
    """Where every request is decided here."""
    return False


def _utf8(text: str) -> str:
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "replace")


def impersonated(headers: Headers) -> Identity | None:
    """Whom the caller asks to act as, with the groups that follow from it; None when it does not ask.

    Raises bad_request for groups, a uid or extra fields without a user.
    """
    wanted = _named(headers, "impersonate-")
    if wanted is None:
        if any(name.startswith("impersonate-") for name in headers):
            raise errors.bad_request("impersonating a group, a uid or an extra field needs a user as well")
        return None
    groups = wanted.groups
    if not groups and (account := _ACCOUNT.fullmatch(wanted.user)):
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{account[1]}")
    implied = UNAUTHENTICATED if wanted.user == ANONYMOUS else AUTHENTICATED
    if implied not in groups:
        groups = (*groups, implied)
    return Identity(wanted.user, groups, wanted.uid, wanted.extra)


def needed(headers: Headers) -> Iterator[Attributes]:
    """What a caller must be allowed for the impersonation it asks for, each value by itself."""
    wanted = _named(headers, "impersonate-")
    if wanted is None:
        return
    if account := _ACCOUNT.fullmatch(wanted.user):
        yield _asks("", "serviceaccounts", account[2], namespace=account[1])
    else:
        yield _asks("", "users", wanted.user)
    for group in wanted.groups:
        yield _asks("", "groups", group)
    if wanted.uid:
        yield _asks("authentication.k8s.io", "uids", wanted.uid)
    for key, values in wanted.extra.items():
        for value in values:
            yield _asks("authentication.k8s.io", "userextras", value, key)


def _asks(group: str, resource: str, name: str, subresource: str = "", namespace: str = "") -> Attributes:
    return Attributes("impersonate", "", True, group, "v1", resource, subresource, namespace, name)


def _named(headers: Headers, prefix: str) -> Identity | None:
    """The identity that headers beginning with `prefix` spell out; None without a user."""
    users = headers.getlist(f"{prefix}user")
    if len(users) > 1:
        raise errors.bad_request(f"the header {prefix}user is given more than once")
    if not users or not users[0]:
        return None
    extra: dict[str, tuple[str, ...]] = {}
    for name, value in headers.items():
        if name.startswith(f"{prefix}extra-"):
            key = unquote(name.removeprefix(f"{prefix}extra-")).lower()
            extra[key] = (*extra.get(key, ()), value)
    return Identity(users[0], tuple(headers.getlist(f"{prefix}group")), headers.get(f"{prefix}uid", ""), extra)
