"""What is there from the first start: two namespaces, and the roles without which nobody could do anything."""

import functools
from collections.abc import Mapping, Sequence

from onepass.access.identity import ADMINISTRATORS, AUTHENTICATED
from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.registry import namespaces, rbac, rolerules
from onepass.registry.store import Store, Write
from onepass.registry.strategy import Actor, Strategy

_READ: list[JSON] = ["get", "list", "watch"]
_ALL: list[JSON] = ["*"]
_UPDATED = "rbac.authorization.kubernetes.io/autoupdate"
# What a client needs to find its way: every client asks for these before anything else.
_DISCOVERY: list[JSON] = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
]


def _rule(group: str, resources: Sequence[str], verbs: list[JSON]) -> Object:
    return {"apiGroups": [group], "resources": list(resources), "verbs": verbs}


def _role(name: str, *rules: Object) -> Object:
    return {"metadata": _metadata(name), "rules": list(rules)}


def _binding(name: str, group: str) -> Object:
    return {
        "metadata": _metadata(name),
        "roleRef": {"apiGroup": rolerules.GROUP, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": rolerules.GROUP, "kind": "Group", "name": group}],
    }


def _metadata(name: str) -> Object:
    return {
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {_UPDATED: "true"},
    }


_SIGNER: Object = {
    "apiGroups": ["certificates.k8s.io"],
    "resources": ["signers"],
    "resourceNames": ["kubernetes.io/kube-apiserver-client"],
    "verbs": ["approve"],
}
_REVIEWS = (
    _rule("authentication.k8s.io", ["selfsubjectreviews"], ["create"]),
    _rule("authorization.k8s.io", ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], ["create"]),
)
_CLUSTERS = ("clusters", "clusters/status")
_REQUESTS = ("certificatesigningrequests", "certificatesigningrequests/approval")

OBJECTS: Sequence[tuple[Strategy, Object]] = (
    (namespaces.STRATEGY, {"metadata": {"name": "default"}}),
    (namespaces.STRATEGY, {"metadata": {"name": "kube-system"}}),
    (
        rbac.CLUSTER_ROLES,
        _role("cluster-admin", _rule("*", ["*"], _ALL), {"nonResourceURLs": _ALL, "verbs": _ALL}),
    ),
    (rbac.CLUSTER_ROLES, _role("system:discovery", {"nonResourceURLs": _DISCOVERY, "verbs": ["get"]})),
    (rbac.CLUSTER_ROLES, _role("system:basic-user", *_REVIEWS)),
    (rbac.CLUSTER_ROLES, _role("onepass:cluster-viewer", _rule("cluster.karpor.io", _CLUSTERS, _READ))),
    (rbac.CLUSTER_ROLES, _role("onepass:cluster-manager", _rule("cluster.karpor.io", _CLUSTERS, _ALL))),
    (rbac.CLUSTER_ROLES, _role("onepass:cluster-user", _rule("cluster.karpor.io", ["clusters/proxy"], _ALL))),
    (
        rbac.CLUSTER_ROLES,
        _role(
            "onepass:pass-viewer",
            _rule("access.karpor.io", ["passes", "passes/status"], _READ),
            _rule("cluster.karpor.io", _CLUSTERS, _READ),
        ),
    ),
    (
        rbac.CLUSTER_ROLES,
        _role(
            "onepass:pass-manager",
            _rule("access.karpor.io", ["passes", "passes/status"], _ALL),
            _rule("cluster.karpor.io", _CLUSTERS, _READ),
            _rule("certificates.k8s.io", _REQUESTS, _ALL),
            _SIGNER,
        ),
    ),
    (rbac.CLUSTER_ROLE_BINDINGS, _binding("cluster-admin", ADMINISTRATORS)),
    (rbac.CLUSTER_ROLE_BINDINGS, _binding("system:discovery", AUTHENTICATED)),
    (rbac.CLUSTER_ROLE_BINDINGS, _binding("system:basic-user", AUTHENTICATED)),
)


async def ensure(stores: Mapping[str, Store], actor: Actor) -> None:
    """Make what is missing, and give roles and bindings back what was taken from them; `stores` by Resource.key.

    As in Kubernetes, an administrator's additions stay, and `autoupdate: "false"` on an object keeps it as it is.
    """
    for strategy, default in OBJECTS:
        store, name = stores[strategy.resource.key], meta.name(default)
        try:
            await store.create("", default, Write(actor))
        except ApiError as refused:
            if refused.reason != "AlreadyExists":
                raise
            await store.update("", name, functools.partial(_restored, default), Write(actor))


def _restored(default: Object, current: Object) -> Object:
    if meta.annotations(current).get(_UPDATED) != "true":
        return current
    for key in ("rules", "subjects"):
        wanted = rolerules.objects(default.get(key))
        found = rolerules.objects(current.get(key))
        missing = [entry for entry in wanted if entry not in found]
        if missing:
            current[key] = [*found, *missing]
    return current
