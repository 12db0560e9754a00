"""The roles and bindings of a new gateway: kube-apiserver's where they mean something here, and OnePass's own.

Source: k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy, and the list at
https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings. Unlike there, nothing is
bound to who does not say who they are: docs/decisions/no-superuser-group.md.
"""

from collections.abc import Sequence

from onepass.access.identity import ADMINISTRATORS, AUTHENTICATED
from onepass.api.meta import JSON, Object
from onepass.registry import rolerules

AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"  # a label, with the name of the role that takes the rules
SERVICE_ACCOUNTS = "system:serviceaccounts"

_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_ALL = ("*",)
_HEALTH = ("/healthz", "/livez", "/readyz", "/version", "/version/")
# What a client needs to find its way: every client asks for these before anything else.
_DISCOVERY = ("/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", *_HEALTH)
_ISSUER = tuple(
    f"{path}{end}" for path in ("/.well-known/openid-configuration", "/openid/v1/jwks") for end in ("", "/")
)
_METRICS = ("/metrics", "/metrics/slis", *_HEALTH[:3], *(f"{path}/*" for path in _HEALTH[:3]))
_APPROVER = "kubernetes.io/kube-apiserver-client"

_AUTHN, _AUTHZ, _CERTIFICATES = "authentication.k8s.io", "authorization.k8s.io", "certificates.k8s.io"
_CLUSTER, _ACCESS = "cluster.karpor.io", "access.karpor.io"
_CLUSTERS, _PASSES = ("clusters", "clusters/status"), ("passes", "passes/status")
_REQUESTS = ("certificatesigningrequests", "certificatesigningrequests/approval")


def _rule(group: str, resources: Sequence[str], verbs: Sequence[str], names: Sequence[str] = ()) -> Object:
    told: Object = {"apiGroups": [group], "resources": [*resources], "verbs": [*verbs]}
    return {**told, "resourceNames": [*names]} if names else told


def _paths(paths: Sequence[str], verbs: Sequence[str] = ("get",)) -> Object:
    return {"nonResourceURLs": [*paths], "verbs": [*verbs]}


def _metadata(name: str, labels: Sequence[str] = ()) -> Object:
    told: dict[str, JSON] = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    told |= {f"{AGGREGATE}{role}": "true" for role in labels}
    return {"name": name, "labels": told, "annotations": {AUTOUPDATE: "true"}}


def _role(name: str, *rules: Object, parts_of: Sequence[str] = ()) -> Object:
    return {"metadata": _metadata(name, parts_of), "rules": [*rules]}


def _whole(name: str, *, part_of: Sequence[str] = ()) -> Object:
    """A role that takes its rules from the roles labelled so."""
    selectors: list[JSON] = [{"matchLabels": {f"{AGGREGATE}{name}": "true"}}]
    return {"metadata": _metadata(name, part_of), "aggregationRule": {"clusterRoleSelectors": selectors}}


def _binding(name: str, *groups: str) -> Object:
    return {
        "metadata": _metadata(name),
        "roleRef": {"apiGroup": rolerules.GROUP, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": rolerules.GROUP, "kind": "Group", "name": group} for group in groups],
    }


_SIGNING = _rule(_CERTIFICATES, ["signers"], ["approve"], [_APPROVER])
_SELF_REVIEWS = (
    _rule(_AUTHZ, ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], ["create"]),
    _rule(_AUTHN, ["selfsubjectreviews"], ["create"]),
    _rule(_ACCESS, ["selfclusterreviews"], ["create"]),
)

CLUSTER_ROLES: Sequence[Object] = (
    _role("cluster-admin", _rule("*", ["*"], _ALL), _paths(["*"], _ALL)),
    _role("system:discovery", _paths(_DISCOVERY)),
    _role("system:basic-user", *_SELF_REVIEWS),
    _role("system:public-info-viewer", _paths(_HEALTH)),
    _role("system:service-account-issuer-discovery", _paths(_ISSUER)),
    _role("system:monitoring", _paths(_METRICS)),
    _role(
        "system:auth-delegator",
        _rule(_AUTHN, ["tokenreviews"], ["create"]),
        _rule(_AUTHZ, ["subjectaccessreviews"], ["create"]),
    ),
    _role("system:certificates.k8s.io:kube-apiserver-client-approver", _SIGNING),
    _whole("admin"),
    _whole("edit", part_of=["admin"]),
    _whole("view", part_of=["edit"]),
    _role(
        "system:aggregate-to-admin",
        _rule(_AUTHZ, ["localsubjectaccessreviews"], ["create"]),
        _rule(rolerules.GROUP, ["roles", "rolebindings"], [*_READ, *_WRITE]),
        parts_of=["admin"],
    ),
    _role(
        "system:aggregate-to-edit",
        _rule("", ["serviceaccounts"], ["impersonate", *_WRITE]),
        _rule("", ["serviceaccounts/token"], ["create"]),
        parts_of=["edit"],
    ),
    _role(
        "system:aggregate-to-view",
        _rule("", ["namespaces", "serviceaccounts"], _READ),
        parts_of=["view"],
    ),
    _role("onepass:cluster-viewer", _rule(_CLUSTER, _CLUSTERS, _READ), parts_of=["view"]),
    _role("onepass:cluster-manager", _rule(_CLUSTER, _CLUSTERS, _ALL)),
    _role("onepass:cluster-user", _rule(_CLUSTER, ["clusters/proxy"], _ALL)),
    _role("onepass:pass-viewer", _rule(_ACCESS, _PASSES, _READ), _rule(_CLUSTER, _CLUSTERS, _READ)),
    # Without `escalate`: who has it gives passes for what they hold themselves, and no more.
    _role(
        "onepass:pass-delegate",
        _rule(_ACCESS, ["passes"], [*_READ, *_WRITE]),
        _rule(_CLUSTER, _CLUSTERS, _READ),
    ),
    _role(
        "onepass:pass-manager",
        _rule(_ACCESS, _PASSES, _ALL),
        _rule(_CLUSTER, _CLUSTERS, _READ),
        _rule(_CERTIFICATES, _REQUESTS, _ALL),
        _SIGNING,
    ),
)
CLUSTER_ROLE_BINDINGS: Sequence[Object] = (
    _binding("cluster-admin", ADMINISTRATORS),
    _binding("system:discovery", AUTHENTICATED),
    _binding("system:basic-user", AUTHENTICATED),
    _binding("system:public-info-viewer", AUTHENTICATED),
    _binding("system:service-account-issuer-discovery", SERVICE_ACCOUNTS),
    _binding("system:monitoring", "system:monitoring"),
)
