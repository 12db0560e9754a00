"""Why somebody may or may not: which pass or role it is, what comes near, and the smallest rule that would do.

Decided by the code that decides requests (rules.py) on the objects themselves, so that what is told is what happens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onepass.access import compile as compiler
from onepass.access import reading, rules
from onepass.access.attributes import Attributes
from onepass.access.compile import Objects
from onepass.access.identity import Identity
from onepass.access.policy import Mode, Policy, Rule
from onepass.access.reading import PassHeld
from onepass.api import meta
from onepass.api.meta import JSON, Object

PASSES = "passes.access.karpor.io"
_RBAC = "rbac.authorization.k8s.io"
_FAR = ("it is about other things", "and not near")  # more than one reason: not worth telling


@dataclass(frozen=True, slots=True)
class Right:
    """What allows it: a binding ("ClusterRoleBinding/x") or a pass ("Pass/x"), and by which of the user's names."""

    origin: str
    through: str  # "User alice" or "Group dev"
    mode: Mode
    until: int | None  # Unix seconds


@dataclass(frozen=True, slots=True)
class Near:
    """A pass of the user's that would allow it, were it not for something."""

    origin: str
    why: str


@dataclass(frozen=True, slots=True)
class Question:
    """Who wants what, on which cluster ("" for the gateway's own API)."""

    identity: Identity
    cluster: str
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Answer:
    """`near` and `holders` help when nothing allows it: passes that almost do, and groups that would."""

    rights: tuple[Right, ...]
    near: tuple[Near, ...] = ()
    groups: tuple[Right, ...] = ()

    @property
    def allowed(self) -> bool:
        return bool(self.rights)


def explain(objects: Objects, asked: Question, now: float) -> Answer:
    """The answer, by objects given as to `compile`; `now` in Unix seconds."""
    policy = compiler.compile(objects)
    found = tuple(_rights(policy, asked, now))
    if found:
        return Answer(found)
    groups = tuple(right for right in who_can(objects, asked, now) if right.through.startswith("Group "))
    return Answer((), tuple(_near(objects, policy, asked, now)), groups)


def who_can(objects: Objects, asked: Question, now: float) -> tuple[Right, ...]:
    """Everybody who may, each with what allows it; `asked.identity` does not matter."""
    policy = compiler.compile(objects)
    users = {*policy.bound.users, *(policy.granted.users if asked.cluster else ())}
    groups = {*policy.bound.groups, *(policy.granted.groups if asked.cluster else ())}
    everybody = [Identity(user) for user in sorted(users)] + [Identity("", (group,)) for group in sorted(groups)]
    found = (
        right
        for identity in everybody
        for right in _rights(policy, Question(identity, asked.cluster, asked.attributes), now)
    )
    return tuple(found)


def smallest(asked: Question, name: str) -> tuple[Object, ...]:
    """The objects that would allow exactly this: a pass, or a role with its binding."""
    attributes = asked.attributes
    rule: Object
    if attributes.is_resource:
        rule = {"verbs": [attributes.verb], "apiGroups": [attributes.group], "resources": [attributes.qualified]}
        if attributes.name:
            rule["resourceNames"] = [attributes.name]
    else:
        rule = {"verbs": [attributes.verb], "nonResourceURLs": [attributes.path]}
    subjects: list[JSON] = [_subject(asked.identity.user)]
    if asked.cluster:
        if attributes.namespace:
            rule["namespaces"] = [attributes.namespace]
        spec: Object = {"subjects": subjects, "clusters": {"names": [asked.cluster]}, "rules": [rule]}
        return ({"apiVersion": "access.karpor.io/v1beta1", "kind": "Pass", "metadata": {"name": name}, "spec": spec},)
    prefix, where = ("", {"namespace": attributes.namespace}) if attributes.namespace else ("Cluster", {})
    metadata: Object = {"name": name, **where}
    reference: Object = {"apiGroup": _RBAC, "kind": f"{prefix}Role", "name": name}
    role: Object = {"apiVersion": f"{_RBAC}/v1", "kind": f"{prefix}Role", "metadata": metadata, "rules": [rule]}
    binding: Object = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{prefix}RoleBinding",
        "metadata": metadata,
        "roleRef": reference,
        "subjects": subjects,
    }
    return role, binding


