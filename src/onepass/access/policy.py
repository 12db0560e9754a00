"""The compiled policy: what the API server asks in Python and the gatekeeper asks in Lua.

`onepass.access.compile` makes it from RBAC objects, passes and clusters; `onepass.access.rules` decides with it;
`onepass.gateway.tables` writes it as Lua. Times are Unix seconds; None means unbounded. "*" in a set means any.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["Gateway", "Impersonate"]
Role = tuple[str, str]  # the namespace, "" for a ClusterRole, and the name
# What a LabelSelector requires, as (key, operator, values), all of it together; nothing at all chooses everything.
Selector = frozenset[tuple[str, str, frozenset[str]]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One RBAC PolicyRule, plus the namespaces that a pass may narrow it to (empty: every namespace)."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()  # "pods", "pods/log", "*/log"; "*" is any, subresources too; no "pods/*"
    names: frozenset[str] = frozenset()  # empty: any name, and requests without one
    namespaces: frozenset[str] = frozenset()  # when given, what lies in no namespace is outside too
    paths: tuple[str, ...] = ()  # non-resource paths; a trailing "*" matches any rest


@dataclass(frozen=True, slots=True)
class Grant:
    """Rules that one pass gives its subjects on some clusters, within a time."""

    origin: str  # the pass's name
    rules: tuple[Rule, ...]
    clusters: frozenset[str]  # resolved names; "*" for every cluster
    mode: Mode
    not_before: int | None = None
    not_after: int | None = None
    selector: Selector | None = None  # that chose some of the clusters; None: all of them were named


@dataclass(frozen=True, slots=True)
class Binding:
    """Rules that RBAC gives its subjects on the gateway's own API; `namespace` "" for a ClusterRoleBinding."""

    origin: str  # "ClusterRoleBinding/x" or "RoleBinding/ns/x"
    rules: tuple[Rule, ...]
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Subjects:
    """Indices into Policy.grants or Policy.bindings, by user name and by group name.

    A ServiceAccount subject is the user `system:serviceaccount:NAMESPACE:NAME`.
    """

    users: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """A member cluster as the gatekeeper must know it."""

    name: str
    authority: str  # the Host that the member expects
    prefix: str  # path before the inner path, without trailing slash; mostly ""
    mode: Mode  # spec.access.identity: Impersonate here makes every grant impersonate


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that decides. Same objects, same value."""

    bindings: tuple[Binding, ...] = ()
    bound: Subjects = field(default_factory=Subjects)
    grants: tuple[Grant, ...] = ()
    granted: Subjects = field(default_factory=Subjects)
    targets: Mapping[str, Target] = field(default_factory=dict)
    accounts: Mapping[str, str] = field(default_factory=dict)  # service-account user name -> uid
    roles: Mapping[Role, tuple[Rule, ...]] = field(default_factory=dict)  # bound or not, aggregated ones with theirs
    revoked: frozenset[str] = frozenset()  # serial numbers, lower-case hex without leading zeros
