"""Passes. A pass that could never match anything is refused: its author meant something else."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from onepass.access.identity import ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED
from onepass.api import access_v1beta1, errors, meta
from onepass.api.errors import Cause
from onepass.api.meta import JSON, Object, Resource
from onepass.registry import causes, names, rolerules, selection
from onepass.registry.strategy import Actor, Column, Strategy

RESOURCE = Resource("access.karpor.io", "v1beta1", "Pass", "passes", "pass", namespaced=False)
MODES = ("Gateway", "Impersonate")

_RESOURCE_VERBS = frozenset(
    {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "impersonate", "*"}
)
_PATH_VERBS = frozenset({"get", "head", "post", "put", "patch", "delete", "options", "*"})
_PATTERN = re.compile(r"(\*|[a-z0-9]([-a-z0-9.]*[a-z0-9])?)(/(\*|[a-z]([-a-z0-9]*[a-z0-9])?))?")
_MEANT = {"logs": "log", "port-forward": "portforward", "portforwards": "portforward", "execs": "exec", "cp": "exec"}
_PLURALS = {
    "po": "pods",
    "pod": "pods",
    "svc": "services",
    "service": "services",
    "deploy": "deployments",
    "deployment": "deployments",
    "cm": "configmaps",
    "configmap": "configmaps",
    "secret": "secrets",
    "ns": "namespaces",
    "namespace": "namespaces",
    "no": "nodes",
    "node": "nodes",
}


def in_force(obj: Object, now: float) -> str:
    """Empty when the pass counts at `now`, else why not: Suspended, NotYet or Expired."""
    spec = meta.section(obj, "spec")
    if spec.get("suspended") is True:
        return "Suspended"
    begin, end = _seconds(spec.get("notBefore")), _seconds(spec.get("notAfter"))
    if begin is not None and now < begin:
        return "NotYet"
    return "Expired" if end is not None and now >= end else ""


def _seconds(value: JSON) -> float | None:
    return datetime.fromisoformat(value).timestamp() if isinstance(value, str) and value else None


def _on_create(obj: Object, actor: Actor) -> Object:
    if in_force(obj, actor.now) == "Expired":
        told = [causes.invalid("spec.notAfter", meta.section(obj, "spec").get("notAfter"), "must lie in the future")]
        raise errors.invalid(RESOURCE, meta.name(obj), told)
    return _with_groups(obj)


def _on_update(_old: Object, new: Object, _actor: Actor) -> Object:
    return _with_groups(new)


def _with_groups(obj: Object) -> Object:
    spec = meta.section(obj, "spec")
    return {**obj, "spec": {**spec, "subjects": rolerules.with_groups(spec.get("subjects"))}}


def _validate(obj: Object, _old: Object | None) -> Sequence[Cause]:
    spec = meta.section(obj, "spec")
    wrong: list[Cause] = []
    subjects, rules = rolerules.objects(spec.get("subjects")), rolerules.objects(spec.get("rules"))
    if not subjects:
        wrong.append(causes.required("spec.subjects", "a pass needs at least one user, group or service account"))
    for index, subject in enumerate(subjects):
        wrong += _subject(subject, f"spec.subjects[{index}]")
    wrong += _clusters(meta.section(spec, "clusters"))
    if not rules:
        wrong.append(causes.required("spec.rules", "a pass without rules allows nothing"))
    for index, rule in enumerate(rules):
        wrong += _rule(rule, f"spec.rules[{index}]")
    mode = meta.section(spec, "identity").get("mode", MODES[0])
    if mode not in MODES:
        wrong.append(causes.unsupported("spec.identity.mode", mode, MODES))
    begin, end = _seconds(spec.get("notBefore")), _seconds(spec.get("notAfter"))
    if begin is not None and end is not None and end <= begin:
        wrong.append(causes.invalid("spec.notAfter", spec.get("notAfter"), "must lie after notBefore"))
    return wrong


def _subject(subject: Object, field: str) -> Iterable[Cause]:
    yield from rolerules.subject(subject, field)
    if subject.get("name") in (ANONYMOUS, UNAUTHENTICATED):
        told = "no cluster is open to who does not say who they are"
        yield causes.invalid(f"{field}.name", subject["name"], told)


def _clusters(clusters: Object) -> Iterable[Cause]:
    listed = rolerules.texts(clusters.get("names"))
    if not listed and "selector" not in clusters:
        yield causes.required("spec.clusters", "names or a selector are needed; names: ['*'] means every cluster")
    for index, name in enumerate(listed):
        for problem in names.subdomain(name) if name != "*" else ():
            yield causes.invalid(f"spec.clusters.names[{index}]", name, problem)
    yield from selection.check(meta.section(clusters, "selector"), "spec.clusters.selector")


def _rule(rule: Object, field: str) -> Iterable[Cause]:
    yield from rolerules.rule(rule, field)
    paths = "nonResourceURLs" in rule
    known = _PATH_VERBS if paths else _RESOURCE_VERBS
    for index, verb in enumerate(rolerules.texts(rule.get("verbs"))):
        if verb not in known:
            yield causes.unsupported(f"{field}.verbs[{index}]", verb, sorted(known))
    for index, group in enumerate(rolerules.texts(rule.get("apiGroups"))):
        if group == "core":
            yield causes.invalid(f"{field}.apiGroups[{index}]", group, "the core group is the empty string")
        elif "/" in group:
            yield causes.invalid(f"{field}.apiGroups[{index}]", group, "a group is named without its version")
    for index, resource in enumerate(rolerules.texts(rule.get("resources"))):
        yield from _resource(resource, f"{field}.resources[{index}]")
    namespaces = rolerules.texts(rule.get("namespaces"))
    if "namespaces" in rule and not namespaces:
        # Empty would mean every namespace to a reader of RBAC, and none to whoever made the list with a program.
        yield causes.required(f"{field}.namespaces", "leave it out for every namespace, or name one")
    if namespaces and paths:
        yield causes.forbidden(f"{field}.namespaces", "paths that are no resources lie in no namespace")
    for index, namespace in enumerate(namespaces):
        for problem in names.label(namespace) if namespace != "*" else ():
            yield causes.invalid(f"{field}.namespaces[{index}]", namespace, problem)


def _resource(resource: str, field: str) -> Iterable[Cause]:
    parent, _, sub = resource.partition("/")
    if resource != resource.lower():
        yield causes.invalid(field, resource, "resources are plurals in lower case, such as deployments")
    elif not _PATTERN.fullmatch(resource):
        yield causes.invalid(field, resource, "must be RESOURCE or RESOURCE/SUBRESOURCE, such as pods or pods/log")
    elif parent in ("pods", "pod") and sub in _MEANT:
        yield causes.invalid(field, resource, f"pods have no such subresource; did you mean pods/{_MEANT[sub]}?")


def _warn(obj: Object) -> Sequence[str]:
    spec = meta.section(obj, "spec")
    told = [
        f"spec.subjects[{index}]: everyone who can log in is in {AUTHENTICATED}"
        for index, subject in enumerate(rolerules.objects(spec.get("subjects")))
        if subject.get("name") == AUTHENTICATED
    ]
    for index, rule in enumerate(rolerules.objects(spec.get("rules"))):
        for resource in rolerules.texts(rule.get("resources")):
            plural = _PLURALS.get(resource.partition("/")[0])
            if plural:
                told.append(f'spec.rules[{index}]: rules name resources by their plural: "{plural}", not "{resource}"')
    return told


def _subjects_cell(obj: Object, _now: float) -> str:
    told = []
    for subject in rolerules.objects(meta.section(obj, "spec").get("subjects")):
        kind, name = meta.text(subject, "kind"), meta.text(subject, "name")
        inside = f"{meta.text(subject, 'namespace')}/" if kind == "ServiceAccount" else ""
        told.append(name if kind == "User" else f"{kind.lower()}:{inside}{name}")
    return ",".join(told)


def _clusters_cell(obj: Object, _now: float) -> str:
    clusters = meta.section(meta.section(obj, "spec"), "clusters")
    told = list(rolerules.texts(clusters.get("names")))
    if "selector" in clusters:
        selector = meta.section(clusters, "selector")
        told += [f"{key}={value}" for key, value in meta.section(selector, "matchLabels").items()]
        for expression in rolerules.objects(selector.get("matchExpressions")):
            values = ",".join(rolerules.texts(expression.get("values")))
            told.append(
                " ".join(filter(None, [meta.text(expression, "key"), meta.text(expression, "operator"), values]))
            )
        if not meta.section(selector, "matchLabels") and not selector.get("matchExpressions"):
            told.append("*")
    return ",".join(told)


def _until_cell(obj: Object, _now: float) -> str:
    return meta.text(meta.section(obj, "spec"), "notAfter") or "forever"


def _in_force_cell(obj: Object, now: float) -> str:
    return in_force(obj, now) or "True"


def _mode_cell(obj: Object, _now: float) -> str:
    return meta.text(meta.section(meta.section(obj, "spec"), "identity"), "mode") or MODES[0]


STRATEGY = Strategy(
    resource=RESOURCE,
    model=access_v1beta1.Pass,
    columns=(
        Column("Subjects", _subjects_cell, description="Who holds the pass."),
        Column("Clusters", _clusters_cell, description="The clusters that it opens."),
        Column("Until", _until_cell, description="When it ends."),
        Column("In Force", _in_force_cell, description="Whether it counts now, or why not."),
        Column("Identity", _mode_cell, priority=1, description="As whom requests reach the cluster."),
    ),
    subresources={"status": ("status",)},
    prepare_create=_on_create,
    prepare_update=_on_update,
    validate=_validate,
    warn=_warn,
)
