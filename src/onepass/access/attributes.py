"""What a request asks for, in the terms that rules speak (k8s.io/apiserver authorizer.Attributes)."""

from dataclasses import dataclass

# Kinds of Kubernetes that lie in no namespace, by group. A request for a namespace is in that namespace.
UNPLACED = {
    "": frozenset({"nodes", "persistentvolumes", "componentstatuses"}),
    "rbac.authorization.k8s.io": frozenset({"clusterroles", "clusterrolebindings"}),
    "storage.k8s.io": frozenset({"storageclasses", "volumeattachments", "csidrivers", "csinodes"}),
    "apiextensions.k8s.io": frozenset({"customresourcedefinitions"}),
    "certificates.k8s.io": frozenset({"certificatesigningrequests"}),
}


@dataclass(frozen=True, slots=True)
class Attributes:
    """One request. A non-resource request has only `verb` (the method in lower case) and `path`."""

    verb: str
    path: str
    is_resource: bool
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def qualified(self) -> str:
        """`resource` or `resource/subresource`, as rules name it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource
