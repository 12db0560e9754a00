"""`v1`: namespaces and service accounts."""

from pydantic import Field

from onepass.api import objectmeta
from onepass.api.objectmeta import Condition, Model, ObjectMeta


class NamespaceSpec(Model):
    """Nothing that one could wish for yet."""

    finalizers: list[str] | None = Field(None, description="Kept for Kubernetes manifests; not used.")


class NamespaceStatus(Model):
    """Where the namespace is in its life."""

    phase: str | None = Field(None, description="Active, or Terminating while it is being deleted.")
    conditions: list[Condition] | None = Field(
        None, description="What keeps a deletion.", json_schema_extra=objectmeta.CONDITIONS
    )


class Namespace(Model):
    """A scope for the names of objects."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta, description="Standard object metadata.")
    spec: NamespaceSpec | None = Field(None, description="What is wished for.")
    status: NamespaceStatus | None = Field(None, description="Where it is in its life. Kept by the server.")


class LocalObjectReference(Model):
    """The name of an object in the same namespace."""

    model_config = objectmeta.WHOLE

    name: str = Field("", description="Name of the object.")


class ObjectReference(Model):
    """A reference to an object."""

    model_config = objectmeta.WHOLE

    name: str | None = Field(None, description="Name of the object.")
    kind: str | None = Field(None, description="Kind of the object.")
    namespace: str | None = Field(None, description="Namespace of the object.")
    uid: str | None = Field(None, description="UID of the object.")
    api_version: str | None = Field(None, description="API version of the object.")
    resource_version: str | None = Field(None, description="resourceVersion of the object.")
    field_path: str | None = Field(None, description="A part of the object.")


class ServiceAccount(Model):
    """An identity for a program; serviceaccounts/NAME/token gives it a token."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta, description="Standard object metadata.")
    secrets: list[ObjectReference] | None = Field(
        None,
        description="Kept for Kubernetes manifests; not used.",
        json_schema_extra={
            "x-kubernetes-patch-strategy": "merge",
            "x-kubernetes-patch-merge-key": "name",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
    )
    image_pull_secrets: list[LocalObjectReference] | None = Field(
        None, description="Kept for Kubernetes manifests; not used."
    )
    automount_service_account_token: bool | None = Field(None, description="Kept for Kubernetes manifests; not used.")
