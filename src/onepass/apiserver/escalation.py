"""Admission that lets nobody give away rights that they do not hold: by roles, bindings, passes, or labels of clusters.

Roles and bindings follow kube-apiserver (https://kubernetes.io/docs/reference/access-authn-authz/rbac/
#privilege-escalation-prevention-and-bootstrapping): `escalate` on the role, or `bind` on the role that is bound, lifts
the check. Passes follow the same idea with `escalate` on the pass; docs/decisions/no-escalation.md tells the rest.
"""

import json
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from onepass.access import holding, labels, reading, rules
from onepass.access.attributes import Attributes
from onepass.access.holding import Gift, Place
from onepass.access.policy import Grant, Policy, Rule
from onepass.access.reading import PassHeld
from onepass.api import errors, meta
from onepass.api.errors import ApiError
from onepass.api.meta import Object
from onepass.apiserver.ports import Admission, Attempt
from onepass.registry import clusters, passes, rbac, rolerules, schema

GetPolicy = Callable[[], Awaitable[Policy]]  # as it is now; a policy that is a moment old lets a moment pass

_SHOWN = 8  # rules that a refusal names
_ROLES = {strategy.resource.key: strategy for strategy in (rbac.ROLES, rbac.CLUSTER_ROLES)}
_BINDINGS = {strategy.resource.key: strategy for strategy in (rbac.ROLE_BINDINGS, rbac.CLUSTER_ROLE_BINDINGS)}
# What garbage collection and deletion change: no right is in it.
_HOUSEKEEPING = ("ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation")


def admission(policy: GetPolicy, clock: Callable[[], float] = time.time) -> Admission:
    """The check for every kind that gives rights; other kinds pass."""

    async def admit(attempt: Attempt) -> None:
        if attempt.obj is None or attempt.subresource:
            return
        key = attempt.resource.key
        if key in _ROLES:
            _role(await policy(), attempt, _conformed(attempt, _ROLES[key].model))
        elif key in _BINDINGS:
            _binding(await policy(), attempt, _conformed(attempt, _BINDINGS[key].model))
        elif key == passes.RESOURCE.key:
            _pass(await policy(), attempt, _conformed(attempt, passes.STRATEGY.model), clock())
        elif key == clusters.RESOURCE.key and attempt.old is not None:
            _cluster(await policy(), attempt, attempt.obj, attempt.old, clock())

    return admit


def _conformed(attempt: Attempt, model: type) -> Object:
    """The object as it will be stored, so that what is judged is what is kept. Raises invalid."""
    assert attempt.obj is not None
    return schema.conform(model, attempt.resource, attempt.obj)[0]


def _role(policy: Policy, attempt: Attempt, obj: Object) -> None:
    if _only_housekeeping(obj, attempt.old) or _may(policy, attempt, "escalate", attempt.resource.plural, attempt.name):
        return
    wanted = _rules_of(attempt, obj)
    if any("aggregationRule" in each for each in (obj, attempt.old or {})):
        wanted = holding.EVERYTHING  # it may gather anything, and keep others from tightening what it gathers
    _hold(policy, attempt, wanted)


def _binding(policy: Policy, attempt: Attempt, obj: Object) -> None:
    reference = meta.section(obj, "roleRef")
    kind, name = meta.text(reference, "kind"), meta.text(reference, "name")
    plural = {"ClusterRole": "clusterroles", "Role": "roles"}.get(kind, "")
    if not plural or _only_housekeeping(obj, attempt.old) or _may(policy, attempt, "bind", plural, name):
        return  # what is no role is refused by validation
    home = attempt.namespace if kind == "Role" else ""
    given = policy.roles.get((home, name))
    if given is None:
        resource = (rbac.ROLES if kind == "Role" else rbac.CLUSTER_ROLES).resource
        raise errors.not_found(resource, name)
    _hold(policy, attempt, given)


def _hold(policy: Policy, attempt: Attempt, wanted: Sequence[Rule]) -> None:
    lacking = holding.missing(rules.rules_for(policy, attempt.identity, attempt.namespace), wanted)
    if lacking:
        raise _refused(attempt, f"is attempting to grant RBAC permissions not currently held:\n{_told(lacking)}")


def _rules_of(attempt: Attempt, obj: Object) -> tuple[Rule, ...]:
    try:
        return reading.role(obj).rules
    except ValueError as error:
        raise errors.bad_request(f"{attempt.resource.kind}: {error}") from error


def _pass(policy: Policy, attempt: Attempt, obj: Object, now: float) -> None:
    try:
        new, suspended = _held(attempt, obj)
    except ValueError as error:
        raise errors.bad_request(f"{attempt.resource.kind}: {error}") from error
    gift = _gift(new, now)
    if attempt.old is not None and _narrows(attempt, attempt.old, new, suspended, now):
        return
    if _may(policy, attempt, "escalate", "passes", attempt.name):
        return
    for place, lacking in holding.missing_of(policy, attempt.identity, gift):
        ends = meta.text(meta.section(obj, "spec"), "notAfter")
        until = ", without an end" if math.isinf(gift.ends) else f", until {ends}"
        told = f"is attempting to give by a pass what they do not hold {place}{until}:\n{_told(lacking)}"
        if place.selector:
            told += "\nname the clusters, or use a selector that one of your own passes has"
        raise _refused(attempt, told)


