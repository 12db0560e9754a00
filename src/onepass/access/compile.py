"""From objects to the policy that decides: RBAC, passes, clusters, service accounts and certificates taken back.

An object that cannot be read grants nothing and stops nothing else: there is no deny rule that its loss could lift.
Objects are compiled in the order of their names, so that equal objects give an equal policy.
"""

import base64
import functools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar
from urllib.parse import urlsplit

from cryptography import x509

from onepass.access.labels import Index
from onepass.access.policy import Binding, Grant, Mode, Policy, Rule, Subjects, Target
from onepass.api import meta
from onepass.api.meta import Object

T = TypeVar("T")

# Both go into requests as they stand.
_AUTHORITY = re.compile(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")
_PREFIX = re.compile(r"[A-Za-z0-9/._~!$&'()*+,=:@%-]*")

Objects = Mapping[str, Sequence[Object]]
Subject = tuple[str, str]  # "users" or "groups", and the name


class Unreadable(ValueError):
    """An object, or a field of it, is not what its kind says."""


def compile(objects: Objects) -> Policy:
    """The policy of these objects, given by Resource.key (`passes.access.karpor.io`); a kind that is missing is empty."""
    targets = dict(_each(objects, "clusters.cluster.karpor.io", _target))
    clusters = Index({meta.name(obj): meta.labels(obj) for obj in objects.get("clusters.cluster.karpor.io", ())})
    bindings = _all_bindings(objects)
    grants = _each(objects, "passes.access.karpor.io", _Passes(clusters).grant)
    return Policy(
        bindings=tuple(binding for _, binding in bindings),
        bound=_subjects([subjects for subjects, _ in bindings]),
        grants=tuple(grant for _, grant in grants),
        granted=_subjects([subjects for subjects, _ in grants]),
        targets=targets,
        accounts=dict(_each(objects, "serviceaccounts", _account)),
        revoked=frozenset(_each(objects, "certificatesigningrequests.certificates.k8s.io", _revoked)),
    )


def _each(objects: Objects, key: str, read: Callable[[Object], T | None]) -> list[T]:
    """What `read` makes of every object of a kind, in the order of their names; None and Unreadable leave one out."""
    found: list[T] = []
    for obj in sorted(objects.get(key, ()), key=lambda obj: (meta.namespace(obj), meta.name(obj))):
        try:
            made = read(obj)
        except ValueError:
            continue
        if made is not None:
            found.append(made)
    return found


def _subjects(held: Sequence[frozenset[Subject]]) -> Subjects:
    """Who holds which index."""
    index: dict[str, dict[str, list[int]]] = {"users": defaultdict(list), "groups": defaultdict(list)}
    for number, subjects in enumerate(held):
        for sort, name in subjects:
            index[sort][name].append(number)
    users, groups = ({name: tuple(index[sort][name]) for name in sorted(index[sort])} for sort in ("users", "groups"))
    return Subjects(users, groups)


# -- fields -----------------------------------------------------------------------------------------------------------


def _strings(obj: Object, key: str) -> frozenset[str]:
    values = obj.get(key) or []
    if not isinstance(values, list):
        raise Unreadable(f"{key} is no list")
    strings = [value for value in values if isinstance(value, str)]
    if len(strings) != len(values):
        raise Unreadable(f"{key} holds what is no string")
    return frozenset(strings)


def _mappings(obj: Object, key: str) -> list[Object]:
    values = obj.get(key) or []
    if not isinstance(values, list):
        raise Unreadable(f"{key} is no list")
    mappings = [value for value in values if isinstance(value, dict)]
    if len(mappings) != len(values):
        raise Unreadable(f"{key} holds what is no object")
    return mappings


def _moment(obj: Object, key: str) -> float | None:
    """An RFC 3339 time as Unix seconds; None when there is none. Raises ValueError."""
    value = obj.get(key)
    if value is None:
        return None
    moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    if moment is None or moment.tzinfo is None:
        raise Unreadable(f"{key} is no time with a zone")
    return moment.timestamp()


def _rule(obj: Object) -> Rule:
    return Rule(
        verbs=_strings(obj, "verbs"),
        groups=_strings(obj, "apiGroups"),
        resources=_strings(obj, "resources"),
        names=_strings(obj, "resourceNames"),
        namespaces=_strings(obj, "namespaces"),
        paths=tuple(sorted(_strings(obj, "nonResourceURLs"))),
    )


def _held_by(obj: Object, namespace: str) -> frozenset[Subject]:
    """RBAC subjects; a ServiceAccount without a namespace is in that of its binding."""
    subjects: set[Subject] = set()
    for subject in _mappings(obj, "subjects"):
        name = meta.text(subject, "name")
        match meta.text(subject, "kind"):
            case "User" if name:
                subjects.add(("users", name))
            case "Group" if name:
                subjects.add(("groups", name))
            case "ServiceAccount" if name and (home := meta.text(subject, "namespace") or namespace):
                subjects.add(("users", f"system:serviceaccount:{home}:{name}"))
            case kind:
                raise Unreadable(f"{kind!r} {name!r} is no subject")
    return frozenset(subjects)


# -- RBAC -------------------------------------------------------------------------------------------------------------


def _all_bindings(objects: Objects) -> list[tuple[frozenset[Subject], Binding]]:
    roles: dict[tuple[str, str], tuple[Rule, ...]] = {}
    roles.update((("", name), rules) for name, rules in _cluster_roles(objects).items())
    roles.update(_each(objects, "roles.rbac.authorization.k8s.io", lambda obj: (_where(obj), _rules(obj))))

    def binding(obj: Object) -> tuple[frozenset[Subject], Binding] | None:
        namespace, name = _where(obj)
        to = meta.section(obj, "roleRef")
        home = namespace if meta.text(to, "kind") == "Role" else ""
        if meta.text(to, "kind") not in ("ClusterRole", "Role") or (meta.text(to, "kind") == "Role" and not namespace):
            return None
        rules = roles.get((home, meta.text(to, "name")))
        origin = f"RoleBinding/{namespace}/{name}" if namespace else f"ClusterRoleBinding/{name}"
        return (_held_by(obj, namespace), Binding(origin, rules, namespace)) if rules else None

    wide = _each(objects, "clusterrolebindings.rbac.authorization.k8s.io", binding)
    return wide + _each(objects, "rolebindings.rbac.authorization.k8s.io", binding)


def _where(obj: Object) -> tuple[str, str]:
    return meta.namespace(obj), meta.name(obj)


def _rules(obj: Object) -> tuple[Rule, ...]:
    return tuple(dict.fromkeys(_rule(rule) for rule in _mappings(obj, "rules")))


def _cluster_roles(objects: Objects) -> dict[str, tuple[Rule, ...]]:
    """Rules by ClusterRole. An aggregated one has those of the roles it selects, and theirs in turn; its own count not.

    Rule: k8s.io/kubernetes/pkg/controller/clusterroleaggregation.
    """
    key = "clusterroles.rbac.authorization.k8s.io"
    own = dict(_each(objects, key, lambda obj: (meta.name(obj), _rules(obj))))
    readable = {meta.name(obj): obj for obj in objects.get(key, ()) if meta.name(obj) in own}
    index = Index({name: meta.labels(readable[name]) for name in own})

    def selected(obj: Object) -> tuple[str, frozenset[str]] | None:
        if not isinstance(obj.get("aggregationRule"), dict):
            return None
        selectors = _mappings(meta.section(obj, "aggregationRule"), "clusterRoleSelectors")
        return meta.name(obj), frozenset[str]().union(*(index.select(selector) for selector in selectors))

    parts = dict(_each({key: list(readable.values())}, key, selected))
    unreadable = {name for name, obj in readable.items() if "aggregationRule" in obj and name not in parts}
    rules: dict[str, tuple[Rule, ...]] = {}
    for name in own.keys() - unreadable:
        reached, ahead = {name}, [name]
        while ahead:
            ahead = [part for each in ahead for part in sorted(parts.get(each, ())) if part not in reached]
            reached.update(ahead)
        leaves = (own[part] for part in sorted(reached) if part not in parts and part not in unreadable)
        rules[name] = tuple(dict.fromkeys(rule for leaf in leaves for rule in leaf))
    return rules


# -- passes and clusters ----------------------------------------------------------------------------------------------


class _Passes:
    """Reads passes; equal sets of rules and of clusters become one object, since most passes are alike."""

    def __init__(self, clusters: Index) -> None:
        self._clusters = clusters
        self._sets: dict[frozenset[str], frozenset[str]] = {}
        self._rules: dict[tuple[Rule, ...], tuple[Rule, ...]] = {}

    def grant(self, obj: Object) -> tuple[frozenset[Subject], Grant] | None:
        spec = meta.section(obj, "spec")
        if spec.get("suspended") not in (None, False) or meta.text(meta.section(obj, "metadata"), "deletionTimestamp"):
            return None
        begin, end = _moment(spec, "notBefore"), _moment(spec, "notAfter")
        rules, clusters = _rules(spec), self._chosen(meta.section(spec, "clusters"))
        subjects = _held_by(spec, "")
        if not (rules and clusters and subjects):
            return None
        grant = Grant(
            origin=meta.name(obj),
            rules=self._rules.setdefault(rules, rules),
            clusters=self._sets.setdefault(clusters, clusters),
            mode=_mode(meta.text(meta.section(spec, "identity"), "mode")),
            not_before=None if begin is None else math.ceil(begin),
            not_after=None if end is None else math.floor(end),
        )
        return subjects, grant

    def _chosen(self, clusters: Object) -> frozenset[str]:
        names, selector = _strings(clusters, "names"), clusters.get("selector")
        if selector is None:
            return names
        if not isinstance(selector, dict):
            raise Unreadable("the selector is no object")
        return names | (self._clusters.select(selector) if any(selector.values()) else {"*"})


def _mode(text: str) -> Mode:
    if text == "Impersonate":
        return "Impersonate"
    if text in ("", "Gateway"):
        return "Gateway"
    raise Unreadable(f"{text!r} is no mode")


def _target(obj: Object) -> tuple[str, Target]:
    name, access = meta.name(obj), meta.section(meta.section(obj, "spec"), "access")
    endpoint = urlsplit(meta.text(access, "endpoint"))
    if endpoint.scheme != "https" or not _AUTHORITY.fullmatch(endpoint.netloc) or not _PREFIX.fullmatch(endpoint.path):
        raise Unreadable("the endpoint is no https address")
    mode = _mode(meta.text(access, "identity"))
    return name, Target(name, endpoint.netloc, endpoint.path.rstrip("/"), mode)


# -- who is still known -----------------------------------------------------------------------------------------------


def _account(obj: Object) -> tuple[str, str]:
    return f"system:serviceaccount:{meta.namespace(obj)}:{meta.name(obj)}", meta.uid(obj)


def _revoked(obj: Object) -> str | None:
    """The serial number of a certificate that was taken back."""
    status = meta.section(obj, "status")
    for condition in _mappings(status, "conditions"):
        if meta.text(condition, "type") == "Revoked" and meta.text(condition, "status") != "False":
            return _serial(meta.text(status, "certificate"))
    return None


@functools.lru_cache(maxsize=16384)
def _serial(certificate: str) -> str:
    """The serial number in a base64-encoded PEM, as lower-case hex. Raises ValueError."""
    return f"{x509.load_pem_x509_certificate(base64.b64decode(certificate)).serial_number:x}"
