"""The policy of what the mirror holds now, compiled when somebody asks and something has changed."""

from collections.abc import Mapping
from types import MappingProxyType

from onepass.access import compile as compiler
from onepass.access.policy import Policy
from onepass.api import meta
from onepass.registry import changes
from onepass.registry.mirror import Mirror

REQUESTS = "certificatesigningrequests.certificates.k8s.io"
KINDS = (
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "passes.access.karpor.io",
    "clusters.cluster.karpor.io",
    "serviceaccounts",
    REQUESTS,
)
# Whether a certificate was taken back is told in status; of the others no status decides anything.
CONCERNS: Mapping[str, changes.Version] = MappingProxyType(
    {kind: meta.resource_version if kind == REQUESTS else changes.wanted for kind in KINDS}
)


class CurrentPolicy:
    """One compiler for the API server, the data plane and the controllers, so that all decide by the same policy."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._compiler = compiler.Compiler()
        self._changes = mirror.follow(CONCERNS)
        self._policy = Policy()

    def get(self) -> Policy:
        """The same object as before when nothing has changed."""
        if self._changes.take():
            policy = self._compiler.compile({kind: self._mirror.list(kind) for kind in KINDS})
            if policy != self._policy:
                self._policy = policy
        return self._policy