def _narrows(attempt: Attempt, before: Object, new: PassHeld, suspended: bool, now: float) -> bool:
    """Whether a change gives nobody anything that they did not have."""
    try:
        old, was_suspended = _held(attempt, before)
    except ValueError:
        return False  # it gave nothing
    wakes = was_suspended and not suspended
    return not wakes and new.subjects <= old.subjects and not holding.exceeds(_gift(new, now), _gift(old, now))


def _held(attempt: Attempt, obj: Object) -> tuple[PassHeld, bool]:
    """A pass as it would hold were it not suspended, and whether it is. Raises ValueError."""
    spec = meta.section(obj, "spec")
    held = reading.grant({"metadata": {"name": attempt.name}, "spec": {**spec, "suspended": False}})
    assert held is not None
    return held, spec.get("suspended") is True


def _gift(held: PassHeld, now: float) -> Gift:
    selector = None if held.selector is None else labels.requirements(held.selector)
    return Gift(
        rules=held.rules,
        places=holding.places(held.names, selector),
        mode=held.mode,
        begins=max(now, -math.inf if held.not_before is None else held.not_before),
        ends=math.inf if held.not_after is None else held.not_after,
    )


def _cluster(policy: Policy, attempt: Attempt, new: Object, old: Object, now: float) -> None:
    """Labels open a cluster to the passes that select them; so whoever sets them gives what those passes give."""
    if _shows_users(old) and not _shows_users(new):
        asked = Attributes("*", "", True, clusters.RESOURCE.group, "", "clusters", "proxy", "", attempt.name)
        if not rules.allows(policy, attempt.identity, asked).allowed:
            told = 'may not take "identity: Impersonate" from a cluster without every verb on clusters/proxy'
            raise _refused(attempt, told)
    before, after = meta.labels(old), meta.labels(new)
    if before == after:
        return
    for grant in policy.grants:
        over = grant.not_after is not None and grant.not_after <= now
        if over or not _chosen(grant, after) or _chosen(grant, before) or "*" in grant.clusters:
            continue
        if _may(policy, replace(attempt, resource=passes.RESOURCE), "escalate", "passes", grant.origin):
            continue
        ends = math.inf if grant.not_after is None else grant.not_after
        begins = max(now, -math.inf if grant.not_before is None else grant.not_before)
        gift = Gift(grant.rules, (Place(attempt.name),), grant.mode, begins, ends)
        for _, lacking in holding.missing_of(policy, attempt.identity, gift):
            told = f'would open it by these labels to pass "{grant.origin}", which gives what they do not hold there:'
            raise _refused(attempt, f"{told}\n{_told(lacking)}")


def _chosen(grant: Grant, found: dict[str, str]) -> bool:
    return grant.selector is not None and labels.chooses(grant.selector, found)


def _shows_users(cluster: Object) -> bool:
    return meta.text(meta.section(meta.section(cluster, "spec"), "access"), "identity") == "Impersonate"


def _only_housekeeping(new: Object, old: Object | None) -> bool:
    """Whether an update changes nothing that could give a right; labels could, by aggregation."""
    return old is not None and _rid(new) == _rid(old)


def _rid(obj: Object) -> Object:
    kept = {k: v for k, v in meta.section(obj, "metadata").items() if k not in _HOUSEKEEPING}
    return {**obj, "metadata": kept}


def _may(policy: Policy, attempt: Attempt, verb: str, plural: str, name: str) -> bool:
    group = attempt.resource.group if plural == "passes" else rolerules.GROUP
    asked = Attributes(verb, "", True, group, "", plural, "", attempt.namespace, name)
    return rules.allows(policy, attempt.identity, asked).allowed


def _refused(attempt: Attempt, why: str) -> ApiError:
    who = attempt.identity
    groups = _quoted(who.groups)
    told = f'{attempt.resource.key} "{attempt.name}" is forbidden: user "{who.user}" (groups={groups}) {why}'
    return errors.forbidden(told, attempt.resource, attempt.name)


def _told(lacking: Sequence[Rule]) -> str:
    """Rules as kube-apiserver shows them, a line each, verbs on one thing put together."""
    joined: dict[Rule, set[str]] = {}
    for rule in lacking:
        joined.setdefault(replace(rule, verbs=frozenset()), set()).update(rule.verbs)
    lines = [_line(replace(rule, verbs=frozenset(verbs))) for rule, verbs in joined.items()]
    rest = len(lines) - _SHOWN
    return "\n".join([*lines[:_SHOWN], *([f"and {rest} more"] if rest > 0 else [])])


def _line(rule: Rule) -> str:
    fields = (
        ("APIGroups", rule.groups),
        ("Resources", rule.resources),
        ("ResourceNames", rule.names),
        ("Namespaces", rule.namespaces),
        ("NonResourceURLs", rule.paths),
        ("Verbs", rule.verbs),
    )
    return "{" + ", ".join(f"{key}:{_quoted(sorted(values))}" for key, values in fields if values) + "}"


def _quoted(values: Sequence[str]) -> str:
    """As Go prints a list of strings with %q."""
    return "[" + " ".join(map(json.dumps, values)) + "]"
