"""What rules, subjects and role references of roles and passes may say (k8s.io/kubernetes/pkg/apis/rbac/validation)."""

from collections.abc import Iterable, Sequence

from onepass.api import meta
from onepass.api.errors import Cause
from onepass.api.meta import JSON, Object
from onepass.registry import causes, names

GROUP = "rbac.authorization.k8s.io"
SUBJECT_KINDS = ("ServiceAccount", "User", "Group")


def objects(value: JSON) -> Sequence[Object]:
    """The objects of a list; none when it is absent."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def texts(value: JSON) -> Sequence[str]:
    """The strings of a list; none when it is absent."""
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def with_groups(subjects: JSON) -> list[JSON]:
    """The subjects, users and groups with the API group that they have when none is given."""
    return [
        {"apiGroup": GROUP, **subject} if subject.get("kind") in ("User", "Group") else subject
        for subject in objects(subjects)
    ]


def rule(given: Object, field: str, *, namespaced: bool = False) -> Sequence[Cause]:
    """What is wrong with a PolicyRule; `namespaced` for one of a Role, which has no paths."""
    wrong: list[Cause] = []
    if not given.get("verbs"):
        wrong.append(causes.required(f"{field}.verbs", "verbs must contain at least one value"))
    paths = texts(given.get("nonResourceURLs"))
    groups, resources = given.get("apiGroups"), given.get("resources")
    if paths:
        if namespaced:
            told = "namespaced rules cannot apply to non-resource URLs"
            wrong.append(causes.invalid(f"{field}.nonResourceURLs", list(paths), told))
        if groups or resources or given.get("resourceNames"):
            told = "rules cannot apply to both regular resources and non-resource URLs"
            wrong.append(causes.invalid(f"{field}.nonResourceURLs", list(paths), told))
        return [*wrong, *_paths(paths, f"{field}.nonResourceURLs")]
    if not groups:
        wrong.append(causes.required(f"{field}.apiGroups", "resource rules must supply at least one api group"))
    if not resources:
        wrong.append(causes.required(f"{field}.resources", "resource rules must supply at least one resource"))
    return wrong


def _paths(paths: Iterable[str], field: str) -> Iterable[Cause]:
    for index, path in enumerate(paths):
        if "*" in path[:-1]:
            yield causes.invalid(f"{field}[{index}]", path, "only the last character may be '*'")
        elif path != "*" and not path.startswith("/"):
            yield causes.invalid(f"{field}[{index}]", path, "must begin with '/', or be '*'")


def subject(given: Object, field: str, *, namespaced: bool = False) -> Sequence[Cause]:
    """What is wrong with a subject; `namespaced` for one of a RoleBinding, whose own namespace is the default."""
    kind, name = meta.text(given, "kind"), meta.text(given, "name")
    if kind not in SUBJECT_KINDS:
        return [causes.unsupported(f"{field}.kind", kind, SUBJECT_KINDS)]
    wrong: list[Cause] = []
    if not name:
        wrong.append(causes.required(f"{field}.name"))
    group = meta.text(given, "apiGroup")
    if kind == "ServiceAccount":
        wrong += [causes.invalid(f"{field}.name", name, p) for p in (names.subdomain(name) if name else ())]
        if group:
            wrong.append(causes.unsupported(f"{field}.apiGroup", group, [""]))
        if not given.get("namespace") and not namespaced:
            wrong.append(causes.required(f"{field}.namespace"))
    elif group not in ("", GROUP):
        wrong.append(causes.unsupported(f"{field}.apiGroup", group, [GROUP]))
    return wrong


def role_ref(given: Object, kinds: Sequence[str]) -> Sequence[Cause]:
    """What is wrong with the roleRef of a binding that may give roles of these kinds."""
    wrong: list[Cause] = []
    if meta.text(given, "apiGroup") != GROUP:
        wrong.append(causes.unsupported("roleRef.apiGroup", given.get("apiGroup", ""), [GROUP]))
    if meta.text(given, "kind") not in kinds:
        wrong.append(causes.unsupported("roleRef.kind", given.get("kind", ""), kinds))
    name = meta.text(given, "name")
    if not name:
        wrong.append(causes.required("roleRef.name"))
    wrong += [causes.invalid("roleRef.name", name, p) for p in names.path_segment(name)]
    return wrong
