"""`clusters/proxy` as the API server sees it: only the questions that callers ask about themselves on a member.

The data plane carries every other request to members, and answers these from here because the member, which sees the
gateway's credential, would answer about the gateway.
"""

from collections.abc import Callable

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from onepass.access import refusals
from onepass.access.attributes import Attributes
from onepass.access.identity import ANONYMOUS, Identity
from onepass.api import errors
from onepass.api.meta import Resource
from onepass.apiserver import filters, questions, reviewers
from onepass.apiserver.ports import Authorizer, Connect, Kindless, Limits

# The alias of the path, for `app.build`.
ALIASES = {"/apis/kusionstack.io/Cluster/": "/apis/cluster.karpor.io/v1beta1/clusters/"}

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def connect(
    clusters: Resource, authorize: Authorizer, member: Callable[[str], Authorizer], limits: Limits | None = None
) -> Connect:
    """The subresource. `member` gives the rules that hold on the cluster of a name, also when there is none of it."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        cluster, tail = scope["path_params"]["name"], scope["path_params"]["tail"]
        identity: Identity = scope["identity"]
        asked: Attributes = scope["attributes"]
        kind = _asked(scope.get("method", "GET"), tail, member(cluster))
        if kind is None or scope["upgrade"]:
            await filters.require(authorize, identity, asked)
            raise errors.ApiError(
                404, "NotFound", "no member is reached here: the data plane carries requests to members"
            )
        if identity.user == ANONYMOUS:
            raise errors.unauthorized()
        inner = Attributes("create", tail, True, kind.resource.group, kind.resource.version, kind.resource.plural)
        if not (await member(cluster).allows(identity, inner)).allowed:
            raise errors.forbidden(refusals.denied(identity.user, cluster, inner))
        response = await questions.answered(kind, Request(scope, receive), limits or Limits(), "")
        await response(scope, receive, send)

    return Connect(
        parent=clusters,
        name="proxy",
        kind="ClusterProxyOptions",
        handler=handle,
        methods=_METHODS,
        verbs=("create", "delete", "get", "patch", "update"),
        tail=True,
        guards_itself=True,
    )


def _asked(method: str, tail: str, member: Authorizer) -> Kindless | None:
    """The question that a path on a member asks about the caller, if it does."""
    paths = {f"/apis/{kind.resource.api_version}/{kind.resource.plural}": kind for kind in reviewers.selves(member)}
    return paths.get(tail) if method == "POST" else None
