"""May they: RBAC for the gateway's own API, RBAC and passes for a request to a member.

Rules are the union; there is no deny. How a rule matches is kube-apiserver's rule exactly
(k8s.io/kubernetes/pkg/apis/rbac/v1/evaluation_helpers.go); what a pass adds is a cluster, a time and namespaces.
gateway/gatekeeper.lua decides the same for members; tests/unit/test_differential.py holds the two together.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from onepass.access import refusals, requestinfo
from onepass.access.attributes import UNPLACED, Attributes
from onepass.access.identity import ANONYMOUS, Identity
from onepass.access.policy import Binding, Grant, Mode, Policy, Rule, Subjects

CLUSTERS = "cluster.karpor.io"
_ACCOUNT = re.compile(r"system:serviceaccount:([a-z0-9-]+):([a-z0-9.-]+)")
_DISCOVERY = frozenset({"/api", "/apis", "/healthz", "/livez", "/openapi", "/readyz", "/version", "/version/"})
_DISCOVERY_UNDER = ("/api/", "/apis/", "/openapi/")
_SELF_REVIEWS = frozenset(
    {
        ("authentication.k8s.io", "selfsubjectreviews"),
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
    }
)
_ACTORS = frozenset({"*", "users", "groups", "serviceaccounts", "uids"})  # what one may be allowed to act as
# The verb on `clusters/proxy` that carries a request of this verb; others only "*" carries.
_CARRIERS = {"list": "get", "watch": "get", "deletecollection": "delete", "head": "get", "post": "create"}
_CARRIERS |= {"put": "update"} | {verb: verb for verb in ("get", "create", "update", "patch", "delete")}
_CARRIED = {"get": ("get", "list", "watch"), "delete": ("delete", "deletecollection")}


_REVIEWED = frozenset(resource for _, resource in _SELF_REVIEWS)
# What goes with any right at all on a member.
FREE = (
    *(
        Rule(frozenset({"create"}), frozenset({group}), frozenset(r for g, r in _SELF_REVIEWS if g == group))
        for group in sorted({group for group, _ in _SELF_REVIEWS})
    ),
    Rule(frozenset({"get"}), paths=(*sorted(_DISCOVERY), *(f"{path}*" for path in _DISCOVERY_UNDER))),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request is allowed; `reason` names the rule that allows it."""

    allowed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to a request to a member: carried when `code` is 200, else refused with `code` and `message`."""

    code: int
    message: str = ""
    origin: str = ""  # the binding or the pass that carries it
    mode: Mode = "Gateway"
    until: int | None = None  # Unix seconds at which the right ends; None: it has no end
    here: bool = False  # a question about oneself, which the gateway answers from its own rules


@dataclass(frozen=True, slots=True)
class Way:
    """One binding's or one pass's worth of permission for a request."""

    origin: str
    mode: Mode
    until: int | None

    def rank(self) -> tuple[bool, float]:
        return self.mode == "Gateway", float("inf") if self.until is None else self.until


def allows(policy: Policy, identity: Identity, attributes: Attributes) -> Verdict:
    """Whether RBAC allows a request to the gateway's own API."""
    for binding in bindings_of(policy, identity, attributes.namespace):
        if any(matches(rule, attributes) for rule in binding.rules):
            return Verdict(True, f"RBAC: allowed by {binding.origin}")
    return Verdict(False)


def own_ways(policy: Policy, identity: Identity, attributes: Attributes) -> list[Way]:
    """Every binding by which someone may make such a request to the gateway's own API."""
    found = bindings_of(policy, identity, attributes.namespace)
    return [Way(b.origin, "Gateway", None) for b in found if any(matches(rule, attributes) for rule in b.rules)]


def rules_for(policy: Policy, identity: Identity, namespace: str) -> tuple[Rule, ...]:
    """Every rule that RBAC gives someone in a namespace of the gateway's own API, cluster-wide ones among them."""
    rules = (rule for binding in bindings_of(policy, identity, namespace) for rule in binding.rules)
    return tuple(dict.fromkeys(rules))


def decide(
    policy: Policy,
    identity: Identity,
    cluster: str,
    method: str,
    attributes: Attributes,
    upgrade: bool,
    now: float,
    impersonation: Identity | None = None,
) -> Decision:
    """Whether a request to a member is carried, as whom, and how long the right lasts.

    `attributes` are those of the inner request, `now` Unix seconds, `impersonation` whom the client asked to act as
    (with an empty user when it named only groups or the like).
    """
    if impersonation and not impersonation.user:
        return Decision(400, refusals.NO_USER)
    refused = Decision(403, refusals.denied(identity.user, cluster, attributes))
    if cluster not in policy.targets:
        return Decision(404, refusals.no_cluster(cluster)) if _may_know(policy, identity, cluster) else refused
    carried_as = requestinfo.verb_of(method, upgrade)
    self_review = _is_self_review(attributes) and not upgrade
    free = self_review or (carried_as == "get" and _is_discovery(attributes))
    found = list(_ways(policy, identity, cluster, carried_as, attributes, now, free))
    if not found:
        return refused
    if identity.user.startswith("system:"):
        found = [way for way in found if way.mode == "Gateway"]
        if not found:
            return Decision(403, refusals.denied(identity.user, cluster, attributes, refusals.NEVER_USERS))
    best = max(found, key=Way.rank)
    until = best.until
    for wanted in _wanted(impersonation) if impersonation else ():
        right = _impersonating(policy, identity, cluster, wanted, now)
        if isinstance(right, str):
            return Decision(403, right)
        until = min((end for end in (until, right.until) if end is not None), default=None)
    here = self_review and best.mode == "Gateway" and impersonation is None
    return Decision(200, "", best.origin, best.mode, until, here)


