"""ClusterRole, ClusterRoleBinding, Role and RoleBinding."""

from collections.abc import Callable, Sequence

from onepass.api import meta, rbac_v1
from onepass.api.errors import Cause
from onepass.api.meta import Object, Resource
from onepass.registry import causes, rolerules, selection
from onepass.registry.strategy import Actor, Column, Strategy


def _resource(kind: str, plural: str, *, namespaced: bool) -> Resource:
    return Resource(rolerules.GROUP, "v1", kind, plural, kind.lower(), namespaced)


def _role(obj: Object, _old: Object | None) -> Sequence[Cause]:
    return [
        cause
        for index, rule in enumerate(rolerules.objects(obj.get("rules")))
        for cause in rolerules.rule(rule, f"rules[{index}]", namespaced=obj.get("kind") == "Role")
    ]


def _cluster_role(obj: Object, old: Object | None) -> Sequence[Cause]:
    wrong = list(_role(obj, old))
    if "aggregationRule" not in obj:
        return wrong
    field = "aggregationRule.clusterRoleSelectors"
    selectors = rolerules.objects(meta.section(obj, "aggregationRule").get("clusterRoleSelectors"))
    if not selectors:
        wrong.append(causes.required(field, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
    for index, selector in enumerate(selectors):
        wrong += selection.check(selector, f"{field}[{index}]")
    return wrong


def _binding(kinds: Sequence[str]) -> Callable[[Object, Object | None], Sequence[Cause]]:
    def validate(obj: Object, old: Object | None) -> Sequence[Cause]:
        reference = meta.section(obj, "roleRef")
        wrong = list(rolerules.role_ref(reference, kinds))
        if old is not None and meta.section(old, "roleRef") != reference:
            wrong.append(causes.invalid("roleRef", reference, "cannot change roleRef"))
        for index, subject in enumerate(rolerules.objects(obj.get("subjects"))):
            wrong += rolerules.subject(subject, f"subjects[{index}]", namespaced=obj.get("kind") == "RoleBinding")
        return wrong

    return validate


def _with_groups(obj: Object) -> Object:
    """The binding with the API groups that it has when none is given."""
    reference = meta.section(obj, "roleRef")
    made: Object = {**obj, "roleRef": {**reference, "apiGroup": reference.get("apiGroup") or rolerules.GROUP}}
    if "subjects" in obj:
        made["subjects"] = rolerules.with_groups(obj["subjects"])
    return made


def _on_create(obj: Object, _actor: Actor) -> Object:
    return _with_groups(obj)


def _on_update(_old: Object, new: Object, _actor: Actor) -> Object:
    return _with_groups(new)


def _role_name(obj: Object, _now: float) -> str:
    reference = meta.section(obj, "roleRef")
    return f"{meta.text(reference, 'kind')}/{meta.text(reference, 'name')}"


def _named(kind: str) -> Callable[[Object, float], str]:
    def cell(obj: Object, _now: float) -> str:
        found = [s for s in rolerules.objects(obj.get("subjects")) if s.get("kind") == kind]
        told = [f"{s['namespace']}/{s['name']}" if s.get("namespace") else str(s["name"]) for s in found]
        return ", ".join(told)

    return cell


_ROLE_COLUMNS = (
    Column(
        "Created At",
        lambda obj, _: meta.section(obj, "metadata").get("creationTimestamp"),
        description="When the role was created.",
    ),
)
_BINDING_COLUMNS = (
    Column("Role", _role_name, description="The role that is given."),
    Column("Users", _named("User"), priority=1, description="Users that are given it."),
    Column("Groups", _named("Group"), priority=1, description="Groups that are given it."),
    Column("ServiceAccounts", _named("ServiceAccount"), priority=1, description="Service accounts that are given it."),
)

CLUSTER_ROLES = Strategy(
    resource=_resource("ClusterRole", "clusterroles", namespaced=False),
    model=rbac_v1.ClusterRole,
    columns=_ROLE_COLUMNS,
    validate=_cluster_role,
    name_rule="rbac",
)
ROLES = Strategy(
    resource=_resource("Role", "roles", namespaced=True),
    model=rbac_v1.Role,
    columns=_ROLE_COLUMNS,
    validate=_role,
    name_rule="rbac",
)
CLUSTER_ROLE_BINDINGS = Strategy(
    resource=_resource("ClusterRoleBinding", "clusterrolebindings", namespaced=False),
    model=rbac_v1.ClusterRoleBinding,
    columns=_BINDING_COLUMNS,
    prepare_create=_on_create,
    prepare_update=_on_update,
    validate=_binding(("ClusterRole",)),
    name_rule="rbac",
)
ROLE_BINDINGS = Strategy(
    resource=_resource("RoleBinding", "rolebindings", namespaced=True),
    model=rbac_v1.RoleBinding,
    columns=_BINDING_COLUMNS,
    prepare_create=_on_create,
    prepare_update=_on_update,
    validate=_binding(("ClusterRole", "Role")),
    name_rule="rbac",
)
STRATEGIES = (CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES)