def _subject(user: str) -> Object:
    kind, _, name = user.removeprefix("system:serviceaccount:").partition(":")
    if user.startswith("system:serviceaccount:") and name:
        return {"kind": "ServiceAccount", "namespace": kind, "name": name}
    return {"kind": "User", "apiGroup": _RBAC, "name": user}


def _rights(policy: Policy, asked: Question, now: float) -> Iterator[Right]:
    identity = asked.identity
    if asked.cluster:
        ways = rules.ways_to(policy, identity, asked.cluster, asked.attributes, now)
    else:
        ways = rules.own_ways(policy, identity, asked.attributes)
    for way in dict.fromkeys(ways):
        through = " and ".join(_through(policy, identity, way.origin)) or f"User {identity.user}"
        known = way.origin if "/" in way.origin else f"Pass/{way.origin}"  # no name of a pass has a slash
        yield Right(known, through, way.mode, way.until)


def _through(policy: Policy, identity: Identity, origin: str) -> Iterator[str]:
    """By which of somebody's names a binding or a pass is theirs."""
    for subjects, every in ((policy.bound, policy.bindings), (policy.granted, policy.grants)):
        held: Mapping[str, Sequence[int]] = {
            f"User {identity.user}": subjects.users.get(identity.user, ()),
            **{f"Group {group}": subjects.groups.get(group, ()) for group in identity.groups},
        }
        yield from (name for name, indices in held.items() if any(every[index].origin == origin for index in indices))


def _near(objects: Objects, policy: Policy, asked: Question, now: float) -> Iterator[Near]:
    if not asked.cluster:
        return
    mine = {("users", asked.identity.user), *(("groups", group) for group in asked.identity.groups)}
    opened = {grant.origin: grant.clusters for grant in compiler.compile(_awake(objects)).grants}
    for obj in objects.get(PASSES, ()):
        held = _read(obj)
        if held is None or not held.subjects & mine:
            continue
        here = bool(opened.get(held.origin, frozenset()) & {"*", asked.cluster})
        closest = min((_differences(rule, asked.attributes) for rule in held.rules), key=len, default=["rules"])
        why = [
            *_not_in_force(obj, held, now),
            *([] if here else [f"it does not open cluster {asked.cluster}"]),
            *closest,
        ]
        if len(why) == 1:
            yield Near(f"Pass/{held.origin}", why[0])


def _awake(objects: Objects) -> Objects:
    """The objects with no pass suspended, so that its clusters can be told."""
    return {**objects, PASSES: [_unsuspended(obj) for obj in objects.get(PASSES, ())]}


def _unsuspended(obj: Object) -> Object:
    return {**obj, "spec": {**meta.section(obj, "spec"), "suspended": False}}


def _read(obj: Object) -> PassHeld | None:
    try:
        return reading.grant(_unsuspended(obj))
    except ValueError:
        return None


def _not_in_force(obj: Object, held: PassHeld, now: float) -> Iterator[str]:
    spec = meta.section(obj, "spec")
    if spec.get("suspended") is True:
        yield "it is suspended"
    if held.not_before is not None and now < held.not_before:
        yield f"it begins at {meta.text(spec, 'notBefore')}"
    if held.not_after is not None and now >= held.not_after:
        yield f"it ended at {meta.text(spec, 'notAfter')}"


def _differences(rule: Rule, asked: Attributes) -> list[str]:
    """What a rule would need to cover a request."""
    found: list[str] = []
    if not rule.verbs & {"*", asked.verb}:
        found.append(f"it allows {_listed(rule.verbs)} there, not {asked.verb}")
    if not asked.is_resource:
        covered = any(path in ("*", asked.path) for path in rule.paths) or rules.matches(
            Rule(frozenset("*"), paths=rule.paths), asked
        )
        return found if covered else [*found, *_FAR]
    if not rules.matches(Rule(frozenset("*"), rule.groups, rule.resources), asked):
        return [*found, *_FAR]
    if rule.names and asked.name not in rule.names:
        found.append(f"it is for the names {_listed(rule.names)}")
    if rule.namespaces and not rule.namespaces & {"*", asked.namespace}:
        where = f"not {asked.namespace}" if asked.namespace else "not all"
        found.append(f"it is for the namespaces {_listed(rule.namespaces)}, {where}")
    return found


def _listed(words: frozenset[str]) -> str:
    return ", ".join(sorted(words))
