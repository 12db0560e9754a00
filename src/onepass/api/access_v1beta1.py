"""`access.karpor.io/v1beta1`: passes, which say who may do what on which clusters, and until when."""

from pydantic import Field

from onepass.api import objectmeta
from onepass.api.objectmeta import Condition, LabelSelector, Model, ObjectMeta, Time
from onepass.api.rbac_v1 import Subject


class PassClusters(Model):
    """The clusters of a pass: those named, and those selected."""

    names: list[str] | None = Field(None, description="Names of clusters; * means every cluster.")
    selector: LabelSelector | None = Field(
        None, description="Selects clusters by label; an empty selector selects every cluster."
    )


class PassRule(Model):
    """An RBAC rule for requests inside a cluster, which namespaces may narrow."""

    verbs: list[str] = Field(
        default_factory=list,
        description="Verbs, such as get, list and watch; * means all. exec, attach and port-forward are create.",
    )
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
    namespaces: list[str] | None = Field(
        None,
        description="Namespaces of the cluster that the rule holds in. Without it the rule holds in every namespace, "
        "and for what has none.",
    )


class PassIdentity(Model):
    """As whom requests reach the cluster."""

    mode: str = Field(
        "Gateway",
        description="Gateway: the cluster sees the gateway, and this pass is the bound. Impersonate: the cluster sees "
        "the user, and its own rules apply on top.",
    )


class PassSpec(Model):
    """Who may do what, where, as whom and until when."""

    subjects: list[Subject] = Field(default_factory=list, description="Who holds the pass.")
    clusters: PassClusters = Field(default_factory=PassClusters, description="The clusters that it opens.")
    rules: list[PassRule] = Field(
        default_factory=list, description="What it allows on them. Rules add up; there is no denial."
    )
    identity: PassIdentity | None = Field(None, description="As whom requests reach the cluster.")
    not_before: Time | None = Field(None, description="When the pass comes into force; without it, at once.")
    not_after: Time | None = Field(
        None, description="When the pass ends, for requests and for open streams; without it, never."
    )
    suspended: bool | None = Field(None, description="Whether the pass is out of force for now.")


class PassStatus(Model):
    """What has become of a pass."""

    in_force: bool | None = Field(None, description="Whether the pass counts now.")
    clusters: list[str] | None = Field(None, description="Names of the clusters that it opens now.")
    last_used: Time | None = Field(
        None, description="When a request was last allowed by it, as the audit log has it; a minute late at most."
    )
    observed_generation: int | None = Field(None, description="The generation that this status was made for.")
    conditions: list[Condition] | None = Field(
        None,
        description="InForce, with the reason when it is not: Suspended, NotYet, Expired or NoClusters.",
        json_schema_extra=objectmeta.CONDITIONS,
    )


class SelfClusterReviewStatus(Model):
    """What the caller may reach."""

    clusters: list[str] | None = Field(None, description="Names of the clusters on which the caller may do anything.")


class SelfClusterReview(Model):
    """Tells on which clusters the caller may do anything, without the right to list them."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta, description="Standard object metadata.")
    status: SelfClusterReviewStatus | None = Field(None, description="The answer.")


class Pass(Model):
    """Lets its subjects do what its rules say on its clusters, for a time."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta, description="Standard object metadata.")
    spec: PassSpec = Field(description="What the pass gives, and to whom.")
    status: PassStatus | None = Field(None, description="What has become of it. Kept by the gateway.")


class StreamSpec(Model):
    """Who does what where."""

    user: str = Field("", description="Who opened it.")
    groups: list[str] | None = Field(None, description="The groups of who opened it.")
    acts_as: str | None = Field(None, description="Whom they act as, if anybody else.")
    cluster: str = Field("", description="The member cluster; empty for the gateway's own API.")
    verb: str = Field("", description="What is done; exec, attach and port-forward are create.")
    resource: str = Field("", description="The resource, with its subresource, such as pods/log.")
    api_group: str = Field("", description="The API group of the resource; empty for the core group.")
    namespace: str = Field("", description="The namespace in the cluster.")
    object: str = Field("", description="The name of the object, when the stream is about one.")
    path: str = Field("", description="The path in the cluster.")
    source: str = Field("", description="The address that the connection comes from.")


class Stream(Model):
    """A watch, a followed log, an exec, an attach or a port-forward that is open. Deleting it ends it.

    Its name is the id of its request, by which the audit log knows it.
    """

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta, description="Standard object metadata.")
    spec: StreamSpec = Field(default_factory=StreamSpec, description="Who does what where.")
