"""Who asks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
ANONYMOUS = "system:anonymous"
ADMINISTRATORS = "onepass:administrators"  # bound to cluster-admin at first start; the gateway's own first user


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated user, as `authentication.k8s.io/v1 UserInfo`."""

    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