def review(policy: Policy, identity: Identity, cluster: str, attributes: Attributes, now: float) -> Verdict:
    """What a SubjectAccessReview about a member answers: whether `decide` would carry such a request."""
    opened = ways_to(policy, identity, cluster, attributes, now)
    if opened:
        return Verdict(True, f"allowed by {max(opened, key=Way.rank).origin}")
    if attributes.verb == "impersonate" and cluster in policy.targets:
        return Verdict(False, refusals.denied(identity.user, cluster, attributes, _never(attributes)))
    return Verdict(False)


def ways_to(policy: Policy, identity: Identity, cluster: str, attributes: Attributes, now: float) -> list[Way]:
    """Every way in which someone may make such a request to a member, in the order of the policy."""
    if cluster not in policy.targets:
        return []
    if attributes.verb == "impersonate":
        return list(_acting_ways(policy, identity, cluster, attributes, now))
    if attributes.resource in UNPLACED.get(attributes.group, ()) or attributes.resource in _REVIEWED:
        # `kubectl auth can-i` names a namespace even for what lies in none; the request itself would have none.
        attributes = replace(attributes, namespace="")
    carried_as = carrier(attributes.verb)
    free = _is_self_review(attributes) or (carried_as == "get" and _is_discovery(attributes))
    found = _ways(policy, identity, cluster, carried_as, attributes, now, free)
    hidden = identity.user.startswith("system:")  # a member never sees these users
    return [way for way in found if way.mode == "Gateway" or not hidden]


def member_rules(
    policy: Policy, identity: Identity, cluster: str, namespace: str, now: float
) -> tuple[tuple[Rule, ...], str]:
    """Every rule that someone has on a member, in a namespace there ("" for cluster scope), and what bounds them."""
    if cluster not in policy.targets:
        return (), ""
    found: list[Rule] = []
    modes = set[Mode]()
    target = policy.targets[cluster].mode
    for binding in bindings_of(policy, identity, ""):
        for rule in binding.rules:
            if concerns_proxy(rule, cluster):
                verbs = frozenset(inner for verb in rule.verbs for inner in _CARRIED.get(verb, (verb,)))
                found.append(Rule(verbs, frozenset({"*"}), frozenset({"*"}), paths=("*",)))
                modes.add(target)
    for grant in grants_of(policy, identity, cluster, now):
        found.extend(r for r in grant.rules if not r.namespaces or r.namespaces & {"*", namespace})
        modes.add("Impersonate" if "Impersonate" in (grant.mode, target) else "Gateway")
    if not found:
        return (), ""
    for binding in bindings_of(policy, identity, ""):
        acting = (rule for rule in binding.rules if rule.resources & _ACTORS and rule.verbs & {"*", "impersonate"})
        found.extend(replace(rule, verbs=frozenset({"impersonate"}), paths=()) for rule in acting)
    told = refusals.BOUNDED if "Impersonate" in modes else ""
    return tuple(dict.fromkeys((*found, *FREE))), told


def reachable(policy: Policy, identity: Identity, now: float) -> list[str]:
    """The members that someone may do anything on: who may, may read its version."""
    asked = Attributes("get", "/version", False)
    return [name for name in policy.targets if review(policy, identity, name, asked, now).allowed]


def carrier(verb: str) -> str:
    """The verb on `clusters/proxy` that carries a request of this verb; "" when only `*` does."""
    return _CARRIERS.get(verb, "")


def matches(rule: Rule, attributes: Attributes) -> bool:
    """Whether one rule covers one request."""
    if not rule.verbs & {"*", attributes.verb} or (
        rule.namespaces and not rule.namespaces & {"*", attributes.namespace}
    ):
        return False
    if not attributes.is_resource:
        return any(_covers(path, attributes.path) for path in rule.paths)
    wanted = {"*", attributes.qualified}
    if attributes.subresource:
        wanted.add(f"*/{attributes.subresource}")
    return bool(
        rule.groups & {"*", attributes.group}
        and rule.resources & wanted
        and (not rule.names or attributes.name in rule.names)
    )


def _covers(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern.rstrip("*")))


def _indices(subjects: Subjects, identity: Identity) -> list[int]:
    found = set(subjects.users.get(identity.user, ()))
    for group in identity.groups:
        found.update(subjects.groups.get(group, ()))
    return sorted(found)


def bindings_of(policy: Policy, identity: Identity, namespace: str) -> Iterator[Binding]:
    """What RBAC gives someone in a namespace of the gateway's own API, or ("") everywhere."""
    for index in _indices(policy.bound, identity):
        if policy.bindings[index].namespace in ("", namespace):
            yield policy.bindings[index]


