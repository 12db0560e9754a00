"""The policy of what the mirror holds now, compiled when somebody asks and something has changed."""

from onepass.access import compile as compiler
from onepass.access.policy import Policy
from onepass.registry.mirror import Mirror

KINDS = (
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "passes.access.karpor.io",
    "clusters.cluster.karpor.io",
    "serviceaccounts",
    "certificatesigningrequests.certificates.k8s.io",
)


class CurrentPolicy:
    """One compiler for the API server, the data plane and the controllers, so that all decide by the same policy."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._compiler = compiler.Compiler()
        self._generation = -1
        self._policy = Policy()

    def get(self) -> Policy:
        """The same object as before when nothing has changed."""
        generation = self._mirror.generation
        if generation != self._generation:
            policy = self._compiler.compile({kind: self._mirror.list(kind) for kind in KINDS})
            if policy != self._policy:
                self._policy = policy
            self._generation = generation
        return self._policy
