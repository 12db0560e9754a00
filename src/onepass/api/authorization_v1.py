"""`authorization.k8s.io/v1`: may they, and what may I."""

from pydantic import Field

from onepass.api import objectmeta
from onepass.api.objectmeta import Model, ObjectMeta

_METADATA = Field(default_factory=ObjectMeta, description="Standard object metadata.")


class SelectorRequirement(Model):
    """One requirement of a selector."""

    key: str = Field("", description="The label or the field that it is about.")
    operator: str = Field("", description="In, NotIn, Exists or DoesNotExist.")
    values: list[str] | None = Field(None, description="Values, for In and NotIn.")


class SelectorAttributes(Model):
    """A field or label selector of the request in question; exactly one of the two forms."""

    raw_selector: str | None = Field(None, description="The selector as text.")
    requirements: list[SelectorRequirement] | None = Field(None, description="The selector as requirements.")


class ResourceAttributes(Model):
    """A request for a resource."""

    namespace: str | None = Field(None, description="Namespace of the request; none means all of them.")
    verb: str | None = Field(None, description="Verb, such as get, list or create; * means all.")
    group: str | None = Field(None, description="API group; * means all.")
    version: str | None = Field(None, description="API version; * means all.")
    resource: str | None = Field(None, description="Resource, in the plural; * means all.")
    subresource: str | None = Field(None, description="Subresource, if any.")
    name: str | None = Field(None, description="Name of the object; none means all.")
    field_selector: SelectorAttributes | None = Field(None, description="Field selector of the request.")
    label_selector: SelectorAttributes | None = Field(None, description="Label selector of the request.")


class NonResourceAttributes(Model):
    """A request for a path that is no resource."""

    path: str | None = Field(None, description="The path.")
    verb: str | None = Field(None, description="The HTTP method in lower case.")


class SelfSubjectAccessReviewSpec(Model):
    """The request in question; exactly one of the two."""

    resource_attributes: ResourceAttributes | None = Field(None, description="A request for a resource.")
    non_resource_attributes: NonResourceAttributes | None = Field(None, description="A request for another path.")


class SubjectAccessReviewSpec(Model):
    """The request in question, and who makes it; exactly one kind of attributes."""

    resource_attributes: ResourceAttributes | None = Field(None, description="A request for a resource.")
    non_resource_attributes: NonResourceAttributes | None = Field(None, description="A request for another path.")
    user: str | None = Field(None, description="Name of the user.")
    groups: list[str] | None = Field(None, description="Groups of the user.")
    extra: dict[str, list[str]] | None = Field(None, description="More on the user.")
    uid: str | None = Field(None, description="UID of the user.")


class SubjectAccessReviewStatus(Model):
    """Whether they may."""

    allowed: bool = Field(description="Whether the request would be allowed.")
    denied: bool | None = Field(None, description="Whether it would be denied, whatever others say.")
    reason: str | None = Field(None, description="Why.")
    evaluation_error: str | None = Field(None, description="What went wrong while deciding.")


class SubjectAccessReview(Model):
    """Tells whether a user may make a request."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = _METADATA
    spec: SubjectAccessReviewSpec = Field(description="The request in question.")
    status: SubjectAccessReviewStatus | None = Field(None, description="The answer.")


class LocalSubjectAccessReview(Model):
    """Tells whether a user may make a request in one namespace."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = _METADATA
    spec: SubjectAccessReviewSpec = Field(description="The request in question.")
    status: SubjectAccessReviewStatus | None = Field(None, description="The answer.")


class SelfSubjectAccessReview(Model):
    """Tells whether who asks may make a request, as `kubectl auth can-i` does."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = _METADATA
    spec: SelfSubjectAccessReviewSpec = Field(description="The request in question.")
    status: SubjectAccessReviewStatus | None = Field(None, description="The answer.")


class ResourceRule(Model):
    """Verbs on resources."""

    verbs: list[str] = Field(description="Verbs; * means all.")
    api_groups: list[str] | None = Field(None, description="API groups; * means all.")
    resources: list[str] | None = Field(None, description="Resources or resource/subresource; * means all.")
    resource_names: list[str] | None = Field(None, description="Names of single objects; none means every object.")


class NonResourceRule(Model):
    """Verbs on paths that are no resources."""

    verbs: list[str] = Field(description="HTTP methods in lower case; * means all.")
    non_resource_urls: list[str] | None = Field(
        None, alias="nonResourceURLs", description="Paths; a * at the end matches any rest."
    )


class SelfSubjectRulesReviewSpec(Model):
    """Where the rules are to hold."""

    namespace: str | None = Field(None, description="The namespace to tell the rules of.")


class SubjectRulesReviewStatus(Model):
    """What they may do."""

    resource_rules: list[ResourceRule] = Field(description="Verbs on resources.")
    non_resource_rules: list[NonResourceRule] = Field(description="Verbs on other paths.")
    incomplete: bool = Field(description="Whether more may be allowed than is told.")
    evaluation_error: str | None = Field(None, description="What went wrong while gathering the rules.")


class SelfSubjectRulesReview(Model):
    """Tells what who asks may do in a namespace, as `kubectl auth can-i --list` does."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = _METADATA
    spec: SelfSubjectRulesReviewSpec = Field(description="The namespace that the rules are asked for.")
    status: SubjectRulesReviewStatus | None = Field(None, description="The answer.")
