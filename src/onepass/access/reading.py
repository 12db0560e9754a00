"""What one object says about access, read from its JSON without trusting it.

Every function takes one object and gives a value, None when it says nothing, or raises ValueError when it is not what
its kind says.
"""

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from cryptography import x509

from onepass.access.policy import Mode, Role, Rule, Target
from onepass.api import meta
from onepass.api.meta import Object

Subject = tuple[str, str]  # "users" or "groups", and the name

# Both go into requests as they stand.
_AUTHORITY = re.compile(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")
_PREFIX = re.compile(r"[A-Za-z0-9/._~!$&'()*+,=:@-]*")


class Unreadable(ValueError):
    """An object, or a field of it, is not what its kind says."""


@dataclass(frozen=True, slots=True)
class RoleRules:
    """A Role or ClusterRole; `selectors` is None unless it is aggregated from the roles that they choose."""

    role: Role
    rules: tuple[Rule, ...]
    labels: Mapping[str, str]
    selectors: tuple[Object, ...] | None


@dataclass(frozen=True, slots=True)
class RoleHeld:
    """A RoleBinding or ClusterRoleBinding."""

    origin: str
    namespace: str
    role: Role
    subjects: frozenset[Subject]


@dataclass(frozen=True, slots=True)
class PassHeld:
    """A Pass that is not suspended; its clusters are `names` and those that `selector` chooses."""

    origin: str
    subjects: frozenset[Subject]
    rules: tuple[Rule, ...]
    names: frozenset[str]
    selector: Object | None
    mode: Mode
    not_before: int | None
    not_after: int | None


@dataclass(frozen=True, slots=True)
class Reachable:
    """A Cluster."""

    target: Target
    labels: Mapping[str, str]


def role(obj: Object) -> RoleRules:
    aggregation = obj.get("aggregationRule")
    selectors = None
    if isinstance(aggregation, dict):
        selectors = tuple(_mappings(aggregation, "clusterRoleSelectors"))
    elif aggregation is not None:
        raise Unreadable("aggregationRule is no object")
    return RoleRules((meta.namespace(obj), meta.name(obj)), _rules(obj), meta.labels(obj), selectors)


def binding(obj: Object) -> RoleHeld:
    namespace, name, to = meta.namespace(obj), meta.name(obj), meta.section(obj, "roleRef")
    kind = meta.text(to, "kind")
    if kind != "ClusterRole" and not (kind == "Role" and namespace):
        raise Unreadable(f"{kind!r} is no role that can be bound here")
    origin = f"RoleBinding/{namespace}/{name}" if namespace else f"ClusterRoleBinding/{name}"
    home = namespace if kind == "Role" else ""
    return RoleHeld(origin, namespace, (home, meta.text(to, "name")), _subjects(obj, namespace))


def grant(obj: Object) -> PassHeld | None:
    spec = meta.section(obj, "spec")
    if spec.get("suspended") not in (None, False) or "deletionTimestamp" in meta.section(obj, "metadata"):
        return None
    begin, end = _moment(spec, "notBefore"), _moment(spec, "notAfter")
    clusters = meta.section(spec, "clusters")
    selector = clusters.get("selector")
    if selector is not None and not isinstance(selector, dict):
        raise Unreadable("the selector is no object")
    return PassHeld(
        origin=meta.name(obj),
        subjects=_subjects(spec, ""),
        rules=_rules(spec),
        names=_strings(clusters, "names"),
        selector=selector,
        mode=_mode(meta.text(meta.section(spec, "identity"), "mode")),
        not_before=None if begin is None else math.ceil(begin),
        not_after=None if end is None else math.floor(end),
    )


def cluster(obj: Object) -> Reachable:
    name, access = meta.name(obj), meta.section(meta.section(obj, "spec"), "access")
    endpoint = urlsplit(meta.text(access, "endpoint"))
    if endpoint.scheme != "https" or not _AUTHORITY.fullmatch(endpoint.netloc) or not _PREFIX.fullmatch(endpoint.path):
        raise Unreadable("the endpoint is no https address")
    mode = _mode(meta.text(access, "identity"))
    return Reachable(Target(name, endpoint.netloc, endpoint.path.rstrip("/"), mode), meta.labels(obj))


def account(obj: Object) -> tuple[str, str] | None:
    """The user name of a ServiceAccount, and its uid; None for one that is deleted and kept by a finalizer, which
    anybody who may update it can add."""
    if "deletionTimestamp" in meta.section(obj, "metadata"):
        return None
    return f"system:serviceaccount:{meta.namespace(obj)}:{meta.name(obj)}", meta.uid(obj)


def revoked(obj: Object) -> str | None:
    """The serial number of a certificate that was taken back, as lower-case hex, of a CertificateSigningRequest."""
    status = meta.section(obj, "status")
    for condition in _mappings(status, "conditions"):
        if meta.text(condition, "type") == "Revoked" and meta.text(condition, "status") != "False":
            pem = base64.b64decode(meta.text(status, "certificate"))
            return f"{x509.load_pem_x509_certificate(pem).serial_number:x}"
    return None


def _rules(obj: Object) -> tuple[Rule, ...]:
    return tuple(dict.fromkeys(map(_rule, _mappings(obj, "rules"))))


def _rule(obj: Object) -> Rule:
    return Rule(
        verbs=_strings(obj, "verbs"),
        groups=_strings(obj, "apiGroups"),
        resources=_strings(obj, "resources"),
        names=_strings(obj, "resourceNames"),
        namespaces=_strings(obj, "namespaces"),
        paths=tuple(sorted(_strings(obj, "nonResourceURLs"))),
    )


def _subjects(obj: Object, namespace: str) -> frozenset[Subject]:
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


def _mode(text: str) -> Mode:
    if text == "Impersonate":
        return "Impersonate"
    if text in ("", "Gateway"):
        return "Gateway"
    raise Unreadable(f"{text!r} is no mode")


def _moment(obj: Object, key: str) -> float | None:
    """An RFC 3339 time as Unix seconds; None when there is none."""
    value = obj.get(key)
    if value is None:
        return None
    moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    if moment is None or moment.tzinfo is None:
        raise Unreadable(f"{key} is no time with a zone")
    return moment.timestamp()


def _strings(obj: Object, key: str) -> frozenset[str]:
    values = _list(obj, key)
    strings = [value for value in values if isinstance(value, str)]
    if len(strings) != len(values):
        raise Unreadable(f"{key} holds what is no string")
    return frozenset(strings)


def _mappings(obj: Object, key: str) -> list[Object]:
    values = _list(obj, key)
    mappings = [value for value in values if isinstance(value, dict)]
    if len(mappings) != len(values):
        raise Unreadable(f"{key} holds what is no object")
    return mappings


def _list(obj: Object, key: str) -> list[meta.JSON]:
    values = obj.get(key)
    if values is None:
        return []
    if not isinstance(values, list):
        raise Unreadable(f"{key} is no list")
    return values
