"""Rules of a pass: what can never match any request is refused, what probably means something else is told."""

import re
from collections.abc import Iterable, Iterator, Sequence

from onepass.access import attributes
from onepass.access.identity import ANONYMOUS
from onepass.api.errors import Cause
from onepass.api.meta import Object
from onepass.registry import causes, names, rolerules

_RESOURCE_VERBS = frozenset(
    {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "impersonate", "*"}
)
_PATH_VERBS = frozenset({"get", "head", "post", "put", "patch", "delete", "options", "*"})
_PATTERN = re.compile(r"(\*|[a-z0-9]([-a-z0-9.]*[a-z0-9])?)(/[a-z]([-a-z0-9]*[a-z0-9])?)?")
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
_STREAMS = frozenset({"pods/exec", "pods/attach", "pods/portforward"})
_ACTORS = frozenset({"users", "groups", "serviceaccounts", "uids"})  # what can be impersonated; userextras/KEY too


def wrong(rule: Object, field: str) -> Iterable[Cause]:
    """What makes a rule unfit, or unable to match anything."""
    yield from rolerules.rule(rule, field)
    paths = "nonResourceURLs" in rule
    known = _PATH_VERBS if paths else _RESOURCE_VERBS
    for index, verb in enumerate(_texts(rule, "verbs")):
        if verb not in known:
            yield causes.unsupported(f"{field}.verbs[{index}]", verb, sorted(known))
    for index, group in enumerate(_texts(rule, "apiGroups")):
        if group == "core":
            yield causes.invalid(f"{field}.apiGroups[{index}]", group, "the core group is the empty string")
        elif "/" in group:
            yield causes.invalid(f"{field}.apiGroups[{index}]", group, "a group is named without its version")
    for index, resource in enumerate(_texts(rule, "resources")):
        yield from _resource(resource, f"{field}.resources[{index}]")
    for index, path in enumerate(_texts(rule, "nonResourceURLs")):
        if _is_of_resource(path):
            told = "requests there are for resources: name the group and the resource instead"
            yield causes.invalid(f"{field}.nonResourceURLs[{index}]", path, told)
    yield from _namespaces(rule, field, paths)
    yield from _never(rule, field)


def odd(rule: Object, *, everywhere: bool) -> Iterator[str]:
    """What its author may have meant otherwise; `everywhere` for a rule that holds on every cluster."""
    verbs, resources = set(_texts(rule, "verbs")), _texts(rule, "resources")
    for resource in resources:
        plural = _PLURALS.get(resource.partition("/")[0])
        if plural:
            yield f'rules name resources by their plural: "{plural}", not "{resource}"'
    if _STREAMS & set(resources) and not verbs & {"create", "*"}:
        yield "exec, attach and port-forward are the verb create"
    listing = sorted(verbs & {"list", "watch", "deletecollection"})
    if _texts(rule, "resourceNames") and listing:
        yield f"{', '.join(listing)} with resourceNames only matches who asks for fieldSelector=metadata.name=NAME"
    if _texts(rule, "resourceNames") and "create" in verbs and any("/" not in each for each in resources):
        yield "create has no name yet, so that resourceNames keep it from matching"
    if everywhere and "*" in verbs and "*" in resources and "*" in _texts(rule, "apiGroups"):
        where = "" if _texts(rule, "namespaces") else ", in every namespace"
        yield f"this is everything, secrets and exec among it, on every cluster{where}"


def _texts(rule: Object, key: str) -> Sequence[str]:
    return rolerules.texts(rule.get(key))


def _resource(resource: str, field: str) -> Iterable[Cause]:
    parent, _, sub = resource.partition("/")
    if resource != resource.lower():
        yield causes.invalid(field, resource, "resources are plurals in lower case, such as deployments")
    elif sub == "*":
        yield causes.invalid(field, resource, "subresources are named one by one; * alone is every resource with them")
    elif not _PATTERN.fullmatch(resource):
        yield causes.invalid(field, resource, "must be RESOURCE or RESOURCE/SUBRESOURCE, such as pods or pods/log")
    elif parent in ("pods", "pod") and sub in _MEANT:
        yield causes.invalid(field, resource, f"pods have no such subresource; did you mean pods/{_MEANT[sub]}?")


def _is_of_resource(path: str) -> bool:
    """Whether everything that a path can match is a request for a resource (access.requestinfo)."""
    parts = path.removesuffix("*").strip("/").split("/")
    return (parts[0] == "api" and len(parts) > 2) or (parts[0] == "apis" and len(parts) > 3)


def _namespaces(rule: Object, field: str, paths: bool) -> Iterable[Cause]:
    given = _texts(rule, "namespaces")
    if "namespaces" in rule and not given:
        # Empty would mean every namespace to a reader of RBAC, and none to whoever made the list with a program.
        yield causes.required(f"{field}.namespaces", "leave it out for every namespace, or name one")
    if given and paths:
        yield causes.forbidden(f"{field}.namespaces", "paths that are no resources lie in no namespace")
    for index, namespace in enumerate(given):
        for problem in names.label(namespace) if namespace != "*" else ():
            yield causes.invalid(f"{field}.namespaces[{index}]", namespace, problem)
    groups, parents = _texts(rule, "apiGroups"), {each.partition("/")[0] for each in _texts(rule, "resources")}
    unplaced = [attributes.UNPLACED.get(group, frozenset[str]()) for group in groups]
    if given and "*" not in given and parents and unplaced and all(parents <= kinds for kinds in unplaced):
        told = f"{', '.join(sorted(parents))} lie in no namespace, so that this would match nothing"
        yield causes.forbidden(f"{field}.namespaces", told)


def _never(rule: Object, field: str) -> Iterable[Cause]:
    """Rules whose parts are right and that match nothing together."""
    verbs, resources, named = set(_texts(rule, "verbs")), _texts(rule, "resources"), _texts(rule, "resourceNames")
    if verbs == {"create"} and named and resources and not any("/" in each or each == "*" for each in resources):
        told = "what is created has no name yet, so that this would match nothing"
        yield causes.forbidden(f"{field}.resourceNames", told)
    if verbs != {"impersonate"}:
        return
    actors = [each for each in resources if each in _ACTORS or each == "*" or each.startswith("userextras/")]
    if resources and not actors:
        offered = [*sorted(_ACTORS), "userextras/KEY"]
        yield causes.unsupported(f"{field}.resources", list(resources), offered)
    for index, name in enumerate(named):
        if (name.startswith("system:") and actors == ["groups"]) or (name == ANONYMOUS and actors == ["users"]):
            yield causes.invalid(f"{field}.resourceNames[{index}]", name, "nobody may ever act as this one")
