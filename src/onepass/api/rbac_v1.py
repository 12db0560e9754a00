"""`rbac.authorization.k8s.io/v1`: who may do what on the gateway's own API, and on `clusters/proxy`."""

from pydantic import Field

from onepass.api import objectmeta
from onepass.api.objectmeta import LabelSelector, Model, ObjectMeta


class PolicyRule(Model):
    """Verbs on resources or on paths that are no resources."""

    verbs: list[str] = Field(default_factory=list, description="Verbs, such as get, list and watch; * means all.")
    api_groups: list[str] | None = Field(
        None, description="API groups; the core group is the empty string, * means all."
    )
    resources: list[str] | None = Field(
        None, description="Resources or resource/subresource, such as pods and pods/log; * means all."
    )
    resource_names: list[str] | None = Field(None, description="Names of single objects; none means every object.")
    non_resource_urls: list[str] | None = Field(
        None,
        alias="nonResourceURLs",
        description="Paths that are no resources; a * at the end matches any rest. Not together with resources.",
    )


class Subject(Model):
    """A user, a group or a service account."""

    model_config = objectmeta.WHOLE

    kind: str = Field(description="User, Group or ServiceAccount.")
    api_group: str | None = Field(
        None, description="rbac.authorization.k8s.io for User and Group, empty for ServiceAccount."
    )
    name: str = Field(description="Name of the user, the group or the service account.")
    namespace: str | None = Field(None, description="Namespace of the service account.")


class RoleRef(Model):
    """The role that a binding gives. It cannot be changed: delete the binding and make another."""

    model_config = objectmeta.WHOLE

    api_group: str = Field("", description="rbac.authorization.k8s.io.")
    kind: str = Field(description="ClusterRole or Role.")
    name: str = Field(description="Name of the role.")


class AggregationRule(Model):
    """How the rules of a ClusterRole are gathered from others."""

    cluster_role_selectors: list[LabelSelector] | None = Field(
        None, description="Selectors of the ClusterRoles whose rules are taken; each adds its own."
    )


_RULES = Field(None, description="What the role allows.")
_SUBJECTS = Field(None, description="Who is given the role.")
_ROLE_REF = Field(description="The role that is given. It cannot be changed.")
_METADATA = Field(default_factory=ObjectMeta, description="Standard object metadata.")


class ClusterRole(Model):
    """Rules that can be given in every namespace, and on things without one."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = _METADATA
    rules: list[PolicyRule] | None = _RULES
    aggregation_rule: AggregationRule | None = Field(None, description="Gathers the rules from other ClusterRoles.")


class Role(Model):
    """Rules that can be given in one namespace."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = _METADATA
    rules: list[PolicyRule] | None = _RULES


class ClusterRoleBinding(Model):
    """Gives a ClusterRole in every namespace, and on things without one."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = _METADATA
    subjects: list[Subject] | None = _SUBJECTS
    role_ref: RoleRef = _ROLE_REF


class RoleBinding(Model):
    """Gives a Role or a ClusterRole in one namespace."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = _METADATA
    subjects: list[Subject] | None = _SUBJECTS
    role_ref: RoleRef = _ROLE_REF
