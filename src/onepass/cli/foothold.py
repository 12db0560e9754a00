"""What `onepass cluster join` puts into a member: a service account, and the rights that it needs there.

Everything is in a namespace of its own, or named after it, and labelled, so that it can be told apart and taken away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from onepass.api import meta
from onepass.api.meta import Object
from onepass.cli.failure import Failure
from onepass.registry import names

ACCOUNT = "onepass"
NAMESPACE = "onepass-system"
ROLE = "cluster-admin"
JOINED = "onepass.karpor.io/namespace"  # an annotation on the Cluster: where in the member its account is
LABELS: Object = {"app.kubernetes.io/managed-by": "onepass"}
LABEL = ",".join(f"{key}={value}" for key, value in LABELS.items())  # as a selector
SPACES = "/api/v1/namespaces"

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_RBAC_VERSION = "rbac.authorization.k8s.io/v1"

# As whom a request comes in the mode Impersonate: k8s.io/apiserver/pkg/endpoints/filters/impersonation asks for
# `impersonate` on each of them. Beside uids, the resources of authentication.k8s.io are userextras/KEY for every KEY,
# and RBAC has no other way to say that.
_IMPERSONATE: list[Object] = [
    {"apiGroups": [""], "resources": ["users", "groups", "serviceaccounts"], "verbs": ["impersonate"]},
    {"apiGroups": ["authentication.k8s.io"], "resources": ["*"], "verbs": ["impersonate"]},
    {"nonResourceURLs": ["/version"], "verbs": ["get"]},  # what the gateway itself asks
]


@dataclass(frozen=True, slots=True)
class Foothold:
    """`role` is a ClusterRole of the member, "" for no more than impersonating users."""

    cluster: str
    namespace: str
    role: str

    @property
    def binding(self) -> str:
        """The name of what is cluster-scoped."""
        return f"onepass:{self.namespace}"

    @property
    def home(self) -> str:
        return f"{SPACES}/{self.namespace}"

    @property
    def token(self) -> str:
        return f"{self.home}/serviceaccounts/{ACCOUNT}/token"

    def objects(self, marks: Mapping[str, str]) -> list[tuple[str, Object]]:
        """The collection and the object of each, in the order in which they are made; `marks` are annotations."""
        account: Object = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.namespace}
        made = [
            (SPACES, _object("v1", "Namespace", self.namespace)),
            (
                f"{self.home}/serviceaccounts",
                _object("v1", "ServiceAccount", ACCOUNT) | {"automountServiceAccountToken": False},
            ),
            (
                f"{_RBAC}/namespaces/{self.namespace}/roles",
                _object(_RBAC_VERSION, "Role", ACCOUNT)
                | {
                    "rules": [
                        {
                            "apiGroups": [""],
                            "resources": ["serviceaccounts/token"],
                            "resourceNames": [ACCOUNT],
                            "verbs": ["create"],
                        }
                    ]
                },
            ),
            (
                f"{_RBAC}/namespaces/{self.namespace}/rolebindings",
                _bound(_object(_RBAC_VERSION, "RoleBinding", ACCOUNT), "Role", ACCOUNT, account),
            ),
        ]
        if not self.role:
            rules: Object = {"rules": [*_IMPERSONATE]}
            made.append((f"{_RBAC}/clusterroles", _object(_RBAC_VERSION, "ClusterRole", self.binding) | rules))
        binding = _object(_RBAC_VERSION, "ClusterRoleBinding", self.binding)
        made.append(
            (f"{_RBAC}/clusterrolebindings", _bound(binding, "ClusterRole", self.role or self.binding, account))
        )
        for _, each in made:
            meta.section(each, "metadata")["annotations"] = {**marks}
        return made

    def names(self) -> list[str]:
        """What takes a name of the member's: first what gives rights, last the namespace that holds the rest."""
        return [*(f"{_RBAC}/{kind}/{self.binding}" for kind in ("clusterrolebindings", "clusterroles")), self.home]

    def paths(self) -> list[str]:
        """What there is to take away, in its order."""
        *rights, home = self.names()
        return [*rights, f"{self.home}/serviceaccounts/{ACCOUNT}", home]


def joined(cluster: Object) -> str:
    """The namespace of a Cluster's account, "" when it was not joined. Raises Failure.

    Whoever may update clusters can write it, and it becomes part of paths that a member's administrator asks.
    """
    namespace = meta.annotations(cluster).get(JOINED, "")
    if namespace and names.label(namespace):
        raise Failure(
            f"the annotation {JOINED} of the Cluster {meta.name(cluster)} is no name of a namespace",
            "somebody has changed it: see who, and join the cluster again",
        )
    return namespace


def spaces() -> str:
    """The path that lists every namespace of a join, of whichever gateway."""
    return f"{SPACES}?labelSelector={quote(LABEL)}"


def role_path(role: str) -> str:
    return f"{_RBAC}/clusterroles/{role}"


def token_request(seconds: int) -> Object:
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": seconds},
    }


def _object(version: str, kind: str, name: str) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": {**LABELS}}}


def _bound(binding: Object, kind: str, role: str, account: Object) -> Object:
    reference: Object = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}
    return binding | {"roleRef": reference, "subjects": [account]}