def grants_of(policy: Policy, identity: Identity, cluster: str | None, now: float) -> Iterator[Grant]:
    """What passes in force give someone, on one cluster or (None) on any."""
    for index in _indices(policy.granted, identity):
        grant = policy.grants[index]
        begun = grant.not_before is None or grant.not_before <= now
        if begun and (grant.not_after is None or now < grant.not_after):
            if cluster is not None and not grant.clusters & {"*", cluster}:
                continue
            yield grant


def _ways(
    policy: Policy, identity: Identity, cluster: str, carried_as: str, attributes: Attributes, now: float, free: bool
) -> Iterator[Way]:
    """Every way in which a request may be carried, in the order of the policy. `free`: any right at all will do."""
    target = policy.targets[cluster]
    proxy = Attributes(carried_as, "", True, CLUSTERS, "", "clusters", "proxy", "", cluster)
    for binding in bindings_of(policy, identity, ""):
        if any(matches(rule, proxy) or (free and concerns_proxy(rule, cluster)) for rule in binding.rules):
            yield Way(binding.origin, target.mode, None)
    for grant in grants_of(policy, identity, cluster, now):
        if free or any(matches(rule, attributes) for rule in grant.rules):
            mode: Mode = "Impersonate" if "Impersonate" in (grant.mode, target.mode) else "Gateway"
            yield Way(grant.origin, mode, grant.not_after)


def concerns_proxy(rule: Rule, cluster: str) -> bool:
    """Whether a rule gives any verb at all on the member."""
    resources = rule.resources & {"*", "clusters/proxy", "*/proxy"}
    return bool(
        rule.verbs and rule.groups & {"*", CLUSTERS} and resources and (not rule.names or cluster in rule.names)
    )


def _is_self_review(attributes: Attributes) -> bool:
    asked = (attributes.group, attributes.resource)
    outside = attributes.name or attributes.namespace or attributes.subresource
    return attributes.verb == "create" and asked in _SELF_REVIEWS and not outside


def _is_discovery(attributes: Attributes) -> bool:
    """Discovery, version, OpenAPI and health: the paths of Kubernetes' own ClusterRole system:discovery."""
    path = attributes.path
    return not attributes.is_resource and (path in _DISCOVERY or path.startswith(_DISCOVERY_UNDER))


def _may_know(policy: Policy, identity: Identity, cluster: str) -> bool:
    """Whether someone may learn which clusters there are."""
    asking = (
        Attributes("list", "", True, CLUSTERS, "", "clusters"),
        Attributes("get", "", True, CLUSTERS, "", "clusters", "", "", cluster),
    )
    rules = [rule for binding in bindings_of(policy, identity, "") for rule in binding.rules]
    return any(matches(rule, attributes) for rule in rules for attributes in asking)


def _wanted(impersonation: Identity) -> Iterable[Attributes]:
    """What must be allowed for each value (k8s.io/apiserver/pkg/endpoints/filters/impersonation.go)."""
    if account := _ACCOUNT.fullmatch(impersonation.user):
        yield Attributes("impersonate", "", True, "", "v1", "serviceaccounts", "", account[1], account[2])
    else:
        yield Attributes("impersonate", "", True, "", "v1", "users", "", "", impersonation.user)
    for group in impersonation.groups:
        yield Attributes("impersonate", "", True, "", "v1", "groups", "", "", group)
    if impersonation.uid:
        yield Attributes("impersonate", "", True, "authentication.k8s.io", "v1", "uids", "", "", impersonation.uid)
    for key, values in sorted(impersonation.extra.items()):
        for value in values:
            yield Attributes("impersonate", "", True, "authentication.k8s.io", "v1", "userextras", key, "", value)


def _impersonating(policy: Policy, identity: Identity, cluster: str, wanted: Attributes, now: float) -> Way | str:
    """The right to act as one user, group, uid or extra value on a member, or why there is none."""
    found = list(_acting_ways(policy, identity, cluster, wanted, now))
    return max(found, key=Way.rank) if found else refusals.denied(identity.user, cluster, wanted, _never(wanted))


def _acting_ways(policy: Policy, identity: Identity, cluster: str, wanted: Attributes, now: float) -> Iterator[Way]:
    """Either RBAC gives it cluster-wide (the gateway's namespaces are not the member's), or a pass does."""
    if _never(wanted):
        return
    for binding in bindings_of(policy, identity, ""):
        if any(matches(rule, wanted) for rule in binding.rules):
            yield Way(binding.origin, "Gateway", None)
    for grant in grants_of(policy, identity, cluster, now):
        if any(matches(rule, wanted) for rule in grant.rules):
            yield Way(grant.origin, "Gateway", grant.not_after)


def _never(wanted: Attributes) -> str:
    """Why nobody may act as this one, whatever they hold."""
    if wanted.resource == "groups" and wanted.name.startswith("system:"):
        return refusals.NEVER_GROUPS
    return refusals.NEVER_ANONYMOUS if wanted.resource == "users" and wanted.name == ANONYMOUS else ""
